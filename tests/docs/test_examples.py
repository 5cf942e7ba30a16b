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
    installed = after_the_demo / "plain-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: plain\nVersion: 1\n")
    groups = tomllib.loads(blocks("backend", "toml")[0])["project"]["entry-points"]
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items()) for group, names in groups.items()]
    (installed / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(after_the_demo)

    (check, localize) = (shlex.split(line)[1:] for line in blocks("backend", "sh")[0].splitlines())
    assert main(localize) == 1
    assert "bundle check" in capsys.readouterr().err
    assert main(check) == 0
    assert main(localize) == 0
    assert list(Path("results").rglob("*.json"))
