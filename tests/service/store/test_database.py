"""The file: one writer, kill -9 at each failpoint, a full disk, other versions, damage."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import apsw
import pytest
from support.mounts import mount_tmpfs, with_own_mounts
from support.service import Everything, camera_facts, news, run_facts

from ovavel.runtime.errors import InputError, OutputError
from ovavel.service.failpoints import FAILPOINTS, VARIABLE
from ovavel.service.store import accounts, cameras, events, outbox
from ovavel.service.store import database as database_module
from ovavel.service.store.care import recovery
from ovavel.service.store.database import BALLAST, FILE, Database, copy_to, rows
from ovavel.service.store.incidents import report_moment
from ovavel.service.store.schema import VERSION

ROOT = Path(__file__).parents[3]
LOGGED = "SELECT 1 FROM event_log"
ELSEWHERE = (
    *("store.migration-copied", "store.replaced-kept", "delivery.sent", "delivery.marked"),
    *(each for each in FAILPOINTS if each.startswith("asset.")),
)
"""Failpoints that have tests of their own."""

WRITER = """
import sys
from collections.abc import Iterator
from pathlib import Path
sys.path.insert(0, "tests")
from support.service import Everything, camera_facts, news, run_facts
from ovavel.service.store import accounts, cameras, events
from ovavel.service.store.database import Database, copy_to
folder = Path(sys.argv[1])
with Database.open(folder, ballast_bytes=0) as store:
    with store.write() as transaction:
        cameras.add_camera(transaction, camera_facts("gate"), now_us=0)
        cameras.open_run(transaction, run_facts("run-1", "gate"))
    for number in range(1, 6):
        with store.write() as transaction:
            accounts.advance(transaction, "gate", to_us=number * 1_000_000, outcome="final", windows=1)
            transaction.execute("UPDATE run SET committed_us = ?", (number * 1_000_000,))
            events.record(transaction, news("start", number, start_us=0, end_us=number * 1_000_000),
                          event_id=f"e{number}", now_us=number, sinks=(Everything("mqtt"),))
        print(number, flush=True)
    copy_to(store.read, folder / "backup.sqlite3")
    store.free_ballast()
