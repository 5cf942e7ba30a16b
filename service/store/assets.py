"""Assets: what of an event can be looked at or listened to. A ready row has its file, and every file its row."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec
from msgspec import Struct

from ovavel.service.store.database import Transaction, rows

__all__ = [
    "FILE_NAMES",
    "NOT_FINISHED",
    "Asset",
    "AssetKind",
    "MediaFile",
    "assets_of",
    "expect",
    "fail",
    "find_asset",
    "give_up",
    "path_of",
    "ready",
]

AssetKind = Literal["snapshot", "sound", "clip"]
FILE_NAMES: dict[AssetKind, str] = {"snapshot": "snapshot.webp", "sound": "sound.webp", "clip": "clip.mp4"}
NOT_FINISHED = "service died"
"""Cause of an asset that a dead service had not finished."""
_COLUMNS = "event_id, kind, state, cause, path, bytes, sha256, start_us, end_us, has_audio, codec"


class MediaFile(Struct, frozen=True, kw_only=True):
    """A file of an asset."""

    path: str
    """Relative to the store's folder."""
    bytes: int
    sha256: str
    start_us: int
    end_us: int
    has_audio: bool
    codec: str
    note: str = ""
    """What people should know of it."""


class Asset(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of one asset of an event."""

    event_id: str
    kind: AssetKind
    state: Literal["pending", "ready", "failed", "removed"]
    cause: str | None = None
    """Why it failed or was removed; of one that is ready, what people should know of it."""
    path: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    start_us: int | None = None
    end_us: int | None = None
    has_audio: bool | None = None
    codec: str | None = None


def path_of(camera: str, day: str, event_id: str, kind: AssetKind) -> str:
    """Where the file of an asset is, relative to the store's folder; `day` as 2026-11-29."""
    return f"media/{camera}/{day}/{event_id}.{FILE_NAMES[kind]}"


def expect(transaction: Transaction, event_id: str, kinds: Iterable[AssetKind]) -> None:
    """Say which assets an event is to have: pending ones."""
    for kind in kinds:
        transaction.execute(
            "INSERT INTO asset (event_id, kind, state) VALUES (?, ?, 'pending') ON CONFLICT DO NOTHING",
            (event_id, kind),
        )


def ready(transaction: Transaction, event_id: str, kind: AssetKind, file: MediaFile) -> bool:
    """Say that the file of a pending asset is in its place; whether anything still waits for it."""
    transaction.execute(
        "UPDATE asset SET state = 'ready', cause = ?, path = ?, bytes = ?, sha256 = ?, start_us = ?, end_us = ?, "
        "has_audio = ?, codec = ? WHERE event_id = ? AND kind = ? AND state = 'pending'",
        (
            *(file.note or None, file.path, file.bytes, file.sha256, file.start_us, file.end_us),
            *(int(file.has_audio), file.codec, event_id, kind),
        ),
    )
    return bool(transaction.changes())


def fail(transaction: Transaction, event_id: str, kind: AssetKind, cause: str) -> None:
    """Say why a pending asset will never be there."""
    transaction.execute(
        "UPDATE asset SET state = 'failed', cause = ? WHERE event_id = ? AND kind = ? AND state = 'pending'",
        (cause, event_id, kind),
    )


def give_up(transaction: Transaction, cause: str) -> int:
    """Fail all that is pending; returns how many that were."""
    transaction.execute("UPDATE asset SET state = 'failed', cause = ? WHERE state = 'pending'", (cause,))
    return int(transaction.changes())


def assets_of(connection: Transaction, event_id: str) -> list[Asset]:
    """All of one event."""
    query = f"SELECT {_COLUMNS} FROM asset WHERE event_id = ? ORDER BY kind"  # noqa: S608 - fixed names
    return [_asset(row) for row in rows(connection, query, (event_id,))]


def find_asset(connection: Transaction, event_id: str, kind: AssetKind) -> Asset | None:
    """One of one event; None if none of this kind was to be kept."""
    return next((each for each in assets_of(connection, event_id) if each.kind == kind), None)


def _asset(row: tuple[object, ...]) -> Asset:
    values = dict(zip(_COLUMNS.split(", "), row, strict=True))
    return msgspec.convert(values, Asset, strict=False)
