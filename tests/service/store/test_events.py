"""Events, their log and the outbox against a plain model."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from support.service import Everything, camera_facts, news, run_facts

from ovavel.service.store import cameras, events, outbox
from ovavel.service.store.database import Database
from ovavel.service.store.events import EventBody, EventNews

SINKS = ("mqtt", "webhook")
SUBSCRIBERS = tuple(map(Everything, SINKS))


def test_an_event_has_a_revision_for_each_piece_of_news(store: Database) -> None:
    with store.write() as transaction:
        events.record(transaction, news("start"), event_id="e1", now_us=5, sinks=SUBSCRIBERS)
        events.record(
            transaction, news("update", end_us=3_000_000, peak_margin=0.7), event_id="", now_us=6, sinks=SUBSCRIBERS
        )
        events.record(
            transaction, news("end", end_us=4_000_000, peak_margin=0.7), event_id="", now_us=7, sinks=SUBSCRIBERS
        )
    log = events.log_after(store.read, 0)
    assert [(each.seq, each.body.revision, each.body.kind, each.body.state) for each in log] == [
        (1, 1, "start", "open"),
        (2, 2, "update", "open"),
        (3, 3, "end", "ended"),
    ]
    assert {each.body.id for each in log} == {"e1"}
    assert log[-1].body.end_us == 4_000_000
    assert events.log_after(store.read, 2) == log[2:]


def test_news_that_contradicts_the_store_is_refused_and_changes_nothing(store: Database) -> None:
    for wrong in ("update", "end", "retract"):
        with pytest.raises(ValueError, match="has not started"), store.write() as transaction:
            events.record(transaction, news(wrong), event_id="e1", now_us=5, sinks=SUBSCRIBERS)
    with store.write() as transaction:
        events.record(transaction, news("start"), event_id="e1", now_us=5, sinks=())
    with pytest.raises(ValueError, match="has started already"), store.write() as transaction:
        events.record(transaction, news("start"), event_id="e2", now_us=5, sinks=())
    with store.write() as transaction:
        events.record(transaction, news("retract"), event_id="", now_us=6, sinks=())
    with pytest.raises(ValueError, match="retracted already"), store.write() as transaction:
        events.record(transaction, news("end"), event_id="", now_us=7, sinks=())
    assert [each.seq for each in events.log_after(store.read, 0)] == [1, 2]


def test_a_person_s_word_is_a_revision_too(store: Database) -> None:
    with store.write() as transaction:
        events.record(transaction, news("start"), event_id="e1", now_us=5, sinks=())
        events.record(transaction, news("end"), event_id="", now_us=6, sinks=())
        events.revise(transaction, "e1", "pin", now_us=7, pinned=True)
        entry = events.revise(transaction, "e1", "verdict", now_us=8, by="ann", verdict="not this")
        assert events.revise(transaction, "e9", "pin", now_us=9, pinned=True) is None
    assert entry
    assert (entry.body.revision, entry.body.pinned, entry.body.verdict, entry.body.reviewed_by) == (
        4,
        True,
        "not this",
        "ann",
    )


class EventsAndOutbox(RuleBasedStateMachine):
    """Any order of news, deliveries, failures and restarts: a dictionary knows what the store must hold."""

    open_events = Bundle("open_events")

    def __init__(self) -> None:
        super().__init__()
        self.numbers = itertools.count(1)
        self.now_us = 0
        self.log: list[tuple[str, int, str]] = []
        self.pending: dict[str, dict[str, list[int]]] = {sink: {} for sink in SINKS}
        self.got: dict[str, dict[str, list[int]]] = {sink: {} for sink in SINKS}

    @initialize()
    def open(self) -> None:
        import tempfile
        from pathlib import Path

        self.folder = Path(tempfile.mkdtemp(prefix="ovavel-store-"))
        self.store = Database.open(self.folder, ballast_bytes=0)
        with self.store.write() as transaction:
            cameras.add_camera(transaction, camera_facts("gate"), now_us=0)
            cameras.open_run(transaction, run_facts("run-1", "gate"))

    def _record(self, number: int, kind: str) -> None:
        self.now_us += 1
        with self.store.write() as transaction:
            entry = events.record(
                transaction, news(kind, number), event_id=f"e{number}", now_us=self.now_us, sinks=SUBSCRIBERS
            )
        body = entry.body
        self.log.append((body.id, body.revision, kind))
        for sink in SINKS:
            self.pending[sink].setdefault(body.id, []).append(body.revision)

    @rule(target=open_events)
    def start(self) -> int:
        number = next(self.numbers)
        self._record(number, "start")
        return number

    @rule(number=open_events)
    def update(self, number: int) -> None:
        self._record(number, "update")

    @rule(number=consumes(open_events), kind=st.sampled_from(["end", "retract"]))
    def finish(self, number: int, kind: str) -> None:
        self._record(number, kind)

    @rule(number=open_events)
    def roll_back(self, number: int) -> None:
        again = news("start", number)
        with pytest.raises(ValueError, match="started already"), self.store.write() as transaction:
            self._twice(transaction, news("update", number), again)

    def _twice(self, transaction: Any, first: EventNews, second: EventNews) -> None:
        for each in (first, second):
            events.record(transaction, each, event_id="", now_us=self.now_us, sinks=SUBSCRIBERS)

    @rule(sink=st.sampled_from(SINKS), take=st.integers(1, 3), how=st.sampled_from(["delivered", "retry", "failed"]))
    def deliver(self, sink: str, take: int, how: str) -> None:
        self.now_us += 1
        found = outbox.due(self.store.read, sink, now_us=self.now_us, limit=take)
        first = {event: revisions[0] for event, revisions in self.pending[sink].items() if revisions}
        assert {(each.event_id, each.revision) for each in found} <= set(first.items()), "in order, an event at a time"
        assert len(found) == min(take, len(first))
        with self.store.write() as transaction:
            for each in found:
                assert msgspec.json.decode(each.body, type=EventBody).revision == each.revision
                if how == "retry":
                    outbox.retry(transaction, each, next_us=self.now_us, error="refused")
                    continue
                getattr(outbox, how)(
                    transaction, each, now_us=self.now_us, **({"error": "gone"} if how == "failed" else {})
                )
                self.pending[sink][each.event_id].pop(0)
                if how == "delivered":
                    self.got[sink].setdefault(each.event_id, []).append(each.revision)

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = Database.open(self.folder, ballast_bytes=0)

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "store"):
            return
        entries = events.log_after(self.store.read, 0)
        assert [each.seq for each in entries] == list(range(1, len(self.log) + 1)), "no holes"
        assert [(each.body.id, each.body.revision, each.body.kind) for each in entries] == self.log
        for sink in SINKS:
            waiting = sum(map(len, self.pending[sink].values()))
            assert outbox.backlog(self.store.read, sink).pending == waiting
            assert all(got == sorted(got) for got in self.got[sink].values())

    def teardown(self) -> None:
        import shutil

        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.folder)


TestEventsAndOutbox: Any = EventsAndOutbox.TestCase
TestEventsAndOutbox.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def test_a_long_backlog_is_not_sorted_for_each_batch(store: Database) -> None:
    plans: list[str] = []

    def explain(connection: Any, query: str, values: Any) -> bool:
        if not query.startswith("EXPLAIN"):
            plan = connection.execute(f"EXPLAIN QUERY PLAN {query}", values).fetchall()
            plans.extend(text for *_, text in plan)
        return True

    store.read.exec_trace = lambda cursor, query, values: explain(store.read, query, values)
    outbox.due(store.read, "mqtt", now_us=5)
    assert any("outbox_due" in each for each in plans)
    assert not any("B-TREE" in each for each in plans), plans