"""


@pytest.mark.parametrize("failpoint", [each for each in FAILPOINTS if each not in ELSEWHERE])
@pytest.mark.parametrize("count", [1, 3])
def test_kill_9_at_a_failpoint_loses_nothing_that_was_reported(tmp_path: Path, failpoint: str, count: int) -> None:
    environment = {**os.environ, VARIABLE: f"{failpoint}:{count}"}
    run = subprocess.run(
        [sys.executable, "-c", WRITER, str(tmp_path)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    reached_once = failpoint in ("store.backup-written", "store.before-ballast-freed")
    assert run.returncode == (0 if reached_once and count > 1 else -signal.SIGKILL), run.stderr
    reported = [int(line) for line in run.stdout.split()]
    with Database.open(tmp_path, ballast_bytes=0) as store:
        log = events.log_after(store.read, 0)
        assert [each.seq for each in log] == list(range(1, len(log) + 1))
        assert {each.body.id for each in log} >= {f"e{number}" for number in reported}
        assert len(log) - len(reported) in (0, 1), "at most the one whose report was cut off"
        assert outbox.backlog(store.read, "mqtt").pending == len(log), "an event and its delivery are one"
        with store.write() as transaction:
            found = recovery.recover(transaction, now_us=10_000_000, sinks=(Everything("mqtt"),))
        assert found.events == len(log)
        with store.write() as transaction:
            again = recovery.recover(transaction, now_us=10_000_000, sinks=(Everything("mqtt"),))
        assert (again.runs, again.events) == (0, 0)
        assert not store.read.execute("SELECT 1 FROM event WHERE state = 'open'").fetchall()
        if log:
            (account,) = accounts.read_accounts(store.read, "gate", from_us=0, to_us=1)
            assert account.total_us == 10_000_000
            assert account.final == len(log)
            assert account.gap_us == {recovery.DOWN: 10_000_000 - len(log) * 1_000_000}
    assert not list(tmp_path.glob(".*.part")) or failpoint == "store.backup-written"


def test_whatever_brings_news_is_noticed_and_nothing_else_is(store: Database) -> None:
    grown: list[int] = []
    store.grown = lambda: grown.append(events.log_after(store.read, 0)[-1].seq if rows(store.read, LOGGED) else 0)
    with store.write() as transaction:
        accounts.advance(transaction, "gate", to_us=1_000_000, outcome="final", windows=1)
    assert not grown
    with store.write() as transaction:
        events.record(transaction, news("start"), event_id="e1", now_us=0, sinks=())
    with store.write() as transaction:
        events.revise(transaction, "e1", "pin", now_us=0, pinned=True)
    with pytest.raises(ValueError, match="started already"), store.write() as transaction:
        events.record(transaction, news("start"), event_id="e2", now_us=0, sinks=())
    with store.write() as transaction:
        recovery.recover(transaction, now_us=2_000_000, sinks=())
    with store.write() as transaction:
        report_moment(transaction, "service started", now_us=0, sinks=(Everything("mqtt"),))
    assert grown == [1, 2, 3, 3], "each once, when it can be read"


def test_a_second_service_is_refused(store: Database) -> None:
    with pytest.raises(InputError, match="in use by another"):
        Database.open(store.folder)


def test_a_newer_store_is_refused_and_not_touched(tmp_path: Path) -> None:
    Database.open(tmp_path, ballast_bytes=0).close()
    connection = apsw.Connection(str(tmp_path / FILE))
    connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    with pytest.raises(InputError, match="newer ovavel"):
        Database.open(tmp_path)
    connection = apsw.Connection(str(tmp_path / FILE))
    assert connection.execute("PRAGMA user_version").fetchone() == (VERSION + 1,)


def test_an_older_store_is_copied_first_and_keeps_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Database.open(tmp_path, ballast_bytes=0) as store, store.write() as transaction:
        cameras.add_camera(transaction, camera_facts("gate"), now_us=0)
    monkeypatch.setattr(
        database_module, "MIGRATIONS", (*database_module.MIGRATIONS, "CREATE TABLE more (x INTEGER) STRICT")
    )
    monkeypatch.setattr(database_module, "VERSION", VERSION + 1)
    with Database.open(tmp_path, ballast_bytes=0) as store:
        assert store.read.execute("SELECT id FROM camera").fetchall() == [("gate",)]
        assert store.read.execute("PRAGMA user_version").fetchone() == (VERSION + 1,)
    copy = apsw.Connection(str(tmp_path / f"{FILE}.version-{VERSION}"))
    assert copy.execute("SELECT id FROM camera").fetchall() == [("gate",)]
    assert copy.execute("PRAGMA user_version").fetchone() == (VERSION,)


def test_a_migration_that_would_lose_rows_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Database.open(tmp_path, ballast_bytes=0) as store, store.write() as transaction:
        cameras.add_camera(transaction, camera_facts("gate"), now_us=0)
    monkeypatch.setattr(database_module, "MIGRATIONS", (*database_module.MIGRATIONS, "DELETE FROM camera"))
    monkeypatch.setattr(database_module, "VERSION", VERSION + 1)
    with pytest.raises(InputError, match="camera"):
        Database.open(tmp_path)
    monkeypatch.undo()
    with Database.open(tmp_path, ballast_bytes=0) as store:
        assert store.read.execute("SELECT id FROM camera").fetchall() == [("gate",)]


@pytest.mark.parametrize("content", [b"not a database, but long enough to look like one" * 40, b"x"])
def test_what_is_no_store_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(InputError, match=r"damaged|not a store"):
        Database.open(tmp_path)
    assert (tmp_path / FILE).read_bytes() == content


def test_another_program_s_database_is_refused(tmp_path: Path) -> None:
    connection = apsw.Connection(str(tmp_path / FILE))
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(InputError, match="not a store of ovavel"):
        Database.open(tmp_path)


@with_own_mounts
def test_a_full_disk_costs_the_ballast_first_and_then_is_an_error_without_loss(tmp_path: Path) -> None:
    small_disk = tmp_path / "disk"
    small_disk.mkdir()
    mount_tmpfs(small_disk, 8)
    with Database.open(small_disk, ballast_bytes=2 << 20) as store:
        with store.write() as transaction:
            cameras.add_camera(transaction, camera_facts("gate"), now_us=0)
            cameras.open_run(transaction, run_facts("run-1", "gate"))
        assert (small_disk / BALLAST).exists()
        written = 0
        ballast_gone_at = None
        while True:
            news_of_it = news("start", written + 1, label="x" * 20_000)
            try:
                with store.write() as transaction:
                    events.record(transaction, news_of_it, event_id=f"e{written}", now_us=1, sinks=(Everything("a"),))
            except OutputError as error:
                refusal = str(error)
                break
            written += 1
            if ballast_gone_at is None and not (small_disk / BALLAST).exists():
                ballast_gone_at = written
        assert "the disk is full" in refusal
        assert ballast_gone_at is not None
        assert ballast_gone_at < written, "the ballast's space was used"
        assert len(events.log_after(store.read, 0, limit=10_000)) == written
        assert outbox.backlog(store.read, "a").pending == written
        # Space comes back: so do writing and the ballast.
        mount_tmpfs(small_disk, 64, again=True)
        with store.write() as transaction:
            events.record(transaction, news("start", 10_000), event_id="last", now_us=1, sinks=(Everything("a"),))
        assert store.hold_ballast()
    with Database.open(small_disk, ballast_bytes=0) as store:
        assert len(events.log_after(store.read, 0, limit=10_000)) == written + 1


def test_a_backup_is_whole_while_others_write(store: Database, tmp_path: Path) -> None:
    with store.write() as transaction:
        events.record(transaction, news("start"), event_id="e1", now_us=5, sinks=())
    copy_to(store.read, tmp_path / "backup.sqlite3")
    copy = apsw.Connection(str(tmp_path / "backup.sqlite3"))
    assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert len(events.log_after(copy, 0)) == 1
    with pytest.raises(OutputError):
        copy_to(store.read, tmp_path / "no" / "such" / "folder.sqlite3")


def test_every_failpoint_is_in_the_code_and_in_the_list() -> None:
    import re

    named = set()
    for path in (ROOT / "service").rglob("*.py"):
        named |= set(re.findall(r'\breach\("([^"]+)"\)', path.read_text(encoding="utf-8")))
    assert named == set(FAILPOINTS)


@pytest.mark.parametrize("time", ["first", "second"])
def test_a_store_is_opened_with_all_that_keeps_it_whole(tmp_path: Path, time: str) -> None:
    if time == "second":
        Database.open(tmp_path, ballast_bytes=0).close()
    with Database.open(tmp_path, ballast_bytes=0) as store, store.write() as transaction:
        names = ("journal_mode", "synchronous", "foreign_keys", "trusted_schema", "cell_size_check", "cache_spill")
        found = {name: rows(transaction, f"PRAGMA {name}")[0][0] for name in names}
        assert found == {
            "journal_mode": "wal",
            "synchronous": 2,
            "foreign_keys": 1,
            "trusted_schema": 0,
            "cell_size_check": 1,
            "cache_spill": 0,
        }
        assert [rows(store.read, f"PRAGMA {name}")[0][0] for name in ("query_only", "trusted_schema")] == [1, 0]
