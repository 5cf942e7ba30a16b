"""A question to the archive, in a process of its own: it may take seconds and memory that the cameras must not miss."""

from __future__ import annotations

from collections.abc import Iterator

from ovavel.service.archive.messages import Answered, Compared, Ended, FromChild, Refused, ToChild
from ovavel.service.link import Child, LinkClosed

__all__ = ["SearchError", "Searching"]

_SILENT_S = 300.0
"""A day of a camera takes seconds, or half a minute on a busy machine; the text encoder as long. One that is silent for
longer hangs."""


class SearchError(Exception):
    """It cannot be answered; says why."""


class Searching:
    """A question that is being answered. `close` cancels it, from any thread."""

    def __init__(self, asked: ToChild) -> None:
        """Start it.

        Raises:
            SearchError: no process can be started now.
        """
        self._closed = False
        try:
            self._child = Child("ovavel.service.archive.child")
            self._child.link.send(asked)
        except LinkClosed as error:
            raise SearchError(str(error)) from error

    def answers(self) -> Iterator[Answered | Compared]:
        """Wait for each answer, the newest day's first: of the kind that fits the question.

        Raises:
            SearchError: what was asked cannot be answered, or the process was lost.
        """
        while True:
            try:
                found: FromChild = self._child.link.receive(FromChild, timeout_s=_SILENT_S)
            except LinkClosed as error:
                if self._closed:
                    return
                raise SearchError(f"no more answers from the archive: {error}") from error
            if isinstance(found, Refused):
                raise SearchError(found.error)
            if isinstance(found, Ended):
                return
            yield found

    def close(self) -> None:
        """End it. May be called twice."""
        self._closed = True
        self._child.stop(0.0)
