"""What grows with time alone is removed, and nothing else."""

from __future__ import annotations

import pytest
from support.service import news, run_facts

from ovavel.service.store import cameras, events, people
from ovavel.service.store.cameras import Anchor
from ovavel.service.store.care import forget as forgetting
from ovavel.service.store.care.forget import forget
from ovavel.service.store.care.invariants import violations
from ovavel.service.store.database import Database, rows
from ovavel.service.store.incidents import begin_incident, end_incident, report_moment

ANCHORS = "SELECT run_id FROM anchor JOIN run ON run.id = run_id ORDER BY started_us"


def test_old_runs_without_events_go_and_those_of_events_and_the_present_one_stay(store: Database) -> None:
    with store.write() as transaction:
        cameras.close_run(transaction, "run-1", ended_us=0, cause="stopped")
        for number in range(2, 40):
            run = f"run-{number}"
            cameras.open_run(transaction, run_facts(run, "gate", started_us=number))
            cameras.add_anchor(transaction, run, Anchor(media_us=0, utc_us=1, monotonic_us=1, cause="start"))
            if number == 7:
                for kind in ("start", "end"):
                    events.record(transaction, news(kind, run=run), event_id="e1", now_us=0, sinks=())
            if number < 39:
                cameras.close_run(transaction, run, ended_us=number + 1, cause="camera offline")
        forget(transaction, before_us=30)
    left = [run for (run,) in rows(store.read, "SELECT id FROM run ORDER BY started_us")]
    assert left == ["run-7", *(f"run-{number}" for number in range(29, 40))]
    assert [run for (run,) in rows(store.read, ANCHORS)] == left
    assert violations(store.read) == []


def test_old_incidents_go_and_what_goes_on_stays(store: Database) -> None:
    with store.write() as transaction:
        report_moment(transaction, "service started", now_us=5, sinks=())
        begin_incident(transaction, "camera down", now_us=6, sinks=(), camera="gate")
        begin_incident(transaction, "overload", now_us=7, sinks=())
        end_incident(transaction, "overload", now_us=50, sinks=())
        begin_incident(transaction, "disk low", now_us=8, sinks=())
        end_incident(transaction, "disk low", now_us=9, sinks=())
        forget(transaction, before_us=30)
    assert rows(store.read, "SELECT kind FROM incident ORDER BY start_us") == [("camera down",), ("overload",)]


def test_the_newest_of_the_record_of_changes_stay(store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "AUDIT_KEPT", 3)
    with store.write() as transaction:
        for number in range(5):
            people.audit(transaction, "anna", "looked", {"number": number}, now_us=number)
        forget(transaction, before_us=0)
    assert [each.detail["number"] for each in people.read_audit(store.read)] == [4, 3, 2]


def test_a_long_history_is_removed_in_parts(store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "_AT_ONCE", 2)
    with store.write() as transaction:
        for number in range(5):
            report_moment(transaction, "clock step", now_us=number, sinks=())
        removed = [forget(transaction, before_us=30) for _ in range(4)]
    assert removed == [2, 2, 1, 0]
