"""Users, tokens and the record of changes, for admins; and everybody's own password."""

from __future__ import annotations

import math
import time
from typing import Annotated

from msgspec import Meta, Struct
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ovavel.service.store import people
from ovavel.service.store.database import Database
from ovavel.service.store.people import Identity, Role
from ovavel.service.web.access.identify import Access
from ovavel.service.web.access.passwords import LONGEST, SHORTEST, Attempts, hashed, matches
from ovavel.service.web.answers import Problem, asking, encoded, parameters, read_json, whole

__all__ = ["AddedToken", "NewPassword", "NewToken", "NewUser", "People"]

_Password = Annotated[str, Meta(min_length=SHORTEST, max_length=LONGEST)]
_Name = Annotated[str, Meta(min_length=1, max_length=64)]


class NewUser(Struct, kw_only=True, forbid_unknown_fields=True):
    """A user to add, or whose role and password to set."""

    name: _Name
    password: _Password
    role: Role


class NewToken(Struct, kw_only=True, forbid_unknown_fields=True):
    """A token to add."""

    name: _Name
    role: Role


class AddedToken(Struct, kw_only=True):
    """A token, whose text is shown this once."""

    name: str
    role: Role
    token: str


class NewPassword(Struct, kw_only=True, forbid_unknown_fields=True):
    """One's own password, the old and the new one."""

    old: Annotated[str, Meta(max_length=LONGEST)]
    new: _Password


class People:
    """Who may ask."""

    def __init__(self, store: Database, access: Access) -> None:
        self._store, self._access = store, access
        self._attempts = Attempts()

    @property
    def routes(self) -> list[Route]:
        """All of it."""
        return [
            Route("/api/v1/me", self.me),
            Route("/api/v1/me/password", self.password, methods=["POST"]),
            Route("/api/v1/users", self.users),
            Route("/api/v1/users", self.set_user, methods=["POST"]),
            Route("/api/v1/users/{name:path}", self.remove_user, methods=["DELETE"]),
            Route("/api/v1/tokens", self.tokens),
            Route("/api/v1/tokens", self.add_token, methods=["POST"]),
            Route("/api/v1/tokens/{name:path}", self.remove_token, methods=["DELETE"]),
            Route("/api/v1/audit", self.audit),
        ]

    def me(self, request: Request) -> Response:
        """Who asks."""
        parameters(request)
        return encoded(asking(request))

    def users(self, request: Request) -> Response:
        """All users."""
        asking(request, "admin")
        parameters(request)
        return encoded(people.users(self._store.read))

    def tokens(self, request: Request) -> Response:
        """All tokens, without their text."""
        asking(request, "admin")
        parameters(request)
        return encoded(people.tokens(self._store.read))

    def audit(self, request: Request) -> Response:
        """What was changed by whom, newest first; `before` is the last id of the page before."""
        asking(request, "admin")
        given = parameters(request, "before")
        return encoded(people.read_audit(self._store.read, before=whole(given, "before", least=0)))

    async def set_user(self, request: Request) -> Response:
        """Add a user, or set the role and the password of one."""
        me = asking(request, "admin")
        new = await read_json(request, NewUser)
        return await run_in_threadpool(self._set_user, me, new)

    def _set_user(self, me: Identity, new: NewUser) -> Response:
        name, kept, now_us = _name(new.name), hashed(new.password), time.time_ns() // 1000
        with self._store.write() as transaction:
            others = [each for each in people.admins(transaction) if each != name]
            if new.role != "admin" and not others and not self._access.has_token:
                raise Problem(409, "there must be an admin: give this user that role, or add an admin first")
            people.set_user(transaction, name, new.role, kept, now_us=now_us)
            people.audit(transaction, me.name, "set user", {"user": name, "role": new.role}, now_us=now_us)
        return encoded(Identity(name=name, role=new.role), 201)

    def remove_user(self, request: Request) -> Response:
        """Remove a user, but not the last admin."""
        me, name, now_us = asking(request, "admin"), request.path_params["name"], time.time_ns() // 1000
        with self._store.write() as transaction:
            if people.admins(transaction) == [name] and not self._access.has_token:
                raise Problem(409, "the last admin stays; add another one first")
            if not people.remove_user(transaction, name):
                raise Problem(404, f"there is no user {name!r}")
            people.audit(transaction, me.name, "remove user", {"user": name}, now_us=now_us)
        return Response(status_code=204)

    async def password(self, request: Request) -> Response:
        """Change one's own password. All sessions of the user end."""
        me = asking(request)
        new = await read_json(request, NewPassword)
        return await run_in_threadpool(self._password, me, new)

    def _password(self, me: Identity, new: NewPassword) -> Response:
        if wait_s := self._attempts.wait_s(me.name):
            raise Problem(429, "too many attempts; try again later", {"retry-after": str(math.ceil(wait_s))})
        self._attempts.failed(me.name)
        if not matches(people.password_hash(self._store.read, me.name), new.old):
            raise Problem(403, "the old password is another one")
        self._attempts.succeeded(me.name)
        kept, now_us = hashed(new.new), time.time_ns() // 1000
        with self._store.write() as transaction:
            people.set_user(transaction, me.name, me.role, kept, now_us=now_us)
            people.audit(transaction, me.name, "set password", {}, now_us=now_us)
        return Response(status_code=204)

    async def add_token(self, request: Request) -> Response:
        """Add a token for a program; its text is in the answer and nowhere else."""
        me = asking(request, "admin")
        new = await read_json(request, NewToken)
        return await run_in_threadpool(self._add_token, me, new)

    def _add_token(self, me: Identity, new: NewToken) -> Response:
        name, now_us = _name(new.name), time.time_ns() // 1000
        with self._store.write() as transaction:
            if self._access.open:
                raise Problem(409, "add an admin first: with a token alone, no browser could log in any more")
            try:
                text = people.add_token(transaction, name, new.role, now_us=now_us)
            except ValueError as error:
                raise Problem(409, str(error)) from error
            people.audit(transaction, me.name, "add token", {"token": name, "role": new.role}, now_us=now_us)
        return encoded(AddedToken(name=name, role=new.role, token=text), 201)

    def remove_token(self, request: Request) -> Response:
        """Remove a token."""
        me, name, now_us = asking(request, "admin"), request.path_params["name"], time.time_ns() // 1000
        with self._store.write() as transaction:
            if not people.remove_token(transaction, name):
                raise Problem(404, f"there is no token {name!r}")
            people.audit(transaction, me.name, "remove token", {"token": name}, now_us=now_us)
        return Response(status_code=204)


def _name(name: str) -> str:
    try:
        return people.check_name(name)
    except ValueError as error:
        raise Problem(422, str(error)) from error
