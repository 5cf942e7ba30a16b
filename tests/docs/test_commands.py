"""What README.md and docs/ tell a reader to type: parsed as it is written, and run on the small model where it can.

Those of docs/training.md run one after the other in test_training.py, and those of docs/extend with the page's code in
test_examples.py.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command_surface import kinds
from support.page_commands import BLOCK, PAGES, ROOT, SHELL, commands, name, shell_lines
from support.proofs import proof_unless

from ovavel.runtime.cli import main

WITH_COMMANDS = [page for page in PAGES if commands(page)]
OTHER_PROGRAMS = {"make", "pip", "scp", "ssh", "nvidia-smi", "python", "tensorboard", "wandb", "git", "torchrun", "cd"}


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=name)
def test_every_command_is_understood(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in kinds().values():
        monkeypatch.setattr(kind, "run", lambda self: 0)
    for words in commands(page):
        assert main(words) == 0, words


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_shell_block_hides_a_command(page: Path) -> None:
    for words in shell_lines(page):
        assert Path(words[0]).name in {*OTHER_PROGRAMS, "ovavel"}, words
    for _, kind, block in BLOCK.findall(page.read_text(encoding="utf-8")):
        assert kind in SHELL or not re.search(r"^ovavel ", block, re.MULTILINE), "mark it as ```sh"


NOT_HERE = {
    "bundle weights": "downloads 4.8 GB",
    "bundle engine": "builds for a GPU",
    "bench gpu": "needs a GPU",
    "bench cpu": "runs the full size, in processes of its own",
    "train demo-world": "takes half an hour",
    "demo-site": "runs until a signal arrives",
    "bench economy": "takes minutes",
    "eval economy": "takes minutes, and needs a data set whose names the bundle has",
}
"""Commands that have tests of their own, on a small model or a simulated GPU."""
ELSEWHERE = (
    "@gate.txt",
    "/etc/ovavel/site.toml",
    "cuda",
    "tensorrt",
    "tensorrt-rtx",
    "triton",
    "rtsp://camera.local/1",
    "http://localhost:8000/v1",
    "--on",
    "s3://bucket/results",
)
"""What only another machine has."""
QUICKER = {
    "demo": "--fast",
    "bench run": "--windows 2 --warm-up-s 1 --scenarios single --references eager --threads 1",
    "bundle export": "--overwrite",
    "train table": "--epochs 1 --halve-at 1 --hidden 8 --ffn 8 --seeds 0 1",
}
"""Flags after those of the page, which they replace."""
MAY_SAY_NO = {"eval parity", "vocab try"}
"""Random weights lose more in 8 bits than trained ones, and know no words: the answer may be no."""


def runs_here(words: list[str]) -> bool:
    command = next((each for each in (" ".join(words[:2]), words[0]) if each in kinds()), "")
    camera = command == "live" and words[1].startswith("--")
    # What these name is made by commands that are not run here.
    needs = {"demo-world/encoders.safetensors", "demo-world/features-drop-path", "--vggsounder", "--beside"}
    before = needs & set(words) or command.startswith("serve ")
    endless = command == "serve" and "--check" not in words
    return not (command in NOT_HERE or camera or endless or before or set(ELSEWHERE) & set(words))


RUN = [
    page
    for page in WITH_COMMANDS
    if page.stem != "training" and page.parent.name != "extend" and any(map(runs_here, commands(page)))
]
LONG = {
    "clip-clap",
    "precision",
    "parity",
    "benchmarks/README",
    "usage",
    "demo-world",
    "scale",
    "performance",
    "economy",
}
"""Pages whose commands export bundles or take long, each of which has tests of its own."""


@pytest.fixture(scope="module")
def small_model() -> Iterator[None]:
    """Take the small model for the full size, by the same flags."""
    from ovavel.training.models.imagebind.model import ImageBindConfig

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageBindConfig, "huge", ImageBindConfig.tiny)
        yield


@pytest.fixture(scope="module")
def prepared(
    tmp_path_factory: pytest.TempPathFactory,
    exported_bundle: Path,
    tiny_weights: Path,
    tiny_head: Path,
    small_model: None,
) -> Path:
    """A folder with what the pages name: weights, bundles, recordings, data sets, caches."""
    from support.clip_clap_folders import clap_folder, clip_folder
    from support.media_factory import make_clip
    from support.ovavebench_factory import make_bench

    from ovavel.training.models.checkpoint import read_checkpoint

    torch = pytest.importorskip("torch")
    here = tmp_path_factory.mktemp("reader")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        for folder in ("weights", "head", "recordings", "demo-out", "demo-world/assets"):
            Path(folder).mkdir(parents=True)
        torch.save(read_checkpoint(tiny_weights), "imagebind_huge.pth")
        shutil.copy("imagebind_huge.pth", "weights")
        shutil.copy(tiny_weights, "encoders.safetensors")
        shutil.copy(tiny_head, "head.safetensors")
        shutil.copy(tiny_head, "head")
        Path("site.toml").write_text('bundle = "b"\ndata = "d"\n[[camera]]\nid = "gate"\nsource = "clip.mp4"\n')
        Path("names.txt").write_text("dog barking\nrace car\nsinging bowl\n")
        make_clip(here / "clip.mp4", duration_s=4, fps=5)
        shutil.copy("clip.mp4", "recordings")
        shutil.copy("clip.mp4", "yard.mp4")
        assets = ROOT / "eval" / "demo" / "assets"
        shutil.copytree(assets, "eval/demo/assets")
        shutil.copytree(assets / "bundle", "demo-out/bundle")
        shutil.copy(assets / "clip.mp4", "demo-out")
        shutil.copytree(exported_bundle, "BUNDLE")
        small = "--weights imagebind_huge.pth --vocabulary names.txt --precision fp32 int8"
        assert main(["bundle", "export", *small.split(), "--out", "imagebind"]) == 0
        assert main(["bundle", "export", *small.split(), "--head", "head.safetensors", "--out", "bundle"]) == 0
        make_bench(here / "DATASET", clips=1)
        features = ["train", "features", "--data", "DATASET", "--bundle", "BUNDLE", "--threads", "1", "--workers", "1"]
        assert main([*features, "--out", "CACHE"]) == 0
        clip_folder(Path("clip-vit-base-patch32"))
        clap_folder(Path("larger_clap_general"))
        for data, cache in (("dataset", None), ("ovavebench", None), ("demo-world/dataset", "demo-world/features")):
            shutil.copytree("DATASET", data)
            if cache:
                shutil.copytree("CACHE", cache)
        shutil.copytree("BUNDLE", "demo-world/assets/bundle")
        timed = ["bench", "run", "--bundle", "BUNDLE", *QUICKER["bench run"].split(), "--windows", "20"]
        assert main([*timed, "--out", "before"]) == 0
        shutil.copytree("before", "after")
    return here


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "page", proof_unless(lambda page: name(page).removeprefix("docs/").removesuffix(".md") not in LONG, RUN), ids=name
)
def test_every_command_that_can_run_here_runs(
    page: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(prepared, tmp_path / "reader")
    monkeypatch.chdir(tmp_path / "reader")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for words in filter(runs_here, commands(page)):
        command = next(each for each in (" ".join(words[:2]), words[0]) if each in kinds())
        more = [*QUICKER.get(command, "").split(), *(["--view", "lines"] if command == "live" else [])]
        if "--head" in words:  # then the bundle has one
            words = ["bundle" if word == "imagebind" else word for word in words]
        code = main([word for word in words if word != "--realtime"] + more)
        said = capsys.readouterr()
        assert code == 0 or (code == 1 and command in MAY_SAY_NO and "ovavel: " not in said.err), (words, said)
