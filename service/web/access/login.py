"""Logging in and out with a browser."""

from __future__ import annotations

import math
import re
import time
from urllib.parse import parse_qs

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from ovavel.service.store.database import Database
from ovavel.service.store.people import audit, close_session, open_session, password_hash
from ovavel.service.web.access.identify import Access
from ovavel.service.web.access.passwords import Attempts, matches
from ovavel.service.web.answers import IDENTITY, Problem, base_of, body
from ovavel.service.web.templates import Templates

__all__ = ["Login"]

_NEXT = re.compile(r"[a-z]*(/[A-Za-z0-9-]+)*(\?[A-Za-z0-9=&%+.,:_-]*)?", re.ASCII)
_MONTH_S = 30 * 86_400
_AT_A_TIME = 4
"""Those who wait for their log-in leave the threads to others."""


class Login:
    """The page, and what it sends."""

    def __init__(self, store: Database, access: Access, templates: Templates, *, base_path: str) -> None:
        """Sessions go to `store`; their cookie is for `base_path` and what is under it."""
        self._store, self._access, self._templates, self._path = store, access, templates, base_path or "/"
        self._attempts = Attempts()
        self._turns = anyio.CapacityLimiter(_AT_A_TIME)

    @property
    def routes(self) -> list[Route]:
        """All of it."""
        return [
            Route("/login", self.page),
            Route("/login", self.login, methods=["POST"]),
            Route("/logout", self.logout, methods=["POST"]),
        ]

    def page(self, request: Request) -> Response:
        """The form."""
        if request.scope[IDENTITY] is not None:
            return RedirectResponse(base_of(request) + _next(request.query_params.get("next", "")), 303)
        return self._form(request, next=_next(request.query_params.get("next", "")))

    async def login(self, request: Request) -> Response:
        """Take name and password."""
        text = (await body(request)).decode("utf-8", "replace")
        try:
            fields = parse_qs(text, keep_blank_values=True, max_num_fields=8)
        except ValueError as error:
            raise Problem(400, f"that is no form of this page: {error}") from error
        name, password, target = (fields.get(each, [""])[0] for each in ("name", "password", "next"))
        address = request.client.host if request.client else ""
        given = (request, name.strip(), password, _next(target), address)
        return await anyio.to_thread.run_sync(self._login, *given, limiter=self._turns)

    def _login(self, request: Request, name: str, password: str, target: str, address: str) -> Response:
        if wait_s := self._attempts.wait_s(address):
            answer = self._form(request, 429, next=target, name=name, error="Too many attempts. Try again later.")
            answer.headers["retry-after"] = str(math.ceil(wait_s))
            return answer
        now_us = time.time_ns() // 1000
        self._attempts.failed(address)  # before the check, so that many at once are counted, too
        if not matches(password_hash(self._store.read, name), password):
            with self._store.write() as transaction:
                audit(transaction, address, "login failed", {"user": name[:64]}, now_us=now_us)
            return self._form(request, 401, next=target, name=name, error="Wrong name or password.")
        self._attempts.succeeded(address)
        with self._store.write() as transaction:
            if password_hash(transaction, name) is None:
                raise Problem(401, "this user was removed just now")
            if before := self._access.session_of(request.headers):
                close_session(transaction, before)
            session = open_session(transaction, name, now_us=now_us)
            audit(transaction, name, "login", {"address": address}, now_us=now_us)
        answer = RedirectResponse(base_of(request) + target, 303)
        answer.set_cookie(
            self._access.cookie,
            session,
            max_age=_MONTH_S,
            path=self._path,
            secure=request.scope["scheme"] == "https",
            httponly=True,
            samesite="strict",
        )
        return answer

    def logout(self, request: Request) -> Response:
        """End the session."""
        if session := self._access.session_of(request.headers):
            with self._store.write() as transaction:
                close_session(transaction, session)
        answer = RedirectResponse(base_of(request) + "login", 303)
        answer.delete_cookie(self._access.cookie, path=self._path, httponly=True, samesite="strict")
        return answer

    def _form(self, request: Request, status: int = 200, **content: str) -> Response:
        return self._templates.answer(request, "login.html", title="Log in", status=status, **content)


def _next(text: str) -> str:
    """Where to go after logging in: a page of ours, or the first one."""
    return text if _NEXT.fullmatch(text) and "//" not in text else ""
