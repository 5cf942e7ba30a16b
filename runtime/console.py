"""What prints to a person."""

from __future__ import annotations

from rich.console import Console

__all__ = ["OutputConsole"]


class OutputConsole(Console):
    """A console for standard output that lets `BrokenPipeError` through, where rich would exit with 1."""

    def on_broken_pipe(self) -> None:
        """Pass it on; `ovavel.runtime.cli` ends quietly with 0."""
        raise  # noqa: PLE0704 - rich calls this while it handles the error
