"""What docs/training.md tells a researcher to type runs as it is written: on the small model and a made-up data set."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import sys
from collections import defaultdict
from contextlib import nullcontext
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.golden_weights import write_golden_checkpoint
from support.media_factory import make_clip
from support.ovavebench_factory import make_bench
from support.synthetic import make_data

from ovavel.eval.datasets.feature_cache import FeatureCache
from ovavel.eval.datasets.ovavebench import OVAVEBench
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.cli import main
from ovavel.runtime.pipeline.texts import read_names
from ovavel.training.fit.recipes import Recipe, find_recipe
from ovavel.training.fit.train import fit_data
from ovavel.training.models.imagebind.model import ImageBindConfig

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "training.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    """Code blocks of the page."""
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[list[str]]:
    """The lines of a shell block that run ovavel, as words."""
    lines = block.replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [each[1:] for each in words if each[:1] == ["ovavel"]]


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_every_command_from_videos_to_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(ImageBindConfig, "huge", ImageBindConfig.tiny)  # the small model, by the same command
    Path("weights").mkdir()
    write_golden_checkpoint(Path("weights/imagebind_huge.pth"), ImageBindConfig.tiny())
    shutil.copytree(make_bench(tmp_path / "made", clips=2, media=False) / "annotations", "annotations")
    Path("videos").mkdir()
    clip = make_clip(tmp_path / "clip.mp4", duration_s=10.2, fps=5)
    for each in OVAVEBench.open(tmp_path / "made").clips:
        shutil.copy(clip, Path("videos") / f"{each.name}.mp4")

    found = commands(blocks("sh")[0])
    assert [" ".join(words[:2]) for words in found] == [
        "train prepare", "eval data", "train features", "train table", "bundle export", "eval score",
        "eval calibrate", "eval lag", "eval parity",
    ]  # fmt: skip
    for words in found:
        code = main(words)
        said = capsys.readouterr()
        assert code == 0, (words, said)

    bench = OVAVEBench.open("OV-AVEBench")
    names = read_names(Path("annotations/ovave_total_close_open_categories.csv"))
    assert Bundle.open("imagebind").vocabulary.names == (*names, "other") == bench.names
    assert not FeatureCache.open("features").damaged
    rows = list(csv.DictReader(Path("table/table.csv").read_text().splitlines()))
    assert {"paper", "without-other", "ratio-25"} <= {row["method"] for row in rows}
    assert json.loads(Path("scores/ovave-test.json").read_text())["ran"].startswith("The bundle's encoders did not run")
    assert json.loads(Path("check/check-data.json").read_text())["damaged"] == []
    assert Path("parity/parity.html").exists()


def test_another_tracker_takes_what_tensorboard_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow is no dependency: the page's code runs on one that writes down what it is given."""
    monkeypatch.chdir(tmp_path)
    logged: dict[str, list[tuple[int, float]]] = defaultdict(list)

    def log_metric(name: str, value: float, *, step: int) -> None:
        logged[name].append((step, value))

    mlflow = SimpleNamespace(start_run=lambda run_name: nullcontext(run_name), log_metric=log_metric)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    recipe = Recipe(epochs=2, hidden=8, ffn=8)
    result = fit_data(recipe, make_data(train=16, val=8, test=8), Path("heads/paper"), tensorboard=True)
    (code,) = blocks("python")
    exec(code, {})
    assert logged["train/loss"] == [(each.number, pytest.approx(each.loss)) for each in result.epochs]
    for tag in ("train/learning_rate", "val total/avg", "test unseen/eve"):
        assert f"`{tag}`" in PAGE
        assert len(logged[tag]) == 2
    assert list(Path("heads/paper/tensorboard").glob("*tfevents*"))


def test_the_recipe_of_the_page_is_one(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    (tmp_path / "mine.toml").write_text(text)
    recipe = find_recipe(str(tmp_path / "mine.toml"))
    assert recipe.name == "mine"
    assert recipe.changes().keys() >= {"epochs", "halve_at", "blocks"}
    assert recipe != Recipe()


@pytest.mark.parametrize("page", sorted([*DOCS.rglob("*.md"), DOCS.parent / "README.md"]), ids=lambda path: path.stem)
def test_a_trained_head_is_given_to_pytorch_too(page: Path) -> None:
    """Whoever compares a bundle of a trained head with PyTorch needs the head: the command or its line says so."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if re.match(r"ovavel (eval parity|bench run) .*--weights", line) and "eval/demo/assets/clip.mp4" not in line:
            assert "--head" in line, line


def test_so_do_the_examples_in_the_help() -> None:
    for command in entry_points(group="ovavel.commands"):
        for line in (command.load().__doc__ or "").splitlines():
            if re.match(
                r" *ovavel (eval parity|bench) imagebind .*--weights|.*bench --bundle imagebind .*--weights", line
            ):
                assert "--head" in line, line
