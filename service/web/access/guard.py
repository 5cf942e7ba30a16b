"""What stands before every handler: who asks, and whether the request comes from our own page.

Pure ASGI, so that streams pass through.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.responses import RedirectResponse, Response

from ovavel.service.web.access.identify import Access, is_local_name
from ovavel.service.web.answers import IDENTITY, problem

__all__ = ["Guard"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_FREE = ("/healthz", "/login", "/static/")
"""Paths that nobody has to log in for."""
_OPEN_TO_VIEWERS = frozenset({"/login", "/logout", "/api/v1/me/password"})
"""What those may send who may only look."""
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data:; object-src 'none'; frame-ancestors 'none'; base-uri 'none'; "
        b"form-action 'self'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


class Guard:
    """Adds security headers, finds out who asks, and refuses who may not."""

    def __init__(self, app: App, access: Access, *, base_path: str = "") -> None:
        """Guard `app`, which is also found under `base_path`, where a proxy leaves that in the address."""
        self._app, self._access, self._base = app, access, base_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        path = scope["path"]
        if self._base and (path == self._base or path.startswith(f"{self._base}/")):
            scope = {**scope, "root_path": self._base}
            path = path.removeprefix(self._base)
        answer: Response | None
        if path:
            headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
            answer = self._refusal(scope, path, headers)
        else:
            answer = RedirectResponse(f"{self._base}/", 308)
        await (answer or self._app)(scope, receive, guarded)

    def _refusal(self, scope: Scope, path: str, headers: Mapping[str, str]) -> Response | None:
        """The answer where the request goes no further; else the scope says who asks."""
        free = any(path == each or (each.endswith("/") and path.startswith(each)) for each in _FREE)
        if scope["method"] not in _SAFE and (why := foreign(headers)):
            return problem(403, why)
        if self._access.open and not is_local_name(headers.get("host", "")):
            return problem(421, "this service answers to localhost only; add a user, or set token_file")
        identity = self._access.identify(headers)
        if identity is None and not free:
            if path.startswith("/api/") or scope["method"] not in _SAFE or "text/html" not in headers.get("accept", ""):
                title = "log in, or give a token as 'Authorization: Bearer TOKEN'"
                return problem(401, title, {"www-authenticate": "Bearer"})
            query = scope["query_string"].decode("latin-1")
            target = quote(path[1:] + (f"?{query}" if query else ""), safe="")
            return RedirectResponse("../" * path[1:].count("/") + f"login?next={target}", 303)
        viewer = identity is not None and not identity.may("operate")
        if scope["method"] not in _SAFE and viewer and path not in _OPEN_TO_VIEWERS:
            return problem(403, "this needs the role operate or admin")
        scope[IDENTITY] = identity
        return None


def foreign(headers: Mapping[str, str]) -> str:
    """Why a request that changes something does not come from our own page; empty where it may.

    Every present browser says where such a request comes from; what says nothing is no browser, and has no cookie that
    somebody else could use.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return "" if site in ("same-origin", "none") else "this was sent by a page of another site"
    origin = headers.get("origin")
    if origin is None or urlsplit(origin).netloc == headers.get("host", ""):
        return ""
    return f"this was sent by a page of {origin}; a proxy must pass the header Host on"
