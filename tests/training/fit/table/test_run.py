"""`ovavel train head` and `ovavel train table` on a tiny dataset whose features are made up."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from support.feature_cache_factory import write_cache
from support.ovavebench_factory import make_bench
from support.rows import rows_of
from support.synthetic import unit

from ovavel.eval.accuracy.metrics import Scores, score_agreement
from ovavel.eval.accuracy.protocols import PUBLISHED, Rows
from ovavel.eval.datasets.feature_cache import FeatureCache
from ovavel.eval.datasets.ovavebench import OVAVEBench
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.cli import main
from ovavel.runtime.errors import DatasetError
from ovavel.runtime.pipeline.fusion import cosine_similarity
from ovavel.training.fit.data import Part, read_data
from ovavel.training.fit.recipes import RECIPES, Recipe
from ovavel.training.fit.result import DataInfo, Epoch, FitResult, PartInfo, row_table
from ovavel.training.fit.table.page import to_html
from ovavel.training.fit.table.report import cells, notes, to_csv
from ovavel.training.fit.table.results import Line, Results, why_not_published
from ovavel.training.fit.table.run import Plan, run_table, summarize
from ovavel.training.fit.table.suites import table_rows
from ovavel.training.fit.table.untrained import untrained
from ovavel.training.heads.temporal import TemporalHead

SVG = 'xmlns="http://www.w3.org/2000/svg"'
SMALL = "--epochs 2 --hidden 8 --ffn 8 --learning-rate 1e-3 --device cpu"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset in `data`, its features in `features`; one training clip and two test clips are damaged."""
    place = tmp_path_factory.mktemp("table")
    make_bench(place / "data", clips=8, media=False)
    write_cache(place / "features" / "cache", OVAVEBench.open(place / "data"), {"train": 1, "test": 2})
    return place


def flags(place: Path, out: Path | str) -> list[str]:
    return ["--data", str(place / "data"), "--features", str(place / "features"), "--out", str(out)]


def test_data_matches_the_dataset(place: Path) -> None:
    bench, cache = OVAVEBench.open(place / "data"), FeatureCache.open(place / "features")
    data = read_data(bench, cache)
    assert data.test
    counts = [(len(part), part.damaged) for part in (data.train, data.val, data.test)]
    assert counts == [(31, 1), (48, 0), (46, 2)]
    assert len(data.train_text) == len(bench.seen_names) == 5
    wanted = [bench.names.index(name) for name in bench.seen_names]
    assert np.array_equal(data.train_text.vision, cache.text.vision[wanted])
    clips = cache.load(bench.select("train")).clips
    assert np.array_equal(data.train.truth, bench.truth(clips, bench.seen_names))
    assert data.train.truth.max() == 4
    assert data.train.seen.all()
    assert data.val.seen.sum() == 32
    quarter = read_data(bench, cache, 0.25, test=False)
    assert quarter.test is None
    assert len(quarter.train) + quarter.train.damaged == len(bench.select("train", train_ratio=0.25)) == 8
    assert quarter.fingerprint != data.fingerprint == read_data(bench, cache).fingerprint


def test_features_of_another_dataset_are_refused(place: Path, tmp_path: Path) -> None:
    other = OVAVEBench.open(make_bench(tmp_path / "data", clips=3, media=False))
    with pytest.raises(DatasetError, match="other annotations"):
        read_data(other, FeatureCache.open(place / "features"))


