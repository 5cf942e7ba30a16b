"""One transaction for what several cameras bring: a slow disk takes only so many a second, whatever they hold."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from ovavel.runtime.errors import OutputError
from ovavel.service.store.database import Database
from ovavel.service.watch.runs.camera_watch import CameraWatch

__all__ = ["EVERY_S", "Commits", "commit"]

EVERY_S = 0.1
"""While more waits to be decided, a transaction follows another one after so long: news is not held up for longer."""


class Commits:
    """Holds what was decided until it is committed with what else waits. Used by the thread that decides."""

    def __init__(self, store: Database) -> None:
        self._store = store
        self._held: list[tuple[CameraWatch, Callable[[], object]]] = []
        self._last_s = time.monotonic()

    def hold(self, watch: CameraWatch, then: Callable[[], object]) -> None:
        """Commit what `watch` has taken with the next transaction, then call `then`."""
        self._held.append((watch, then))

    def commit(self, *, more: bool = False) -> None:
        """Commit what is held; where `more` waits to be decided, only if the last transaction is a while ago."""
        if not self._held or (more and time.monotonic() < self._last_s + EVERY_S):
            return
        held, self._held = self._held, []
        try:
            commit(self._store, dict.fromkeys(watch for watch, _ in held))
        finally:
            self._last_s = time.monotonic()
        for _, then in held:
            then()


def commit(store: Database, watches: Iterable[CameraWatch]) -> None:
    """Commit what these watches have taken, all of it together; where the store cannot be written now, they keep it."""
    unwritten = [watch for watch in watches if watch.unwritten]
    if not unwritten:
        return
    try:
        with store.write() as transaction:
            logs = [watch.write(transaction) for watch in unwritten]
    except OutputError as error:
        for watch in unwritten:
            watch.trouble = str(error)
        return
    for watch, log in zip(unwritten, logs, strict=True):
        watch.written(log)
