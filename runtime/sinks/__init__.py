"""Where events go: a terminal, plain lines, a JSONL file."""

from __future__ import annotations

from typing import Protocol

from ovavel.runtime.session_info import SessionInfo
from ovavel.runtime.stats import Stats
from ovavel.runtime.types import Update

__all__ = ["Sink"]


class Sink(Protocol):
    """Receives all that a session brings. Called from one thread, in the order given here."""

    name: str
    """What a person would call it: a file, standard output."""

    def open(self, info: SessionInfo, stats: Stats) -> None:
        """The session is ready: the backend is warm. `stats` keeps counting while it runs."""

    def write(self, update: Update) -> None:
        """One window's news: notices, then scores and events. The last update ends what is open and has no window."""

    def close(self) -> None:
        """The session is over. Every event has ended if the last update came; otherwise it was interrupted.

        May be called twice.
        """
