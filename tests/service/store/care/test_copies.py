"""Backups, and what a sound store is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import apsw
import pytest
from support.service import Everything, camera_facts, news

from ovavel.runtime.errors import InputError
from ovavel.service.failpoints import VARIABLE
from ovavel.service.store import accounts, cameras, events
from ovavel.service.store.accounts import HOUR_US
from ovavel.service.store.care import recovery
from ovavel.service.store.care.copies import backup, examine, restore
from ovavel.service.store.care.invariants import violations
from ovavel.service.store.database import FILE, Database

ROOT = Path(__file__).parents[4]
EDGES_US = (90 * 60_000_000, 3 * HOUR_US, 3 * HOUR_US + 1)


@pytest.fixture
def filled(store: Database) -> Database:
    """Three hours with an event that ended and one that is open."""
    with store.write() as transaction:
        for to_us, outcome in zip(EDGES_US, ("final", "gap", "final"), strict=True):
            cause = "offline" if outcome == "gap" else ""
            accounts.advance(transaction, "gate", to_us=to_us, outcome=outcome, cause=cause)  # type: ignore[arg-type]
        for number, kinds in ((1, ("start", "update", "end")), (2, ("start",))):
            for kind in kinds:
                events.record(
                    transaction, news(kind, number), event_id=f"e{number}", now_us=number, sinks=(Everything("mqtt"),)
                )
    return store


def event_count(folder: Path) -> int:
    return examine(folder).events


def test_a_sound_store_has_no_violations_before_and_after_recovery(filled: Database) -> None:
    assert violations(filled.read, filled.folder) == []
    with filled.write() as transaction:
        recovery.recover(transaction, now_us=5 * HOUR_US, sinks=())
        cameras.remove_camera(transaction, "gate", now_us=5 * HOUR_US)
        cameras.add_camera(transaction, camera_facts("gate"), now_us=7 * HOUR_US)
    assert violations(filled.read, filled.folder) == []


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("UPDATE account SET final_us = final_us - 1 WHERE hour_us = 0", "accounts for 3599999999 of 3600000000"),
        ("DELETE FROM account WHERE hour_us > 0", "accounts for 0 of 3600000000"),
        ("INSERT INTO account (camera_id, hour_us, off_us) VALUES ('gate', 36000000000, 5)", "was not watched"),
        ("DELETE FROM event_log WHERE seq = 2", "1 are missing"),
        ("UPDATE event_log SET kind = 'update' WHERE kind = 'end'", "1 starts and 0 ends"),
        ("UPDATE event SET revision = 9 WHERE id = 'e2'", "is at revision 9"),
        ("UPDATE run SET ended_us = 9, end_cause = 'x'", "its event e2 has not"),
        ("DELETE FROM event WHERE id = 'e1'", "has a log, but no row"),
        (
            "INSERT INTO asset (event_id, kind, state, path, bytes) VALUES ('e1', 'clip', 'ready', 'a/b.mp4', 7)",
            "clip of event e1 is missing",
        ),
        ("INSERT INTO asset (event_id, kind, state) VALUES ('none', 'clip', 'pending')", "does not exist"),
    ],
)
def test_each_violation_is_found(filled: Database, damage: str, found: str) -> None:
    connection = apsw.Connection(str(filled.folder / FILE))
    connection.execute(damage)
    connection.close()
    assert any(found in each for each in violations(filled.read, filled.folder))
    assert any(found in each for each in examine(filled.folder).violations)


def test_a_file_of_another_size_is_found(filled: Database) -> None:
    (filled.folder / "a.webp").write_bytes(b"1234")
    with filled.write() as transaction:
        transaction.execute(
            "INSERT INTO asset (event_id, kind, state, path, bytes) VALUES ('e1', 'snapshot', 'ready', 'a.webp', 4)"
        )
    assert violations(filled.read, filled.folder) == []
    (filled.folder / "a.webp").write_bytes(b"123")
    assert any("3 bytes instead of 4" in each for each in violations(filled.read, filled.folder))


def test_a_backup_is_made_beside_the_service_and_comes_back(filled: Database, tmp_path: Path) -> None:
    copy = tmp_path / "copy.sqlite3"
    assert backup(filled.folder, copy) == 2
    with pytest.raises(InputError, match="exists"):
        backup(filled.folder, copy)
    with filled.write() as transaction:
        events.record(transaction, news("start", 3), event_id="e3", now_us=3, sinks=())
    with pytest.raises(InputError, match="in use by another"):
        restore(filled.folder, copy)
    filled.close()
    aside = restore(filled.folder, copy)
    assert aside
    assert event_count(filled.folder) == 2
    with Database.open(filled.folder, ballast_bytes=0) as again:
        assert [each.body.id for each in events.log_after(again.read, 0)] == ["e1", "e1", "e1", "e2"]
    assert len(apsw.Connection(str(aside)).execute("SELECT id FROM event").fetchall()) == 3
    assert restore(tmp_path / "elsewhere", copy) is None
    assert event_count(tmp_path / "elsewhere") == 2


def test_what_is_no_sound_store_is_not_restored(filled: Database, tmp_path: Path) -> None:
    copy = tmp_path / "copy.sqlite3"
    backup(filled.folder, copy)
    filled.close()
    connection = apsw.Connection(str(copy))
    connection.execute("DELETE FROM event_log WHERE seq = 1")
    connection.close()
    (tmp_path / "text").write_text("no store, but longer than the header of one " * 100)
    apsw.Connection(str(tmp_path / "other")).execute("CREATE TABLE x (y)")
    for path in (copy, tmp_path / "text", tmp_path / "other", tmp_path / "none", tmp_path):
        with pytest.raises(Exception, match=r"damaged|no store|cannot use"):
            restore(filled.folder, path)
    assert event_count(filled.folder) == 2


def test_kill_9_in_a_restore_leaves_a_store_and_all_that_was_replaced(filled: Database, tmp_path: Path) -> None:
    copy = tmp_path / "copy.sqlite3"
    backup(filled.folder, copy)
    filled.close()
    program = "import sys; from pathlib import Path; from ovavel.service.store.care.copies import restore; "
    run = subprocess.run(
        [sys.executable, "-c", program + "restore(Path(sys.argv[1]), Path(sys.argv[2]))", filled.folder, copy],
        env={**os.environ, VARIABLE: "store.replaced-kept"},
        cwd=ROOT,
        timeout=60,
    )
    assert run.returncode == -signal.SIGKILL
    assert event_count(filled.folder) == 2
    restore(filled.folder, copy)
    assert event_count(filled.folder) == 2
