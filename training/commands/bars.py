"""A progress bar for training, with its rate and the time left."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

from ovavel.runtime.system.progress import Bars

__all__ = ["steps"]


@contextlib.contextmanager
def steps(console: Console) -> Iterator[Callable[[int, int, str], None]]:
    """Show a bar; yields what `ovavel.training.fit.train.Progress` is."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} steps{task.fields[rate]}", markup=False),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console) as bars:
        task = bars.add_task("", total=None, rate="")
        first: int | None = None

        def tell(done: int, total: int, news: str) -> None:
            nonlocal first
            if first is None:  # what was done before does not count for the rate
                first = done - 1
                bars.reset(task, completed=first, total=total)
            speed = bars.tasks[0].speed
            bars.update(task, completed=done, total=total, description=news, rate=f", {speed:.0f}/s" if speed else "")

        yield tell
