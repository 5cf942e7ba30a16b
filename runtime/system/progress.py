"""How long work reports how far it is. `bars` shows it."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "no_progress", "part_of", "prefixed"]


class Progress(Protocol):
    """Is called again and again by long work. Other threads and processes never call it."""

    def __call__(self, what: str, done: float | None = None, total: float | None = 1.0, note: str = "") -> None:
        """Report that `what` is running, and that `done` of `total` is behind it.

        Args:
            what: the stage in a few words; where another begins, its rate is measured from there.
            done: in the unit of `total`; None: nobody knows how far it is.
            total: 1 where `done` is a share; None: nobody knows how much there is.
            note: a few words more about the stage.
        """


def no_progress(what: str, done: float | None = None, total: float | None = 1.0, note: str = "") -> None:
    """Report to nobody."""


def prefixed(progress: Progress, prefix: str) -> Progress:
    """Return a progress whose stages have `prefix` before them in `progress`."""

    def report(what: str, done: float | None = None, total: float | None = 1.0, note: str = "") -> None:
        progress(prefix + what, done, total, note)

    return report


def part_of(progress: Progress, start: float, share: float, *, of: float = 1.0, prefix: str = "") -> Progress:
    """Return a progress for a part of the work: it begins at `start` and is `share` of the whole, `of`."""

    def report(what: str, done: float | None = None, total: float | None = 1.0, note: str = "") -> None:
        progress(prefix + what, start + share * (done or 0.0) / (total or 1.0), of, note)

    return report
