"""What prints to a person.

Nothing that is printed here steers the terminal but rich itself: what a text holds of escape sequences, marks of
direction and the like is spelled out, wherever it comes from. Line ends are left, for they are ours as well: what may
come from outside goes through `one_line` or `shown_name` first.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from ovavel.runtime.reporting.streams import READABLE
from ovavel.runtime.reporting.text import INVISIBLE, spelled_out

__all__ = ["ErrorConsole", "OutputConsole"]

_STEERING = re.compile(f"(?!\n){INVISIBLE.pattern}")


class _PlainConsole(Console):
    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """See `rich.console.Console.render`."""
        for segment in super().render(renderable, options):
            plain = segment.control or not _STEERING.search(segment.text)
            yield segment if plain else Segment(_STEERING.sub(spelled_out, segment.text), segment.style)


class ErrorConsole(_PlainConsole):
    """A console for standard error, where a long line stays one."""

    def __init__(self) -> None:
        super().__init__(stderr=True, highlight=False, soft_wrap=True)


class OutputConsole(_PlainConsole):
    """A console for standard output, as wide as a table needs where no terminal says how wide it is.

    It lets `BrokenPipeError` through, where rich would exit with 1; with `expendable`, it falls silent instead. What an
    output without Unicode cannot hold is spelled out; see `ovavel.runtime.reporting.streams`.
    """

    def __init__(self, *, expendable: bool = False, **options: Any) -> None:
        """Print; `expendable` where the results go elsewhere, and a reader that goes away must not end the work."""
        super().__init__(**options)
        self._expendable = expendable
        if self.options.ascii_only and isinstance(self.file, io.TextIOWrapper):
            self.file.reconfigure(errors=READABLE)
        if not self.is_terminal and "COLUMNS" not in os.environ:
            self.width = 120

    def on_broken_pipe(self) -> None:
        """Pass it on; `ovavel.runtime.cli` ends quietly with 0."""
        if not self._expendable:
            raise  # noqa: PLE0704 - rich calls this while it handles the error
        with contextlib.suppress(SystemExit):
            super().on_broken_pipe()  # points standard output at nothing, for good
