"""What is kept of an event's seconds: with the right events, once, and bounded; older stores get room for it."""

from __future__ import annotations

import msgspec
import pytest
from support.service import camera_facts, news, run_facts

from ovavel.service.store import cameras, events, seconds
from ovavel.service.store import database as database_module
from ovavel.service.store.database import Database
from ovavel.service.store.schema import MIGRATIONS
from ovavel.service.store.seconds import BEFORE_US, LONGEST_US, Packed

S = 1_000_000


def packed(label: int = 0) -> bytes:
    best = ((0, 0.9), (1, 0.1))
    return msgspec.msgpack.encode(Packed(label=label, margin=0.5, missing=(), seen=best, heard=(), fused=best))


def starts(store: Database) -> list[int]:
    return [each.start_us for each in seconds.read_seconds(store.read, "e1")]


def test_seconds_are_kept_with_open_events_and_a_few_before(store: Database) -> None:
    with store.write() as transaction:
        seconds.keep_vocabulary(transaction, "1", ["dog barking", "other"])
        seconds.keep_vocabulary(transaction, "1", ["dog barking", "other"])
        start = news("start", start_us=20 * S, end_us=21 * S)
        events.record(transaction, start, event_id="e1", now_us=0, sinks=())
        before = [(n * S, packed(1)) for n in range(10, 21)]
        seconds.keep_seconds(transaction, "run-1", before, number=1)
        seconds.keep_seconds(transaction, "run-1", [(20 * S, packed()), (21 * S, packed())])
        seconds.keep_seconds(transaction, "run-1", [(22 * S, packed())], number=2)
        seconds.keep_seconds(transaction, "run-1", [(20 * S + LONGEST_US, packed()), (21 * S + LONGEST_US, packed())])
        events.record(transaction, news("end", start_us=20 * S, end_us=22 * S), event_id="", now_us=0, sinks=())
        seconds.keep_seconds(transaction, "run-1", [(23 * S, packed())])
    assert starts(store) == [n * S for n in range(20 - BEFORE_US // S, 22)] + [20 * S + LONGEST_US]
    first = seconds.read_seconds(store.read, "e1")[0]
    assert (first.label, first.margin, first.heard) == ("other", 0.5, ())
    assert [(each.label, each.value) for each in first.seen] == [("dog barking", 0.9), ("other", 0.1)]


def test_they_go_with_their_event(store: Database) -> None:
    with store.write() as transaction:
        seconds.keep_vocabulary(transaction, "1", ["dog barking", "other"])
        events.record(transaction, news("start"), event_id="e1", now_us=0, sinks=())
        seconds.keep_seconds(transaction, "run-1", [(S, packed())])
    assert len(starts(store)) == 1
    with store.write() as transaction:
        transaction.execute("DELETE FROM event")
    assert store.read.execute("SELECT count(*) FROM second").fetchone() == (0,)


def test_a_store_of_version_1_becomes_one_of_today(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("old")
    monkeypatch.setattr(database_module, "MIGRATIONS", MIGRATIONS[:1])
    monkeypatch.setattr(database_module, "VERSION", 1)
    with Database.open(folder, ballast_bytes=0) as old, old.write() as transaction:
        cameras.add_camera(transaction, camera_facts("gate"), now_us=0)
        cameras.open_run(transaction, run_facts("run-1", "gate"))
        events.record(transaction, news("start"), event_id="e1", now_us=0, sinks=())
    monkeypatch.undo()
    with Database.open(folder, ballast_bytes=0) as store:
        assert events.event_of(store.read, "e1").label == "dog barking"
        assert starts(store) == [], "nothing was kept then"
        with store.write() as transaction:
            seconds.keep_vocabulary(transaction, "1", ["dog barking", "other"])
            seconds.keep_seconds(transaction, "run-1", [(S, packed())])
        assert starts(store) == [S]
