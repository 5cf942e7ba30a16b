"""Who asks, and whether they may: a token, a session, or this machine where nobody else can reach the page."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping

from starlette.requests import cookie_parser

from ovavel.service.store.database import Database
from ovavel.service.store.people import Identity, anybody, find_session, find_token

__all__ = ["LOCAL", "Access"]

LOCAL = Identity(name="local", role="admin")
"""Whoever sits at a machine that only they can reach."""
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_LONGEST = 4096


class Access:
    """Finds out who asks."""

    def __init__(self, store: Database, token: str | None, *, loopback: bool, place: str) -> None:
        """Look in `store`.

        Args:
            store: who may is in it.
            token: that of the site file.
            loopback: only this machine can reach the page.
            place: what sets this service apart from others on the same host. Cookies know nothing of ports: under one
                name, two services would log each other's users out.
        """
        self.cookie = f"ovavel_session_{_digest(place).hex()[:8]}"
        """Name of the cookie of a session."""
        self._store, self._loopback = store, loopback
        self._digest = _digest(token) if token else None

    @property
    def open(self) -> bool:
        """Whether whoever sits here may do everything: there is no token and no user, and others cannot come."""
        return self._loopback and self._digest is None and not anybody(self._store.read)

    @property
    def has_token(self) -> bool:
        """Whether the site file names a token, with which everything may be done."""
        return self._digest is not None

    def session_of(self, headers: Mapping[str, str]) -> str:
        """The session that the request's cookies name; empty without any."""
        return cookie_parser(headers.get("cookie", "")).get(self.cookie, "")[:_LONGEST]

    def identify(self, headers: Mapping[str, str]) -> Identity | None:
        """Who sent these headers (names in lower case); None where they say nothing that is known."""
        kind, _, text = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            text = text.strip()[:_LONGEST]
            if self._digest is not None and hmac.compare_digest(_digest(text), self._digest):
                return Identity(name="token_file", role="admin")
            return find_token(self._store.read, text)
        if session := self.session_of(headers):
            found = find_session(self._store.read, session, now_us=time.time_ns() // 1000)
            if found:
                return found
        return LOCAL if self.open and is_local_name(headers.get("host", "")) else None


def is_local_name(host: str) -> bool:
    """Whether the header `Host` names this machine, which it does not in a request of another site's page."""
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    return name.lower() in _LOCAL_NAMES


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
