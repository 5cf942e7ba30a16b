"""Where events go: a terminal, plain lines, a JSONL file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ovavel.runtime.backends import BackendInfo
from ovavel.runtime.bundle.manifest import Gate
from ovavel.runtime.stats import Stats
from ovavel.runtime.types import Sense, Update

__all__ = ["SessionInfo", "Sink"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionInfo:
    """What stays the same while a session runs."""

    source: str
    senses: frozenset[Sense]
    live: bool
    labels: tuple[str, ...]
    """Class names, background last."""
    vocabulary_version: str
    model: str
    """Name of the model in the bundle, e.g. "imagebind-huge"."""
    licence: str
    """Licence of the model's weights."""
    bundle_sha256: str
    backend: BackendInfo
    gate: Gate | None
    """The comparison with PyTorch that verifies the backend; None: nobody made one."""
    lag: int
    """How many later segments make a score final."""
    gate_checked_here: bool = True
    """Whether this machine made the comparison; False where the bundle alone says that somebody did."""


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
