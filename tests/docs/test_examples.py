"""The code of the pages on adding a part runs as it is written there, and prints what they say."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest
from support.demo_copies import BUNDLE, CLIP
from support.installed import install

from ovavel.runtime.cli import main

PAGES = Path(__file__).parents[2] / "docs" / "extend"


def blocks(page: str, kind: str) -> list[str]:
    """Fenced blocks of one kind."""
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def after_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which `ovavel demo` has run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(BUNDLE, "demo-out/bundle")
    shutil.copy(CLIP, "demo-out/clip.mp4")
    return tmp_path


@pytest.mark.parametrize("page", sorted(path.stem for path in PAGES.glob("*.md")))
def test_the_code_of_a_page_runs(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = "\n\n".join(blocks(page, "python"))
    assert code
    if "torch" in code and importlib.util.find_spec("torch") is None:
        pytest.skip("needs PyTorch")
    exec(compile(code, f"{page}.md", "exec"), {"__name__": f"{page}_example"})
    printed = capsys.readouterr().out
    for expected in blocks(page, "text"):
        assert printed.strip() == expected.strip()


def test_the_backend_of_the_page_passes_the_self_check_and_then_runs(
    after_the_demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (after_the_demo / "my_backend.py").write_text(blocks("backend", "python")[0])
    groups = tomllib.loads(blocks("backend", "toml")[0])["project"]["entry-points"]
    install(after_the_demo, monkeypatch, "plain", groups)

    (check, localize) = (shlex.split(line)[1:] for line in blocks("backend", "sh")[0].splitlines())
    assert main(localize) == 1
    assert "bundle check" in capsys.readouterr().err
    assert main(check) == 0
    assert main(localize) == 0
    assert list(Path("results").rglob("*.json"))


def test_the_head_of_the_page_is_trained_and_tabulated(after_the_demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from support.feature_cache_factory import DIM, write_cache
    from support.ovavebench_factory import make_bench

    from ovavel.eval.datasets.ovavebench import OVAVEBench
    from ovavel.training.heads.base import load_head

    code, groups = blocks("head", "python")[0], tomllib.loads(blocks("head", "toml")[0])["project"]["entry-points"]
    assert len([line for line in code.splitlines() if line.strip()]) <= 22
    (after_the_demo / "my_head.py").write_text(code)
    install(after_the_demo, monkeypatch, "neighbours", groups)
    root = make_bench(after_the_demo / "OV-AVEBench", clips=3)
    write_cache(after_the_demo / "features", OVAVEBench.open(root), {})
    Path("mine.toml").write_text('head = "neighbours"\nepochs = 1\n')

    for line in blocks("head", "sh")[0].splitlines():
        assert main(shlex.split(line)[1:]) == 0
    head = load_head("heads/neighbours/head.safetensors")
    assert (head.name, head.dim, head.reach) == ("neighbours", DIM, (1, 1))
    assert load_head("table/mine/seed-123/head.safetensors").config() == head.config()
