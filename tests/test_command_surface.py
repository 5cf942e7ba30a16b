"""The commands and their flags are those of tests/golden/commands.txt, so that they grow on purpose.

After a change that is meant: `python tests/test_command_surface.py` writes the file again; read its diff.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
from support.command_surface import flags, kinds, surface

from ovavel.runtime.cli import main

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden" / "commands.txt"
SHARED = {"--bundle", "--data", "--out", "--device", "--threads", "--backend", "--precision", "--annotations"}
"""Flags that mean the same wherever they stand."""
RECORDINGS = {"localize", "live", "vocab try", "eval parity", "eval economy", "bench run", "bench economy"}
GROUPS = {
    "vocab": {"list", "add", "remove", "try"},
    "bundle": {"export", "weights", "engine", "triton", "check"},
    "bench": {"run", "compare", "economy", "cpu", "gpu"},
    "eval": {"data", "score", "parity", "lag", "economy", "calibrate"},
    "train": {"prepare", "features", "head", "table", "demo-world"},
    "archive": {"check"},
    "serve": {"backup", "restore", "doctor"},
}


def test_commands_and_flags_are_the_frozen_ones() -> None:
    assert surface() == GOLDEN.read_text(encoding="utf-8"), f"meant? Then run: python {Path(__file__).name}"


def test_the_groups_are_those_of_the_grammar() -> None:
    grouped = {f"{group} {name}" for group, names in GROUPS.items() for name in names}
    assert kinds().keys() == grouped | {
        "live",
        "localize",
        "search",
        "relabel",
        "report",
        "serve",
        "doctor",
        "demo",
        "demo-site",
    }


def test_recordings_are_positional_and_shared_words_are_flags() -> None:
    for command, kind in kinds().items():
        names = {name for name, _ in flags(kind)}
        assert not {flag.strip("-").upper() for flag in SHARED} & names, command
        assert any(name.isupper() for name in names) == (
            command
            in RECORDINGS
            | {
                "vocab add",
                "vocab remove",
                "bench compare",
                "report",
                "search",
                "archive check",
                "serve",
                "serve backup",
                "serve restore",
                "serve doctor",
            }
        ), command


@pytest.mark.parametrize("command", sorted(kinds()))
def test_help_is_free_of_python(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert not re.search(r"\{None|None\}|default: None|default: \)", shown)


WORDS = re.compile(r"""(?<=['`])ovavel ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?(?=[ '"`\n])""")
SOURCES = [
    path
    for layer in ("runtime", "eval", "training", "export", "service")
    for path in sorted((ROOT / layer).rglob("*.py"))
]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("path", [*SOURCES, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_that_a_text_quotes_is_one(path: Path) -> None:
    """Advice in messages, docstrings and pages: 'ovavel train features' and the like."""
    known = kinds().keys()
    for first, second in WORDS.findall(path.read_text(encoding="utf-8")):
        if first in GROUPS and second:
            assert f"{first} {second}" in known
        else:
            assert first in known | GROUPS.keys()


if __name__ == "__main__":
    GOLDEN.write_text(surface(), encoding="utf-8")
