"""Questions to the archive: each is answered with server-sent events by a process of its own, few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct
from starlette.responses import Response

from ovavel.runtime.archive.layout import CONTEXT
from ovavel.service.archive.messages import ToChild
from ovavel.service.archive.search import SearchError, Searching
from ovavel.service.watch.service import Service
from ovavel.service.web.answers import Problem, Streamed

__all__ = ["Questions"]

_AT_ONCE = 2


class Questions:
    """Those to the archive of one site, by everybody."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._running = 0

    @property
    def folder(self) -> str:
        """The archive.

        Raises:
            Problem: there is none.
        """
        folder = self._service.archivist.folder
        if not (folder / CONTEXT).is_dir():
            raise Problem(
                409, "there is no archive yet: it is written while cameras are watched, unless archive_gb = 0"
            )
        return str(folder)

    async def answered(self, asked: ToChild, shown: Callable[[Any], Struct]) -> Response:
        """Answer with "found" for each of the answers, as `shown` makes it, then "end", or "problem".

        Raises:
            Problem: too many ask.
        """
        if self._running >= _AT_ONCE:
            raise Problem(503, f"{_AT_ONCE} others are asking the archive; try again in a moment", {"retry-after": "5"})
        self._running += 1
        try:
            searching = await asyncio.to_thread(Searching, asked)
        except BaseException as error:  # cancelled, too: else its place would never be free again
            self._running -= 1
            if isinstance(error, SearchError):
                raise Problem(503, str(error)) from error
            raise
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        over = partial(self._over, searching)
        return Streamed(_followed(searching, shown), over, media_type="text/event-stream", headers=headers)

    def _over(self, searching: Searching) -> None:
        searching.close()
        self._running -= 1


async def _followed(searching: Searching, shown: Callable[[Any], Struct]) -> AsyncIterator[bytes]:
    answers = searching.answers()
    try:
        while (answer := await asyncio.to_thread(_next, answers)) is not None:
            found = await asyncio.to_thread(shown, answer)
            yield b"event: found\ndata: %s\n\n" % msgspec.json.encode(found)
    except SearchError as error:
        yield b"event: problem\ndata: %s\n\n" % msgspec.json.encode({"title": str(error)})
    else:
        yield b"event: end\ndata: {}\n\n"


def _next(answers: Iterator[Any]) -> Any:
    return next(answers, None)
