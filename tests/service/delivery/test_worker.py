"""One sink at work: order, retries, receivers that are gone, a store that cannot be written, and the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from support.deliveries import DELIVERED, SECOND_US, Desk, KeptSender
from support.service import until

from ovavel.runtime.errors import OutputError
from ovavel.service.delivery.message import Message
from ovavel.service.delivery.sender import LONGEST_PAUSE_S, Outcome, pause_s
from ovavel.service.delivery.worker import GIVE_UP_ATTEMPTS, GIVE_UP_US
from ovavel.service.store import outbox
from ovavel.service.store.database import Database, rows


def test_an_event_s_revisions_arrive_in_their_order_and_no_more_than_twenty_are_on_their_way(store: Database) -> None:
    desk = Desk(store)
    for number in range(1, 31):
        desk.news("start", number)
    for number in range(1, 31):
        desk.news("end", number)
    arrived = desk.drain()
    assert sorted(arrived) == sorted(f"e{number}.{revision}" for number in range(1, 31) for revision in (1, 2))
    for number in range(1, 31):
        assert arrived.index(f"e{number}.1") < arrived.index(f"e{number}.2")
    assert max(desk.sender.batches) == 20


def test_a_message_that_is_refused_holds_up_its_own_event_alone(store: Database) -> None:
    desk = Desk(store)
    desk.sender.answer = lambda each: (
        Outcome(result="refused", why="400") if each.delivery.event_id == "e1" else DELIVERED
    )
    desk.worker = desk.new_worker(pause=lambda _: 3600.0)
    for number in (1, 2):
        desk.news("start", number)
        desk.news("end", number)
    assert desk.drain() == ["e2.1", "e2.2"]
    assert outbox.backlog(store.read, "log").pending == 2
    desk.sender.answer = lambda _: DELIVERED
    desk.later(3601)
    assert desk.drain() == ["e1.2"], "its start is too old by now"


def test_a_message_that_is_refused_for_days_fails_and_is_counted(store: Database) -> None:
    desk = Desk(store)
    desk.news("start")
    desk.news("end")
    desk.sender.answer = lambda _: Outcome(result="refused", why="the receiver answered 400")
    desk.worker.round()
    desk.later(GIVE_UP_US / SECOND_US + 1)
    desk.drain()
    assert desk.worker.results == {"suppressed: start too long ago": 1}, "a clock that was set is no patience"
    with store.write() as transaction:
        transaction.execute("UPDATE outbox SET attempts = ?", (GIVE_UP_ATTEMPTS,))
    desk.later(3600)
    desk.drain()
    assert desk.worker.results == {"suppressed: start too long ago": 1, "failed": 1}
    assert outbox.backlog(store.read, "log").pending == 0


def test_a_receiver_that_is_away_is_asked_with_one_message_until_it_is_back(store: Database) -> None:
    desk = Desk(store)
    for number in range(1, 6):
        desk.news("start", number)
    desk.sender.answer = lambda _: Outcome(result="unavailable", why="500")
    desk.worker.round()
    desk.worker.round()
    assert desk.sender.batches == [5, 1]
    assert desk.worker.trouble == "500"
    desk.sender.answer = lambda _: DELIVERED
    assert len(desk.drain()) == 5
    assert desk.worker.trouble == ""


def test_a_receiver_that_asks_to_wait_is_left_alone(store: Database) -> None:
    desk = Desk(store)
    desk.news("start")
    desk.news("start", 2)
    desk.sender.answer = lambda _: Outcome(result="unavailable", why="429", wait_s=120)
    assert desk.drain() == []
    desk.drain()
    assert desk.sender.batches == [2]
    waits = rows(store.read, "SELECT next_us FROM outbox")
    assert waits == [(desk.now_us + 120 * SECOND_US,)] * 2


def test_pauses_double_with_jitter_up_to_a_minute() -> None:
    for failures in range(1, 2000):
        assert min(2.0 ** min(failures - 1, 10), LONGEST_PAUSE_S) / 2 <= pause_s(failures) <= LONGEST_PAUSE_S
    assert len({pause_s(3) for _ in range(20)}) > 1


def test_a_receiver_that_is_gone_is_asked_no_more_and_what_is_for_it_fails(store: Database) -> None:
    desk = Desk(store)
    desk.sender.answer = lambda _: Outcome(result="gone", why="the receiver answered 410 Gone")
    for number in (1, 2):
        desk.news("start", number)
        desk.news("end", number)
    desk.drain()
    assert desk.worker.disabled
    assert desk.gone == [("log", "the receiver answered 410 Gone")]
    assert desk.sender.batches == [2]
    assert outbox.backlog(store.read, "log").pending == 0
    assert desk.worker.results["failed"] == 4
    desk.sender.answer = lambda _: DELIVERED
    desk.worker = desk.new_worker()
    desk.news("start", 3)
    assert desk.drain() == ["e3.1"], "the next start asks again"


def test_a_store_that_cannot_be_written_makes_nothing_be_sent_again_and_again(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(store)
    desk.worker.round()
    desk.news("start")
    write = store.write

    @contextmanager
    def full() -> Iterator[Any]:
        raise OutputError("the disk is full")
        yield

    monkeypatch.setattr(store, "write", full)
    for _ in range(3):
        with pytest.raises(OutputError):
            desk.worker.round()
    assert desk.sender.ids == ["e1.1"]
    monkeypatch.setattr(store, "write", write)
    assert desk.drain() == []
    assert rows(store.read, "SELECT state FROM outbox") == [("delivered",)]


def test_a_clock_that_was_set_back_delays_nothing(store: Database) -> None:
    desk = Desk(store)
    desk.news("start")
    desk.sender.answer = lambda _: Outcome(result="refused", why="not now")
    desk.worker.round()
    desk.sender.answer = lambda _: DELIVERED
    desk.later(-7200)
    assert desk.drain() == ["e1.1"]


def test_what_cannot_be_read_fails_and_stops_nothing(store: Database) -> None:
    desk = Desk(store)
    desk.news("start")
    desk.news("start", 2)
    with store.write() as transaction:
        transaction.execute("UPDATE outbox SET body = '{}' WHERE event_id = 'e1'")
    assert desk.drain() == ["e2.1"]
    assert rows(store.read, "SELECT state FROM outbox ORDER BY id") == [("failed",), ("delivered",)]


def test_texts_are_plain_sentences(store: Database) -> None:
    desk = Desk(store, tz="Europe/Berlin")
    desk.news("start")
    desk.news("end")
    desk.news("start", 2)
    desk.news("retract", 2)
    desk.incident("camera down")
    desk.drain()
    desk.later(90)
    desk.incident("camera down", over=True)
    desk.drain()
    assert [each.text for each in sorted(desk.sender.got, key=lambda each: each.delivery.id)] == [
        "Front gate: dog barking since 2026-11-28 12:59:58",
        "Front gate: dog barking from 2026-11-28 12:59:58 to 13:00:00",
        "Front gate: dog barking since 2026-11-28 12:59:58",
        "Front gate: not confirmed: dog barking at 2026-11-28 12:59:58",
        "Front gate: camera down",
        "Front gate: camera down is over after 90 s",
    ]


class Slow(KeptSender):
    """Takes nothing until it is released or interrupted."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.released = threading.Event(), threading.Event()

    def send(self, messages: Sequence[Message]) -> list[Outcome]:
        self.entered.set()
        self.released.wait()
        return [Outcome(result="unavailable", why="interrupted")] * len(messages)

    def interrupt(self) -> None:
        self.released.set()


