"""What stands before every handler: who asks, and whether the request comes from our own page.

Pure ASGI, so that streams pass through.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import quote

import apsw
from starlette.responses import RedirectResponse, Response

from ovavel.runtime.errors import OvavelError
from ovavel.runtime.reporting.redaction import redacted
from ovavel.service.web.access.identify import Access, is_local_name
from ovavel.service.web.answers import IDENTITY, STILL, problem

__all__ = ["Guard"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_FREE = ("/login", "/static/")
"""Paths that nobody has to log in for."""
_OPEN_TO_VIEWERS = frozenset({"/login", "/logout", "/api/v1/me/password", "/api/v1/search"})
"""What those may send who may only look; a search changes nothing."""
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
_PRIVATE, _ASSETS = (b"cache-control", b"no-store"), (b"cache-control", b"no-cache")
"""What is for those who may see it is kept nowhere; the page's own files are asked for again, so that they fit it."""
_FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
"""What proxies add."""


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
                own = list(message.get("headers", ()))
                kept = _ASSETS if path.startswith("/static/") else _PRIVATE
                more = () if any(name.lower() == b"cache-control" for name, _ in own) else (kept,)
                message["headers"] = [*own, *_HEADERS, *more]
            await send(message)

        path = scope["path"]
        if self._base and (path == self._base or path.startswith(f"{self._base}/")):
            scope = {**scope, "root_path": self._base}
            path = path.removeprefix(self._base)
        answer: Response | None
        if path:
            headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
            try:
                answer = self._refusal(scope, path, headers)
            except (OvavelError, apsw.Error) as error:
                answer = problem(503, f"the store cannot be read: {redacted(str(error))}")
        else:
            answer = RedirectResponse(f"{self._base}/", 308)
        await (answer or self._app)(scope, receive, guarded)

    def _refusal(self, scope: Scope, path: str, headers: Mapping[str, str]) -> Response | None:
        """The answer where the request goes no further; else the scope says who asks."""
        if path == "/healthz":  # of the process alone
            return None
        free = any(path == each or (each.endswith("/") and path.startswith(each)) for each in _FREE)
        if scope["method"] not in _SAFE and (why := foreign(headers)):
            return problem(403, why)
        if self._access.open and (why := _from_elsewhere(headers)):
            return problem(421, f"{why}; add a user, or set token_file")
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
        scope[STILL] = lambda: self._access.identify(headers) == identity
        return None


def _from_elsewhere(headers: Mapping[str, str]) -> str:
    """Why a request does not come from this machine, where nobody has to log in; empty where it does."""
    if not is_local_name(headers.get("host", "")):
        return "this service answers to localhost only"
    if any(name in headers for name in _FORWARDED):
        return "a proxy passes requests of others on, and the site file names none in proxies"
    return ""


def foreign(headers: Mapping[str, str]) -> str:
    """Why a request that changes something does not come from our own page; empty where it may.

    Every present browser says where such a request comes from; what says nothing is no browser, and has no cookie that
    somebody else could use.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return "" if site in ("same-origin", "none") else "this was sent by a page of another site"
    origin = headers.get("origin")
    host = headers.get("host", "")
    if origin is None or (host and origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")):
        return ""
    return f"this was sent by a page of {origin}; a proxy must pass the header Host on"
