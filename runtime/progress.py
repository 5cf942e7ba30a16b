"""Shows on standard error how far long work is, once there is something to show."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

__all__ = ["shown_progress"]


@contextlib.contextmanager
def shown_progress() -> Iterator[Callable[[str, float], None]]:
    """Yield a function to be told a stage and the share that is done: a bar with the time left, gone at the end.

    Without a terminal each stage is a line of its own. Nothing is shown until the function is called.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    columns = (
        SpinnerColumn(),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("·"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    bars = Progress(*columns, console=console, transient=True)
    told: list[str] = []

    def tell(stage: str, share: float) -> None:
        if not console.is_terminal:
            name = stage.partition(":")[0]
            if told[-1:] != [name]:
                told.append(name)
                console.print(name, markup=False)
            return
        if not bars.tasks:
            bars.add_task(stage, total=1.0)
            bars.start()
        bars.update(bars.task_ids[0], description=stage, completed=share)

    try:
        yield tell
    finally:
        if bars.tasks:  # rich would end a bar that never began with an empty line
            bars.stop()