def test_head_command(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "train",
        "head",
        *flags(place, tmp_path / "out"),
        *SMALL.split(),
        "--recipe",
        "residual",
        "--no-tensorboard",
    ]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "31 of 32 clips; 1 damaged" in out
    assert "46 of 48 clips; 2 damaged" in out
    result = FitResult.read(tmp_path / "out")
    assert result
    assert result.recipe == replace(RECIPES["residual"], epochs=2, hidden=8, ffn=8, learning_rate=1e-3)
    assert TemporalHead.load(tmp_path / "out" / "head.safetensors").gate is not None
    assert not (tmp_path / "out" / "tensorboard").exists()
    page = (tmp_path / "out" / "report.html").read_text()
    assert "1 damaged" in page
    assert main([*command, "--seed", "4"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*command, "--seed", "4", "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--recipe papper", "there is no recipe 'papper'"),
        ("--epochs 0", "epochs"),
        ("--device cuda:99", "cuda:99"),
        ("--features nowhere", "nowhere"),
        ("--annotations nowhere", "nowhere"),
        ("--train-ratio 0", "--train-ratio takes a number above 0 to 1"),
    ],
)
def test_head_command_reports_errors(
    more: str, message: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "head", *flags(place, tmp_path / "out"), *more.split()]) != 0
    error = capsys.readouterr().err
    assert error.startswith("ovavel: ")
    assert message in error
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.timeout(900)
def test_torchrun_trains_the_same(place: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    ovavel = str(Path(sys.executable).with_name("ovavel"))
    command = [ovavel, "train", "head", *flags(place, tmp_path / "two"), *SMALL.split()]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run([*torchrun, *command], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("Trained on") == 1  # only one process prints
    assert main(["train", "head", *flags(place, tmp_path / "one"), *SMALL.split()]) == 0
    one, two = (FitResult.read(tmp_path / name) for name in ("one", "two"))
    assert one
    assert two
    np.testing.assert_allclose([e.loss for e in one.epochs], [e.loss for e in two.epochs], rtol=1e-5)
    assert one.best.test == two.best.test


def loads_nothing(page: str) -> bool:
    """Whether a page is self-contained; the name of SVG's namespace is no address."""
    return not re.search(r"https?://|<script|<link|src=|href=|url\((?!#)|@import", page.replace(SVG, ""))


@pytest.fixture(scope="module")
def made(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made")
    command = ["train", "table", *flags(place, out), *SMALL.split()]
    assert main([*command, "--recipes", "ratio-25", "paper", "--seeds", "1", "2"]) == 0
    return out


def test_table_command(place: Path, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {file: file.read_bytes() for file in made.rglob("head.safetensors")}
    assert sorted(str(file.parent.relative_to(made)) for file in before) == [
        "paper/seed-1", "paper/seed-2", "ratio-25/seed-1", "ratio-25/seed-2",
    ]  # fmt: skip
    command = ["train", "table", *flags(place, made), *SMALL.split()]
    assert main([*command, "--recipes", "paper", "shuffled-labels", "--seeds", "1", "2"]) == 0
    out = capsys.readouterr().out
    assert "shuffled-labels" in out
    assert "46 of 48 clips; 2 damaged" in out
    assert "published: " not in out  # not the published test split
    for file, content in before.items():
        assert file.read_bytes() == content
    reported = json.loads((made / "table.json").read_text())
    assert "published" not in reported
    lines = {line["name"]: line for line in reported["lines"]}
    assert list(lines)[-2:] == ["paper", "shuffled-labels"]
    runs = [json.loads((made / "paper" / f"seed-{seed}" / "result.json").read_text()) for seed in (1, 2)]
    values = [run["epochs"][run["chosen"] - 1]["test"]["unseen"]["eve"] for run in runs]
    assert lines["paper"]["mean"]["unseen"]["eve"] == pytest.approx(np.mean(values))
    assert lines["paper"]["deviation"]["unseen"]["eve"] == pytest.approx(np.std(values, ddof=1))
    assert lines["paper"]["interval"] is None  # it has a deviation instead
    page = (made / "table.html").read_text()
    assert "<svg" in page
    assert loads_nothing(page)


def test_one_seed_has_intervals_over_clips_and_recipes_may_be_files(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.toml").write_text('base = "mixed"\nbackground = false\n')
    words = ["--seeds", "3", "--recipes", "paper", "without-other", str(tmp_path / "mine.toml")]
    assert main(["train", "table", *flags(place, tmp_path / "out"), *SMALL.split(), *words]) == 0
    out = capsys.readouterr().out
    assert "mine" in out
    lines = {line["name"]: line for line in json.loads((tmp_path / "out" / "table.json").read_text())["lines"]}
    for name, line in lines.items():
        if name.startswith("chance"):
            continue
        for part, ends in line["interval"].items():
            for measure, (low, high) in ends.items():
                assert low - 1e-9 <= line["mean"][part][measure] <= high + 1e-9, (name, part, measure)
    assert lines["paper"]["interval"]["total"]["avg"][0] < lines["paper"]["interval"]["total"]["avg"][1]
    rows = list(csv.DictReader((tmp_path / "out" / "table.csv").read_text().splitlines()))
    assert {row["method"] for row in rows} == lines.keys()
    assert {row["published"] for row in rows} == {""}
    assert "In brackets: 95%" in (tmp_path / "out" / "table.html").read_text()
    (tmp_path / "again.toml").write_text('name = "mine"')
    words[3:] = [str(tmp_path / "mine.toml"), str(tmp_path / "again.toml")]
    assert main(["train", "table", *flags(place, tmp_path / "out"), *SMALL.split(), *words]) == 2
    assert "called 'mine'" in capsys.readouterr().err


def test_table_uses_the_share_of_training_clips(place: Path, made: Path) -> None:
    runs = [FitResult.read(made / name / "seed-1") for name in ("ratio-25", "paper")]
    assert [run.data.train.clips + run.data.train.damaged for run in runs if run] == [8, 32]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--recipes paper nothing", "'nothing'"),
        ("--recipes", "at least one"),
        ("--seeds", "at least one"),
        ("--seed 3", "--seeds"),
    ],
)
def test_table_command_reports_errors(
    more: str, message: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "table", *flags(place, tmp_path / "out"), *SMALL.split(), *more.split()]) != 0
    error = capsys.readouterr().err
    assert error.startswith("ovavel: ")
    assert message in error
    assert not (tmp_path / "out").exists()


def test_an_unavailable_share_is_reported_before_training(place: Path, tmp_path: Path) -> None:
    bench, cache = OVAVEBench.open(place / "data"), FeatureCache.open(place / "features")
    plan = Plan(rows=table_rows(None, [RECIPES["paper"], RECIPES["ratio-25"]]), seeds=[1])
    with pytest.raises(DatasetError, match=r"0\.25"):
        run_table(replace(bench, published_choices={}), cache, plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_baselines_without_training(place: Path) -> None:
    data = read_data(OVAVEBench.open(place / "data"), FeatureCache.open(place / "features"))
    assert data.test
    lines = {line.name: rows_of(line.mean) for line in untrained(data.test, data.text)}
    chance, nothing = lines["chance: random classes"], lines["background everywhere"]
    assert abs(chance.total.acc - 1 / len(data.names)) < 0.04
    assert nothing.total.acc == pytest.approx((data.test.truth == len(data.names) - 1).mean())
    free = lines["agreement, training-free"]
    assert free.total.avg > nothing.total.avg > chance.total.avg
    without = lines["agreement without background"]
    vision, audio = (
        cosine_similarity(x, data.text.vision[:-1]).argmax(-1) for x in (data.test.vision, data.test.audio)
    )
    assert without.total == score_agreement(vision, audio, data.test.truth, len(data.names)) != free.total


def result(seed: int, avg: float) -> FitResult:
    scores = Rows(Scores(avg, avg, avg, avg), None, Scores(avg, avg, avg, avg))
    epoch = Epoch(number=1, learning_rate=1, loss=1, gate=None, val=row_table(scores), test=row_table(scores))
    part = PartInfo(clips=10, damaged=0)
    info = DataInfo(
        fingerprint="", embedding_size=4, train_classes=47, classes=68, train=part, val=part,
        test=PartInfo(clips=5817, damaged=3),
    )  # fmt: skip
    return FitResult(recipe=Recipe(seed=seed), data=info, epochs=(epoch,), chosen=1, test_choice=1)


def test_published_figures_are_shown_where_comparable() -> None:
    line = summarize([result(0, 0.5), result(1, 0.6)])
    assert line.published == "fine-tuned"
    assert line.mean["unseen"] is None
    assert line.deviation
    assert line.deviation["total"] == pytest.approx(dict.fromkeys(("acc", "seg", "eve", "avg"), 0.1 / np.sqrt(2)))
    one = summarize([result(0, 0.5)])
    assert one.deviation is None
    lines = (line, Line(name="linear", mean=one.mean, published="Linear in place of the block"))
    results = Results(dataset_fingerprint="f", data=result(0, 0).data, why_not_published="", ratios={}, lines=lines)
    rows = {row[0]: row[1:] for row in cells(results)}
    assert rows["paper"] == (*["55.0 ± 7.1"] * 4, *["–"] * 4, *["55.0 ± 7.1"] * 4)
    assert " ".join(rows["  published: fine-tuned"]) == "72.5 61.8 54.5 62.9 64.9 55.0 47.5 55.8 67.1 56.9 49.5 57.8"
    linear = rows["  published: Linear in place of the block"]
    assert " ".join(linear) == "– – – 65.8 – – – 28.3 – – – 39.0"
    assert rows["published: CMRA"][-2:] == ("34.3", "39.2")
    assert all(len(row) == 12 for row in rows.values())
    text = "\n".join(notes(results))
    assert "Published, two blocks, cross-modal only: a note on the paper by others" in text
    assert "fine-tuned without other: Zhou et al., CVPR 2025 (arXiv 2411.11278), Table 3" in text
    lines_of_csv = list(csv.DictReader(to_csv(results).decode().splitlines()))
    assert len(lines_of_csv) == 2 * 8
    total = next(each for each in lines_of_csv if (each["clips"], each["measure"]) == ("total", "avg"))
    assert (float(total["value"]), total["published"], total["seeds"]) == (pytest.approx(0.55), "0.578", "2")
    reported = json.loads(results.encode())
    assert reported["published"]["fine-tuned"]["total_avg"] == PUBLISHED["fine-tuned"].total_avg
    assert "5817 of 5820 clips; 3 damaged" in to_html(results).decode()
    elsewhere = {row[0]: row for row in cells(msgspec.structs.replace(results, why_not_published="No."))}
    assert list(elsewhere) == ["paper", "linear"]


def test_published_figures_apply_only_to_unmodified_recipes() -> None:
    plain = result(7, 0.5)
    for name, published in {"without-other": "fine-tuned without other", "two-blocks": "two blocks"}.items():
        recipe = replace(RECIPES[name], seed=7)
        assert summarize([msgspec.structs.replace(plain, recipe=recipe)]).published == published
        changed = replace(recipe, dropout=0.3)
        assert summarize([msgspec.structs.replace(plain, recipe=changed)]).published is None
    assert summarize([msgspec.structs.replace(plain, recipe=replace(plain.recipe, name="mine"))]).published is None
    assert all(line.published != "fine-tuned without other" for line in _untrained_lines())


def _untrained_lines() -> tuple[Line, ...]:
    """Return the training-free lines for a few random clips."""
    g = np.random.default_rng(0)
    audio, vision = unit(g.standard_normal((4, 10, 8))), unit(g.standard_normal((4, 10, 8)))
    part = Part(audio=audio, vision=vision, truth=g.integers(0, 5, (4, 10)), seen=np.array([True, True, False, False]))
    return untrained(part, TextEmbeddings.shared(unit(g.standard_normal((5, 8)))))


def test_a_damaged_split_hides_published_figures() -> None:
    info = result(0, 0.5).data
    assert info.test
    assert why_not_published(info) == ""
    for field, damaged in (("test", 117), ("train", 1), ("val", 1)):
        whole = PartInfo(clips=10, damaged=0) if field != "test" else info.test
        clips = whole.clips + whole.damaged
        broken = msgspec.structs.replace(info, **{field: PartInfo(clips=clips - damaged, damaged=damaged)})
        assert why_not_published(broken).startswith(f"WARNING: {damaged} of the {clips} clips of {field}")
    small = msgspec.structs.replace(info, classes=61)
    assert why_not_published(small).startswith("No published figures")


def test_names_are_escaped() -> None:
    line = Line(name="<b>&", mean=row_table(Rows(None, None, Scores(0.1, 0.2, 0.3, 0.2))))
    results = Results(
        dataset_fingerprint="f", data=result(0, 0).data, why_not_published="No.", ratios={"<i>": "x"}, lines=(line,)
    )
    page = to_html(results).decode()
    assert "<b>" not in re.sub(r"<b>(\d+ names and the background|0.1.0)</b>", "", page)
    assert "&lt;b&gt;&amp;" in page
    assert "<i>" not in page
