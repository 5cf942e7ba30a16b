"""How far long work is, where there is no terminal."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ovavel.runtime.system import bars as bars_module
from ovavel.runtime.system.bars import Bars, rated_bar, shown_progress, shown_status

COLUMNS = (
    TextColumn("{task.description}", markup=False),
    BarColumn(),
    TextColumn("·"),
    TextColumn("{task.completed:.0f} of {task.total:.0f} s, {task.fields[rate]:.1f} × real time"),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
)


def test_without_a_terminal_a_line_now_and_then_says_what_a_bar_would(monkeypatch: pytest.MonkeyPatch) -> None:
    clock_s = [0.0]
    monkeypatch.setattr(bars_module.time, "monotonic", lambda: clock_s[0])
    written = io.StringIO()
    with Bars(*COLUMNS, console=Console(file=written)) as bars:
        bars.get_time = lambda: clock_s[0]
        bar = bars.add_task("[clip].mp4", total=400, rate=0.0)
        for second in range(0, 80, 10):
            clock_s[0] = float(second)
            bars.update(bar, completed=2 * second, rate=2.0)
    assert written.getvalue().splitlines() == [
        "[clip].mp4, 15 %, 60 of 400 s, 2.0 × real time, 0:02:50 left",
        "[clip].mp4, 30 %, 120 of 400 s, 2.0 × real time, 0:02:20 left",
    ]


def test_short_work_leaves_nothing_behind() -> None:
    written = io.StringIO()
    with Bars(*COLUMNS, console=Console(file=written)) as bars:
        bars.update(bars.add_task("clip", total=1, rate=0.0), completed=1)
    assert written.getvalue() == ""


def test_stages_are_lines_and_long_ones_say_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bars_module, "LINE_EVERY_S", 0.0)
    with shown_progress() as progress:
        progress("building: vision", 0.25)
    assert capsys.readouterr().err.splitlines() == ["building", "25 %, building: vision"]


def test_what_runs_is_reported_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with shown_status("opening") as progress:
        progress("onnxruntime [fp32]: offline")
        progress("onnxruntime [fp32]: live")
        assert capsys.readouterr().err == "opening\n", "the others not yet"
    assert capsys.readouterr().err == "onnxruntime [fp32]: live\n", "the last is not lost"
    monkeypatch.setattr(bars_module, "LINE_EVERY_S", 0.01)
    with shown_status("opening") as progress:
        progress("onnxruntime [fp32]: offline")
        written, end_s = "", time.monotonic() + 100
        while not written.endswith("offline\n") and time.monotonic() < end_s:
            time.sleep(0.01)
            written += capsys.readouterr().err
    assert written == "opening\nonnxruntime [fp32]: offline\n", "it is reported while it runs, and once"
    assert capsys.readouterr().err == ""


def test_a_rated_bar_says_how_much_how_fast_and_how_long_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    clock_s = [0.0]
    monkeypatch.setattr(bars_module.time, "monotonic", lambda: clock_s[0])
    written = io.StringIO()
    with rated_bar("clips", console=Console(file=written, get_time=lambda: clock_s[0])) as progress:
        for second in range(0, 50, 10):
            clock_s[0] = float(second)
            progress("encoding val", 1000 + 2 * second, 1200, "1 damaged")
        for second in range(50, 90, 10):
            clock_s[0] = float(second)
            progress("encoding [test]", second - 50, None)
    assert written.getvalue().splitlines() == [
        # Those that were done before count as done, and not for the rate.
        "encoding val, 88 %, 1060 of 1200 clips, 2.0 clips/s, 1 damaged, 0:01:10 left",
        "encoding [test], 10 clips",
    ]


def test_what_is_reported_in_quick_succession_is_shown_now_and_then_and_the_end_always(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock_s, updates = [0.0], []
    monkeypatch.setattr(bars_module.time, "monotonic", lambda: clock_s[0])
    monkeypatch.setattr(Bars, "update", lambda self, task, **changes: updates.append(changes["completed"]))
    with rated_bar("clips", console=Console(file=io.StringIO(), get_time=lambda: clock_s[0])) as progress:
        for done in range(1001):
            clock_s[0] = done / 1000
            progress("encoding", done, 1000)
    assert (updates[0], updates[-1]) == (0, 1000)
    assert 5 <= len(updates) <= 12
