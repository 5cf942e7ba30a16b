"""What handlers have in common: JSON, errors as problem documents (RFC 9457), parameters and bodies, who asks."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from ovavel.service.store.people import Identity, Role

__all__ = [
    "IDENTITY",
    "STILL",
    "Problem",
    "Streamed",
    "asking",
    "base_of",
    "body",
    "encoded",
    "only",
    "parameters",
    "problem",
    "read_json",
    "still_may",
    "whole",
]

T = TypeVar("T")

IDENTITY = "ovavel.identity"
"""Where a request's scope says who asks."""
STILL = "ovavel.still"
"""Where it has a function that finds out whether they still may."""
_LARGEST_BODY = 65_536
_LARGEST_NUMBER = 2**63 - 1
_NUMBER = re.compile(r"-?[0-9]{1,19}")


class Problem(Exception):  # noqa: N818 - it becomes an answer
    """What is asked for cannot be done; `title` says why and what to do."""

    def __init__(self, status: int, title: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(title)
        self.status, self.title, self.headers = status, title, dict(headers or {})


class Streamed(StreamingResponse):
    """Is sent part by part, and says when it is over, however it ends."""

    def __init__(
        self,
        content: AsyncIterator[bytes] | Iterator[bytes],
        over: Callable[[], None],
        *,
        media_type: str,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(content, media_type=media_type, headers=headers)
        self._over = over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._over()


def encoded(value: Any, status: int = 200) -> Response:
    """`value` as JSON."""
    headers = {"cache-control": "no-store"}
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")


def problem(status: int, title: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error as RFC 9457 has it."""
    text = msgspec.json.encode({"type": "about:blank", "status": status, "title": title})
    return Response(text, status, headers, media_type="application/problem+json")


def asking(request: Request, role: Role = "view") -> Identity:
    """Who asks, where they may do what `role` may.

    Raises:
        Problem: they may not.
    """
    identity: Identity = request.scope[IDENTITY]
    if not identity.may(role):
        raise Problem(403, f"this needs the role {role}; {identity.name} has the role {identity.role}")
    return identity


def still_may(request: Request) -> bool:
    """Whether who asked is still logged in, with the same role."""
    may: Callable[[], bool] = request.scope[STILL]
    return may()


def base_of(request: Request) -> str:
    """The way from the address that was asked for to the first page, so that a proxy may put all under any path."""
    path: str = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    return "../" * path.removeprefix("/").count("/") or "./"


def parameters(request: Request, *known: str) -> QueryParams:
    """The parameters of the address, each given once at most.

    Raises:
        Problem: there is one that is not `known`, or one is given twice.
    """
    given = request.query_params
    if unknown := given.keys() - set(known):
        raise Problem(400, f"there is no parameter {min(unknown)!r}; known are {', '.join(known) or 'none'}")
    for name in given:
        if len(given.getlist(name)) > 1:
            raise Problem(400, f"the parameter {name!r} is given more than once")
    return given


def whole(given: Mapping[str, str], name: str, *, least: int = -_LARGEST_NUMBER) -> int | None:
    """A parameter that is a whole number; None where it is not given.

    Raises:
        Problem: it is not one.
    """
    text = given.get(name)
    if text is None:
        return None
    number = int(text) if _NUMBER.fullmatch(text) else _LARGEST_NUMBER + 1
    if not least <= number <= _LARGEST_NUMBER:
        raise Problem(400, f"{name} must be a whole number (times: microseconds of UTC), not {text!r}")
    return number


def only(given: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str | None:
    """A parameter that is one of a few words; None where it is not given or empty.

    Raises:
        Problem: it is another one.
    """
    text = given.get(name) or None
    if text is not None and text not in allowed:
        raise Problem(400, f"{name} must be one of {', '.join(allowed)}, not {text!r}")
    return text


async def body(request: Request) -> bytes:
    """What a request brings.

    Raises:
        Problem: it is too large, or ends early.
    """
    found = bytearray()
    try:
        async for part in request.stream():
            found += part
            if len(found) > _LARGEST_BODY:
                raise Problem(413, f"a request has at most {_LARGEST_BODY >> 10} KiB")
    except ClientDisconnect:
        raise Problem(400, "the request ended early") from None
    return bytes(found)


async def read_json(request: Request, kind: type[T]) -> T:
    """A request's body as a `kind`.

    Raises:
        Problem: it is not JSON, or not of this kind.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Problem(415, "send JSON, with the header Content-Type: application/json")
    try:
        return msgspec.json.decode(await body(request), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(422, f"the body does not fit: {error}") from error