def test_the_end_of_a_service_sends_what_is_due(store: Database) -> None:
    desk = Desk(store)
    desk.worker.start()
    for number in range(1, 31):
        desk.news("start", number)
    desk.worker.stop()
    assert desk.worker.join(60)
    assert len(desk.sender.ids) == 30


def test_the_end_of_a_service_waits_for_no_slow_receiver_and_keeps_what_is_for_it(store: Database) -> None:
    desk = Desk(store)
    desk.sender = slow = Slow()
    desk.worker = desk.new_worker()
    desk.news("start")
    desk.worker.start()
    assert slow.entered.wait(60)
    desk.worker.stop()
    assert not desk.worker.join(0.0)
    desk.worker.leave()
    assert desk.worker.join(60)
    assert rows(store.read, "SELECT state, attempts FROM outbox") == [("pending", 0)]


def test_a_test_message_goes_the_way_of_the_others(store: Database) -> None:
    desk = Desk(store)
    desk.worker.start()
    try:
        assert desk.worker.test().result(60) == DELIVERED
        assert desk.sender.got[0].text == "site: test message"
        desk.sender.away = "nobody answers"
        assert desk.worker.test().result(60) == Outcome(result="unavailable", why="nobody answers")
        desk.sender.away = ""
        desk.sender.answer = lambda _: 1 / 0  # type: ignore[assignment, return-value]
        assert "ZeroDivisionError" in desk.worker.test().result(60).why
        desk.sender.answer = lambda _: DELIVERED
        desk.worker.test().cancel()  # whoever asked has left
        assert desk.worker.test().result(60) == DELIVERED
    finally:
        desk.worker.stop()
        desk.worker.join(60)


def test_a_sender_that_fails_in_an_unforeseen_way_goes_on_when_it_can(store: Database) -> None:
    desk = Desk(store)

    def fails(_: Message) -> Outcome:
        raise RuntimeError("nobody thought of this")

    desk.sender.answer = fails
    desk.news("start")
    desk.worker.start()
    try:
        until(lambda: "nobody thought of this" in desk.worker.trouble)
        desk.sender.answer = lambda _: DELIVERED
        until(lambda: desk.sender.ids == ["e1.1"])
    finally:
        desk.worker.stop()
        desk.worker.join(60)


def test_old_rows_are_forgotten_and_what_waits_is_not(store: Database) -> None:
    desk = Desk(store)
    desk.news("start")
    desk.drain()
    desk.later(60)
    desk.news("start", 2)
    with store.write() as transaction:
        assert outbox.forget(transaction, before_us=desk.now_us, sinks=["log"]) == 1
    assert rows(store.read, "SELECT event_id FROM outbox") == [("e2",)]
    with store.write() as transaction:
        assert outbox.forget(transaction, before_us=desk.now_us + 1, sinks=["log"]) == 0, "it waits"
        assert outbox.forget(transaction, before_us=desk.now_us + 1, sinks=["other"]) == 1, "for nobody"
