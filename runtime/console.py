"""What prints to a person."""

from __future__ import annotations

import contextlib
import io
import os
from typing import Any

from rich.console import Console

from ovavel.runtime.streams import READABLE

__all__ = ["OutputConsole"]


class OutputConsole(Console):
    """A console for standard output, as wide as a table needs where no terminal says how wide it is.

    It lets `BrokenPipeError` through, where rich would exit with 1; with `expendable`, it falls silent instead. What an
    output without Unicode cannot hold is spelled out; see `ovavel.runtime.streams`.
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
