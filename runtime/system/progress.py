"""Shows on standard error how far long work is: a bar on a terminal, and elsewhere a line now and then."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ovavel.runtime.reporting.console import ErrorConsole

__all__ = ["Bars", "shown_progress", "shown_status"]

LINE_EVERY_S = 30.0
"""How often a line is written where there is no terminal."""


class Bars(Progress):
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
def shown_progress() -> Iterator[Callable[[str, float], None]]:
    """Yield a function to be told a stage and the share that is done: a bar with the time left, gone at the end.

    Without a terminal each stage is a line of its own, and one that takes long has more. Nothing is shown until the
    function is called.
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
    told: list[str] = []

    def tell(stage: str, share: float) -> None:
        name = stage.partition(":")[0]
        if not console.is_interactive and told[-1:] != [name]:
            told.append(name)
            console.print(name, markup=False)
        if not bars.tasks:
            bars.add_task(stage, total=1.0)
            bars.start()
        bars.update(bars.task_ids[0], description=stage, completed=share)

    try:
        yield tell
    finally:
        if bars.tasks:  # rich would end a bar that never began with an empty line
            bars.stop()


@contextlib.contextmanager
def shown_status(what: str) -> Iterator[Callable[[str], None]]:
    """Show `what` runs, for work whose length nobody knows; yield a function to be told what runs next.

    Without a terminal `what` is a line, and each half minute, and at the end, the latest is another if it is new.
    """
    console = ErrorConsole()
    if console.is_interactive:
        with console.status(escape(what)) as status:
            yield lambda what: status.update(escape(what))
        return
    told, ended = [what], threading.Event()
    console.print(what, markup=False)

    def write_lines() -> None:
        written, last = what, False
        while not last:
            last = ended.wait(LINE_EVERY_S)
            if told[0] != written:
                written = told[0]
                console.print(written, markup=False)

    writer = threading.Thread(target=write_lines, name="ovavel-status", daemon=True)  # a step may take minutes
    writer.start()
    try:
        yield lambda what: told.__setitem__(0, what)
    finally:
        ended.set()
        writer.join()
