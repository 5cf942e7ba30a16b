"""What docs/benchmarks/first-ten-minutes.md says to type on a GPU is understood, and its two steps hold every row."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from ovavel.export.commands.bench_gpu import BenchGpu
from ovavel.export.gpu_bench.matrix import matrix_rows
from ovavel.runtime.cli import main
from ovavel.runtime.commands.check import Check
from ovavel.runtime.commands.doctor import Doctor

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "benchmarks" / "first-ten-minutes.md").read_text(encoding="utf-8")
LINES = [
    shlex.split(line, comments=True)
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]


def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The commands of the page, parsed and not run."""
    parsed: list[Any] = []
    for kind in (Doctor, Check, BenchGpu):
        monkeypatch.setattr(kind, "run", lambda self: parsed.append(self) or 0)
    for words in LINES:
        if words[0] == "ovavel":
            assert main(words[1:]) == 0, words
    return parsed


def test_every_command_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = asked(monkeypatch)
    assert [type(each) for each in commands] == [Doctor, Check, Check, BenchGpu, BenchGpu]
    assert all((ROOT / each.bundle).is_dir() for each in commands if isinstance(each, Check))
    files = [word for words in LINES for word in words if word.startswith("tests/")]
    assert files
    assert all((ROOT / file).is_file() for file in files)


def test_both_steps_together_measure_every_row_within_their_budgets(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (each for each in asked(monkeypatch) if isinstance(each, BenchGpu))
    assert first.keep == second.keep is not None, "the second step finds what the first one made"
    assert first.out != second.out
    names = [[spec.name for spec in matrix_rows(Path(), None, wanted=each.rows)] for each in (first, second)]
    assert {*names[0], *names[1]} == {spec.name for spec in matrix_rows(Path(), None)}
    assert not any("tensorrt" in name for name in names[0]), "what starts at once comes first"
    assert names[1][0] == "PyTorch eager fp32", "which the others are compared with"
    building = sum("tensorrt" in name for name in names[1])
    assert second.budget_s >= building * second.build_s
