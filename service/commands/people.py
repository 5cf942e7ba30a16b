"""Users and tokens from the command line, for a service that is not running."""

from __future__ import annotations

import getpass
import sys
import time
from pathlib import Path

from ovavel.runtime.errors import InputError, UsageError
from ovavel.runtime.reporting.text import quoted
from ovavel.service.config.site import Site
from ovavel.service.store import people
from ovavel.service.store.database import Database
from ovavel.service.store.people import Role
from ovavel.service.web.access.passwords import check_password, hashed

__all__ = ["add_token", "add_user", "remove_token", "remove_user"]

_WHO = "command line"


def add_user(site: Site, name: str, role: Role) -> None:
    """Add a user, or set the role and the password of one; the password is asked for, or the first line of input.

    Raises:
        UsageError: the name or the password cannot be used.
        InputError: the store is in use.
    """
    name, password = _checked(name), _password()
    try:
        check_password(password)
    except ValueError as error:
        raise UsageError(str(error)) from error
    kept, now_us = hashed(password), _now_us()
    with Database.open(Path(site.data)) as store, store.write() as transaction:
        people.set_user(transaction, name, role, kept, now_us=now_us)
        people.audit(transaction, _WHO, "set user", {"user": name, "role": role}, now_us=now_us)
    print(f"user {quoted(name)} has the role {role}")


def add_token(site: Site, name: str, role: Role) -> None:
    """Add a token and print it, this once.

    Raises:
        UsageError: the name cannot be used.
        InputError: there is one already, or the store is in use.
    """
    name = _checked(name)
    with Database.open(Path(site.data)) as store, store.write() as transaction:
        try:
            text = people.add_token(transaction, name, role, now_us=_now_us())
        except ValueError as error:
            raise InputError(str(error)) from error
        people.audit(transaction, _WHO, "add token", {"token": name, "role": role}, now_us=_now_us())
    print(text)


def remove_user(site: Site, name: str) -> None:
    """Remove a user. Raises InputError where there is none."""
    with Database.open(Path(site.data)) as store, store.write() as transaction:
        if not people.remove_user(transaction, name):
            raise InputError(f"there is no user {quoted(name)}")
        people.audit(transaction, _WHO, "remove user", {"user": name}, now_us=_now_us())


def remove_token(site: Site, name: str) -> None:
    """Remove a token. Raises InputError where there is none."""
    with Database.open(Path(site.data)) as store, store.write() as transaction:
        if not people.remove_token(transaction, name):
            raise InputError(f"there is no token {quoted(name)}")
        people.audit(transaction, _WHO, "remove token", {"token": name}, now_us=_now_us())


def _checked(name: str) -> str:
    try:
        return people.check_name(name)
    except ValueError as error:
        raise UsageError(f"{quoted(name)}: {error}") from error


def _password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass("password: ")
    if getpass.getpass("again: ") != password:
        raise UsageError("these were two different passwords")
    return password


def _now_us() -> int:
    return time.time_ns() // 1000
