"""Consoles for printing to users.

Only rich controls the terminal: escape sequences, direction marks and the like in any text are spelled out. Line breaks
are kept because our own output uses them, so external text must go through `one_line` or `shown_name` first.
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
    """A console for standard error that does not wrap long lines."""

    def __init__(self) -> None:
        super().__init__(stderr=True, highlight=False, soft_wrap=True)


class OutputConsole(_PlainConsole):
    """A console for standard output, as wide as a table needs if there is no terminal.

    It raises `BrokenPipeError`, where rich would exit with 1; with `expendable`, it stops printing instead. Characters
    that the output's encoding lacks are spelled out; see `ovavel.runtime.reporting.streams`.
    """

    def __init__(self, *, expendable: bool = False, **options: Any) -> None:
        """Create a console; `expendable`: results are written elsewhere, so a closed pipe must not end the work."""
        super().__init__(**options)
        self._expendable = expendable
        if self.options.ascii_only and isinstance(self.file, io.TextIOWrapper):
            self.file.reconfigure(errors=READABLE)
        if not self.is_terminal and "COLUMNS" not in os.environ:
            self.width = 120

    def on_broken_pipe(self) -> None:
        """Re-raise it; `ovavel.runtime.cli` then exits quietly with 0."""
        if not self._expendable:
            raise  # noqa: PLE0704 - rich calls this while it handles the error
        with contextlib.suppress(SystemExit):
            super().on_broken_pipe()  # discards standard output from now on
