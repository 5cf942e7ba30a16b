"""What is kept of events when the disk is slower than they come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.service import check_assets, news, site, until

from ovavel.service.config.site import Camera, Keep
from ovavel.service.evidence import keeper as keeping
from ovavel.service.evidence.keeper import TOO_SLOW, Keeper
from ovavel.service.store import assets, events
from ovavel.service.store.database import Database, Transaction, rows


def test_pictures_that_a_disk_is_too_slow_for_are_named_and_do_not_fill_the_memory(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "MOST_WAITING", 2)
    keep = Keep(min_free_gb=0)
    keeper = Keeper(store, site(store.folder, Camera(id="gate", source="x"), keep=keep), lambda *_: False)
    with store.write() as transaction:
        for number in range(1, 5):
            events.record(transaction, news("start", number), event_id=f"e{number}", now_us=0, sinks=())
            assets.expect(transaction, f"e{number}", ("snapshot",))
    for number in range(1, 5):
        path = assets.path_of("gate", "2026-11-29", f"e{number}", "snapshot")
        keeper.picture(f"e{number}", "snapshot", b"picture", path, (0, 1))
    keeper.start()
    keeper.close(60)
    found = rows(store.read, "SELECT event_id, state, cause FROM asset ORDER BY event_id")
    assert found == [
        *(("e1", "ready", None), ("e2", "ready", None)),
        *(("e3", "failed", TOO_SLOW), ("e4", "failed", TOO_SLOW)),
    ]
    check_assets(store)


def test_an_unforeseen_fault_costs_one_picture_and_is_named(store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = Keeper(
        store, site(store.folder, Camera(id="gate", source="x"), keep=Keep(min_free_gb=0)), lambda *_: False
    )
    write, paths = keeping.files.write, {}
    with store.write() as transaction:
        for event in ("e1", "e2"):
            events.record(transaction, news("start", int(event[1])), event_id=event, now_us=0, sinks=())
            assets.expect(transaction, event, ("snapshot",))
            paths[event] = assets.path_of("gate", "2026-11-29", event, "snapshot")

    def fails_once(path: Path, data: bytes) -> str:
        if path.name == Path(paths["e1"]).name:
            raise ZeroDivisionError
        return write(path, data)

    monkeypatch.setattr(keeping.files, "write", fails_once)
    for event, path in paths.items():
        keeper.picture(event, "snapshot", b"picture", path, (0, 1))
    keeper.start()
    keeper.close(60)
    found = rows(store.read, "SELECT event_id, state, cause FROM asset ORDER BY event_id")
    assert found == [("e1", "failed", "unexpected error: ZeroDivisionError()"), ("e2", "ready", None)]
    check_assets(store)


def test_a_row_that_fails_again_and_again_is_given_up_and_counted(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = Keeper(
        store, site(store.folder, Camera(id="gate", source="x"), keep=Keep(min_free_gb=0)), lambda *_: False
    )
    with store.write() as transaction:
        for event in ("e1", "e2"):
            events.record(transaction, news("start", int(event[1])), event_id=event, now_us=0, sinks=())
            assets.expect(transaction, event, ("snapshot",))
    fail, tried = assets.fail, list[str]()

    def refused(transaction: Transaction, event: str, *rest: Any) -> None:
        tried.append(event)
        if event == "e1":
            raise ZeroDivisionError
        fail(transaction, event, *rest)

    monkeypatch.setattr(keeping.assets, "fail", refused)
    monkeypatch.setattr(keeping, "_TICK_S", 0.001)
    keeper.start()
    keeper.lacks("e1", "snapshot", "the disk is full")
    until(lambda: keeper.unsettled == {"snapshot": 1})
    keeper.lacks("e2", "snapshot", "the disk is full")
    keeper.close(60)
    assert tried == ["e1"] * 3 + ["e2"]
    found = rows(store.read, "SELECT event_id, state FROM asset ORDER BY event_id")
    assert found == [("e1", "pending"), ("e2", "failed")]
