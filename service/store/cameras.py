"""Cameras, the runs that watch them, and the anchors that tie media time to wall time."""

from __future__ import annotations

from dataclasses import dataclass

from ovavel.service.store.accounts import advance
from ovavel.service.store.database import Transaction, rows

__all__ = [
    "Anchor",
    "CameraFacts",
    "RunFacts",
    "add_anchor",
    "add_camera",
    "close_run",
    "enable_camera",
    "open_run",
    "remove_camera",
    "switched_off",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraFacts:
    """A camera as the configuration has it."""

    id: str
    name: str
    tz: str
    """IANA time zone in which its times are shown."""
    source_redacted: str
    """Address without passwords."""
    config_sha: str
    """SHA-256 of its part of the configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """One uninterrupted watch over one camera, with one bundle."""

    id: str
    camera_id: str
    boot_id: str
    """Of the machine's present boot, whose monotonic clock the anchors use."""
    started_us: int
    bundle_sha: str
    engine: str
    """JSON: what runs the bundle."""
    vocabulary_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """One moment on three clocks."""

    media_us: int
    utc_us: int
    monotonic_us: int
    cause: str
    """Why it was taken: "start", "connected", "clock step" …"""


def add_camera(transaction: Transaction, camera: CameraFacts, *, now_us: int) -> None:
    """Add a camera, or bring what is known of it up to date. One that was removed comes back with its history."""
    if rows(transaction, "SELECT 1 FROM camera WHERE id = ? AND removed_us IS NOT NULL", (camera.id,)):
        advance(transaction, camera.id, to_us=now_us, outcome="off")
    transaction.execute(
        "INSERT INTO camera (id, name, tz, source_redacted, config_sha, created_us, accounted_us) "
        "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET name = excluded.name, tz = excluded.tz, "
        "source_redacted = excluded.source_redacted, config_sha = excluded.config_sha, removed_us = NULL",
        (camera.id, camera.name, camera.tz, camera.source_redacted, camera.config_sha, now_us, now_us),
    )


def remove_camera(transaction: Transaction, camera_id: str, *, now_us: int) -> None:
    """Mark a camera as removed from the configuration. Its events and accounts stay."""
    transaction.execute("UPDATE camera SET removed_us = ? WHERE id = ? AND removed_us IS NULL", (now_us, camera_id))


def enable_camera(transaction: Transaction, camera_id: str, on: bool) -> None:
    """Keep whether a person has switched a camera on or off."""
    transaction.execute("UPDATE camera SET enabled = ? WHERE id = ?", (int(on), camera_id))


def switched_off(connection: Transaction) -> set[str]:
    """The cameras that a person has switched off."""
    return {camera for (camera,) in rows(connection, "SELECT id FROM camera WHERE NOT enabled")}


def open_run(transaction: Transaction, run: RunFacts) -> None:
    """Begin a run. The camera must not have another one that is open."""
    still_open = transaction.execute(
        "SELECT id FROM run WHERE camera_id = ? AND ended_us IS NULL", (run.camera_id,)
    ).fetchone()
    if still_open:
        raise ValueError(f"the run {still_open[0]} of camera {run.camera_id} has not ended")
    transaction.execute(
        "INSERT INTO run (id, camera_id, boot_id, started_us, committed_us, bundle_sha, engine, vocabulary_version) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(run.id, run.camera_id, run.boot_id, run.started_us, run.started_us),
            *(run.bundle_sha, run.engine, run.vocabulary_version),
        ),
    )


def close_run(transaction: Transaction, run_id: str, *, ended_us: int, cause: str) -> None:
    """End a run whose events have all ended."""
    still_open = transaction.execute("SELECT id FROM event WHERE run_id = ? AND state = 'open'", (run_id,)).fetchone()
    if still_open:
        raise ValueError(f"the event {still_open[0]} of run {run_id} has not ended")
    transaction.execute(
        "UPDATE run SET ended_us = ?, end_cause = ? WHERE id = ? AND ended_us IS NULL", (ended_us, cause, run_id)
    )


def add_anchor(transaction: Transaction, run_id: str, anchor: Anchor) -> None:
    """Keep one moment on three clocks; the same moment twice is kept once."""
    transaction.execute(
        "INSERT INTO anchor (run_id, media_us, utc_us, monotonic_us, cause) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT DO NOTHING",
        (run_id, anchor.media_us, anchor.utc_us, anchor.monotonic_us, anchor.cause),
    )
