"""Shows on standard error how far long work is: a bar on a terminal, and elsewhere a line now and then."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

from ovavel.runtime.reporting.console import ErrorConsole
from ovavel.runtime.system.progress import Progress

__all__ = ["Bars", "rated_bar", "shown_progress", "shown_status"]

LINE_EVERY_S = 30.0
"""How often a line is written where there is no terminal."""
_DRAW_EVERY_S = 0.1
"""A bar is drawn so often. What is reported in between costs nothing."""


class Bars(RichProgress):
    """Bars, gone at the end if `transient`. Without a terminal, a line each half minute says what the columns would."""

    def __init__(self, *columns: ProgressColumn, console: Console, transient: bool = True) -> None:
        super().__init__(*columns, console=console, transient=transient, disable=not console.is_interactive)
        self._written_s = time.monotonic()

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """See `rich.progress.Progress.update`."""
        super().update(task_id, **changes)
        if self.disable and time.monotonic() - self._written_s >= LINE_EVERY_S:
            self._written_s = time.monotonic()
            line = _line(self.columns, self._tasks[task_id])
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """End the bars, with nothing left behind; rich would end bars that were never shown with an empty line."""
        if not self.disable:
            super().stop()


def _line(columns: tuple[ProgressColumn | str, ...], task: Task) -> str:
    """What is done, the share of it, and what else there are columns for."""
    parts = []
    for column in columns:
        if isinstance(column, BarColumn):
            parts.append(f"{task.percentage:.0f} %" if task.total else "")
        elif isinstance(column, TimeRemainingColumn):
            parts.append(f"{column.render(task)} left" if task.time_remaining is not None else "")
        elif isinstance(column, ProgressColumn) and not isinstance(column, (SpinnerColumn, TimeElapsedColumn)):
            parts.append(str(column.render(task)))
    return ", ".join(part for part in parts if part.strip(" ·"))


@contextlib.contextmanager
def rated_bar(unit: str, *, rate: str | None = None, console: Console | None = None) -> Iterator[Progress]:
    """Yield a progress shown as a bar with how much is done, the rate and the time left; gone at the end.

    Args:
        unit: of what is done, such as "clips".
        rate: what stands after the rate, such as "× real time"; by default, `unit` a second.
        console: where it is shown; standard error by default.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[counts]}", markup=False),
        TimeRemainingColumn(),
    )
    updated_s = -math.inf
    with Bars(*columns, console=console or ErrorConsole()) as bars:

        def report(what: str, done: float | None = None, total: float | None = 1.0, note: str = "") -> None:
            nonlocal updated_s
            now_s = time.monotonic()
            same = bool(bars.tasks) and bars.tasks[0].description == what
            if same and done != total and now_s < updated_s + _DRAW_EVERY_S:
                return
            updated_s = now_s
            if done is None:
                total = None
            if not same:
                for task_id in bars.task_ids:
                    bars.remove_task(task_id)
                # What was done before counts as done, but not for the rate.
                bars.add_task(what, total=total, completed=done or 0, counts="")  # type: ignore[arg-type] # float in fact
            task = bars.tasks[0]
            parts = [note] if note else []
            if task.speed:
                parts.insert(0, f"{task.speed:.{0 if task.speed >= 100 else 1}f} {rate or f'{unit}/s'}")
            if done is not None:
                parts.insert(0, f"{done:.0f}{f' of {total:.0f}' if total is not None else ''} {unit}")
            bars.update(task.id, completed=done, total=total, counts=", ".join(parts))

        yield report


@contextlib.contextmanager
def shown_progress() -> Iterator[Progress]:
    """Yield a progress shown as a bar with the time left; gone at the end.

    Without a terminal each stage is a line of its own, and one that takes long has more. Nothing is shown until the
    progress is called.
    """
    console = ErrorConsole()
    columns = (
        SpinnerColumn(),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("·"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    bars = Bars(*columns, console=console)
    stages: list[str] = []

    def report(what: str, done: float | None = None, total: float | None = 1.0, note: str = "") -> None:
        stage = what.partition(":")[0]
        if not console.is_interactive and stages[-1:] != [stage]:
            stages.append(stage)
            console.print(stage, markup=False)
        if not bars.tasks:
            bars.add_task(what, total=1.0)
            bars.start()
        description = f"{what}, {note}" if note else what
        bars.update(bars.task_ids[0], description=description, completed=(done or 0.0) / (total or 1.0))

    try:
        yield report
    finally:
        if bars.tasks:  # rich would end a bar that never began with an empty line
            bars.stop()


@contextlib.contextmanager
def shown_status(what: str) -> Iterator[Progress]:
    """Show that `what` runs, for work whose length nobody knows; yields a progress for what runs next.

    Without a terminal `what` is a line, and each half minute, and at the end, the latest is another if it is new.
    """
    console = ErrorConsole()
    if console.is_interactive:
        with console.status(escape(what)) as status:
            yield _in_words(lambda words: status.update(escape(words)))
        return
    latest, ended = [what], threading.Event()
    console.print(what, markup=False)

    def write_lines() -> None:
        written, last = what, False
        while not last:
            last = ended.wait(LINE_EVERY_S)
            if latest[0] != written:
                written = latest[0]
                console.print(written, markup=False)

    writer = threading.Thread(target=write_lines, name="ovavel-status", daemon=True)  # a step may take minutes
    writer.start()
    try:
        yield _in_words(lambda words: latest.__setitem__(0, words))
    finally:
        ended.set()
        writer.join()


def _in_words(show: Callable[[str], None]) -> Progress:
    def report(what: str, done: float | None = None, total: float | None = 1.0, note: str = "") -> None:
        share = (
            "" if done is None else f"{done / (total or 1):.0%}" if total == 1 else f"{done:.0f} of {total or 0:.0f}"
        )
        show(", ".join(part for part in (what, share, note) if part))

    return report
