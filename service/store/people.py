"""Who may ask: users with passwords, tokens for programs, sessions of browsers, and the record of what was changed.

Passwords come here hashed. Of tokens and sessions the store has SHA-256 alone: whoever reads it cannot use them.
"""

from __future__ import annotations

import hashlib
import secrets
import unicodedata
from collections.abc import Mapping
from typing import Any, Literal, get_args

import msgspec
from msgspec import Struct

from ovavel.runtime.reporting.text import INVISIBLE
from ovavel.service.store.database import Transaction, one_row, rows

__all__ = [
    "ROLES",
    "AuditEntry",
    "Identity",
    "Role",
    "TokenFacts",
    "UserFacts",
    "add_token",
    "admins",
    "anybody",
    "audit",
    "check_name",
    "close_session",
    "find_session",
    "find_token",
    "open_session",
    "password_hash",
    "read_audit",
    "remove_token",
    "remove_user",
    "set_user",
    "tokens",
    "users",
]

Role = Literal["view", "operate", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
"""Each may do what those before it may: look; review events; change the site and who may do what."""
SESSION_US = 30 * 86_400_000_000
"""After this long a browser has to log in again."""
_LONGEST_NAME = 64


class Identity(Struct, frozen=True, kw_only=True):
    """Who asks."""

    name: str
    role: Role

    def may(self, role: Role) -> bool:
        """Whether this one may do what `role` may."""
        return ROLES.index(self.role) >= ROLES.index(role)


class UserFacts(Struct, frozen=True, kw_only=True):
    """A user, without the password."""

    name: str
    role: Role
    created_us: int


class TokenFacts(Struct, frozen=True, kw_only=True):
    """A token, without its text."""

    name: str
    role: Role
    created_us: int


class AuditEntry(Struct, frozen=True, kw_only=True):
    """One change that somebody made."""

    id: int
    utc_us: int
    who: str
    what: str
    detail: dict[str, Any]


def check_name(name: str) -> str:
    """A name as it is kept.

    Raises:
        ValueError: it is empty, of dots alone, too long, or has characters that nobody sees.
    """
    name = unicodedata.normalize("NFC", name.strip())
    if not name.strip(".") or len(name) > _LONGEST_NAME or INVISIBLE.search(name):
        raise ValueError(f"a name has 1 to {_LONGEST_NAME} visible characters")
    return name


def anybody(connection: Transaction) -> bool:
    """Whether there is any user or token, so that whoever asks has to say who they are."""
    (found,) = one_row(connection, "SELECT EXISTS (SELECT 1 FROM user) OR EXISTS (SELECT 1 FROM token)")
    return bool(found)


def set_user(transaction: Transaction, name: str, role: Role, hashed: str, *, now_us: int) -> None:
    """Add a user, or change the role and the password of one, whose sessions end."""
    transaction.execute(
        "INSERT INTO user (name, role, password_hash, created_us) VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE "
        "SET role = excluded.role, password_hash = excluded.password_hash",
        (name, role, hashed, now_us),
    )
    transaction.execute("DELETE FROM session WHERE user = ?", (name,))


def remove_user(transaction: Transaction, name: str) -> bool:
    """Remove a user, whose sessions end; whether there was one."""
    transaction.execute("DELETE FROM user WHERE name = ?", (name,))
    return bool(transaction.changes())


def users(connection: Transaction) -> list[UserFacts]:
    """All of them, by name."""
    found = rows(connection, "SELECT name, role, created_us FROM user ORDER BY name")
    return [UserFacts(name=name, role=role, created_us=created_us) for name, role, created_us in found]


def admins(connection: Transaction) -> list[str]:
    """Names of those who may change everything."""
    return [each.name for each in users(connection) if each.role == "admin"]


def password_hash(connection: Transaction, name: str) -> str | None:
    """Of a user; None if there is none."""
    found = rows(connection, "SELECT password_hash FROM user WHERE name = ?", (name,))
    return str(found[0][0]) if found else None


def add_token(transaction: Transaction, name: str, role: Role, *, now_us: int) -> str:
    """Add a token and return its text, which is kept nowhere.

    Raises:
        ValueError: there is one of this name.
    """
    if rows(transaction, "SELECT 1 FROM token WHERE name = ?", (name,)):
        raise ValueError(f"there is a token {name!r} already; remove it, or choose another name")
    text = secrets.token_urlsafe(32)
    transaction.execute(
        "INSERT INTO token (sha256, name, role, created_us) VALUES (?, ?, ?, ?)", (_digest(text), name, role, now_us)
    )
    return text


def remove_token(transaction: Transaction, name: str) -> bool:
    """Remove a token; whether there was one."""
    transaction.execute("DELETE FROM token WHERE name = ?", (name,))
    return bool(transaction.changes())


def tokens(connection: Transaction) -> list[TokenFacts]:
    """All of them, by name."""
    found = rows(connection, "SELECT name, role, created_us FROM token ORDER BY name")
    return [TokenFacts(name=name, role=role, created_us=created_us) for name, role, created_us in found]


def find_token(connection: Transaction, text: str) -> Identity | None:
    """Whose token this is."""
    found = rows(connection, "SELECT name, role FROM token WHERE sha256 = ?", (_digest(text),))
    return Identity(name=f"token {found[0][0]}", role=found[0][1]) if found else None


def open_session(transaction: Transaction, user: str, *, now_us: int) -> str:
    """Begin a session and return its text; sessions that are over are removed."""
    transaction.execute("DELETE FROM session WHERE expires_us <= ?", (now_us,))
    text = secrets.token_urlsafe(32)
    transaction.execute(
        "INSERT INTO session (sha256, user, created_us, expires_us) VALUES (?, ?, ?, ?)",
        (_digest(text), user, now_us, now_us + SESSION_US),
    )
    return text


def find_session(connection: Transaction, text: str, *, now_us: int) -> Identity | None:
    """Whose session this is; None if it is over or never was."""
    query = "SELECT name, role FROM session JOIN user ON user = name WHERE sha256 = ? AND expires_us > ?"
    found = rows(connection, query, (_digest(text), now_us))
    return Identity(name=found[0][0], role=found[0][1]) if found else None


def close_session(transaction: Transaction, text: str) -> None:
    """End a session."""
    transaction.execute("DELETE FROM session WHERE sha256 = ?", (_digest(text),))


def audit(transaction: Transaction, who: str, what: str, detail: Mapping[str, object], *, now_us: int) -> None:
    """Record that `who` did `what`."""
    transaction.execute(
        "INSERT INTO audit (utc_us, who, what, detail) VALUES (?, ?, ?, ?)",
        (now_us, who, what, msgspec.json.encode(detail).decode()),
    )


def read_audit(connection: Transaction, *, before: int | None = None, limit: int = 100) -> list[AuditEntry]:
    """The newest entries, those with an id below `before`, newest first."""
    found = rows(
        connection,
        "SELECT id, utc_us, who, what, detail FROM audit WHERE ? IS NULL OR id < ? ORDER BY id DESC LIMIT ?",
        (before, before, limit),
    )
    return [
        AuditEntry(id=number, utc_us=utc_us, who=who, what=what, detail=msgspec.json.decode(detail))
        for number, utc_us, who, what, detail in found
    ]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
