"""Who may ask: this machine, or whoever has the token. Pure ASGI, so that streams pass through."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import SimpleCookie
from typing import Any

__all__ = ["COOKIE", "Guard"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

COOKIE = "ovavel_token"
_LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})
_OPEN = frozenset({"/healthz"})
_HEADERS = (
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Guard:
    """Adds security headers, and refuses who may not ask."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], token: str | None) -> None:
        """With a `token` everyone needs it; without one, requests must name this machine as their host.

        The latter keeps a page of another site from asking through the browser of somebody who sits here (DNS
        rebinding).
        """
        self._app = app
        self._digest = hashlib.sha256(token.encode()).digest() if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        if refusal is None:
            await self._app(scope, receive, guarded)
            return
        status, text = refusal
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"www-authenticate", b"Bearer")]
        await guarded({"type": "http.response.start", "status": status, "headers": headers})
        await guarded({"type": "http.response.body", "body": text.encode()})

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if self._digest is None:
            host = headers.get("host", "")
            name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
            return None if name.lower() in _LOCAL else (421, "this service answers to localhost only; set token_file")
        if scope["path"] in _OPEN:
            return None
        given = headers.get("authorization", "").removeprefix("Bearer ")
        if not given:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
            given = cookie.value if cookie else ""
        same = hmac.compare_digest(hashlib.sha256(given.encode()).digest(), self._digest)
        return None if same else (401, "give the token of this service as 'Authorization: Bearer TOKEN'")
