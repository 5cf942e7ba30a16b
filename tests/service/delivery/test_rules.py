"""Which news a sink gets, and why not the rest; test_rules_model.py has the same against a plain model."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.deliveries import SECOND_US, Desk

from ovavel.service.config.sinks import Jsonl, Sink
from ovavel.service.delivery.rules import in_quiet_hours
from ovavel.service.store import mutes
from ovavel.service.store.database import Database, rows

BERLIN = ZoneInfo("Europe/Berlin")


def sink(**rules: Any) -> Sink:
    return Jsonl(id="log", path="unused", **rules)


def suppressed(desk: Desk) -> list[tuple[str, int, str]]:
    return rows(
        desk.store.read, "SELECT event_id, revision, last_error FROM outbox WHERE state = 'suppressed' ORDER BY id"
    )


def us(text: str, zone: ZoneInfo = BERLIN, fold: int = 0) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp() * SECOND_US)


def test_final_is_one_message_for_an_event_that_stands_and_none_for_one_that_does_not(store: Database) -> None:
    desk = Desk(store, sink())
    for kind in ("start", "update", "end"):
        desk.news(kind)
    for kind in ("start", "retract"):
        desk.news(kind, 2)
    assert desk.drain() == ["e1.3"]
    assert rows(store.read, "SELECT count(*) FROM outbox") == [(1,)], "what a sink does not want is not written"


def test_early_is_a_start_and_a_follow_up(store: Database) -> None:
    desk = Desk(store, sink(when="early"))
    desk.news("start")
    desk.news("start", 2)
    desk.news("update")
    assert desk.drain() == ["e1.1", "e2.1"]
    desk.news("retract")
    desk.news("end", 2)
    assert desk.drain() == ["e1.3", "e2.2"]


def test_cameras_and_labels_are_chosen(store: Database) -> None:
    for choice in ({"cameras": ("yard",)}, {"labels": ("siren",)}):
        desk = Desk(store, sink(**choice))
        number = len(choice["cameras"]) if "cameras" in choice else 2
        desk.news("start", number)
        desk.news("end", number)
        assert desk.drain() == []


def test_a_cooldown_begins_with_delivery(store: Database) -> None:
    desk = Desk(store, sink(cooldown_s=60))
    desk.sender.away = "nobody answers"
    for number in (1, 2):
        desk.news("start", number)
        desk.news("end", number)
        assert desk.drain() == [], "an attempt spends no cooldown"
    desk.later(300)
    desk.sender.away = ""
    assert desk.drain() == ["e1.2"]
    assert suppressed(desk) == [("e2", 2, "cooldown")]
    desk.later(59)
    desk.news("start", 3)
    desk.news("end", 3)
    desk.news("start", 4, label="siren")
    desk.news("end", 4, label="siren")
    assert desk.drain() == ["e4.2"], "another label has its own"
    desk.later(2)
    desk.news("start", 5)
    desk.news("end", 5)
    assert desk.drain() == ["e5.2"]
    assert desk.worker.results == {"delivered": 3, "suppressed: cooldown": 2}


def test_a_clock_that_was_set_back_leaves_no_cooldown_in_the_future(store: Database) -> None:
    desk = Desk(store, sink(cooldown_s=60))
    desk.news("start")
    desk.news("end")
    assert desk.drain() == ["e1.2"]
    desk.later(-3600)
    desk.news("start", 2)
    desk.news("end", 2)
    assert desk.drain() == ["e2.2"]


def test_a_follow_up_follows_what_was_reported_and_is_left_out_with_what_was_not(store: Database) -> None:
    desk = Desk(store, sink(when="early", cooldown_s=60))
    desk.news("start")
    desk.news("start", 2)
    assert desk.drain() == ["e1.1"]
    desk.news("end")
    desk.news("end", 2)
    assert desk.drain() == ["e1.2"], "the follow-up of what was reported knows no cooldown"
    assert suppressed(desk) == [("e2", 1, "cooldown"), ("e2", 2, "cooldown")]


def test_no_start_is_reported_when_it_is_old_and_its_end_is_late(store: Database) -> None:
    desk = Desk(store, sink(when="early"))
    desk.sender.away = "nobody answers"
    desk.news("start")
    desk.drain()
    desk.later(10)
    desk.news("end")
    desk.news("start", 2)
    desk.later(30)
    desk.news("retract", 2)
    desk.later(21)
    desk.news("start", 3)
    desk.sender.away = ""
    desk.later(20)
    assert desk.drain() == ["e1.2", "e3.1"]
    assert [each.late for each in desk.sender.got] == [True, False]
    assert suppressed(desk) == [
        ("e1", 1, "start too long ago"),
        ("e2", 1, "start too long ago"),
        ("e2", 2, "retracted before it was reported"),
    ]


def test_a_snooze_holds_for_its_time_and_what_waits_is_not_lost_to_a_later_one(store: Database) -> None:
    desk = Desk(store, sink())
    with store.write() as transaction:
        mutes.snooze(transaction, "gate", until_us=desk.now_us + 3600 * SECOND_US, now_us=desk.now_us)
    assert mutes.snoozed(store.read, now_us=desk.now_us) == {("gate", None): desk.now_us + 3600 * SECOND_US}
    desk.news("start")
    desk.news("end")
    desk.sender.away = "nobody answers"
    desk.later(3700)
    desk.news("start", 2)
    desk.news("end", 2)
    desk.sender.away = ""
    assert desk.drain() == ["e2.2"]
    assert suppressed(desk) == [("e1", 2, "snoozed")]
    with store.write() as transaction:
        mutes.snooze(transaction, "gate", label="siren", until_us=desk.now_us + 3600 * SECOND_US, now_us=desk.now_us)
    for number, label in ((3, "siren"), (4, "dog barking")):
        desk.news("start", number, label=label)
        desk.news("end", number, label=label)
    assert desk.drain() == ["e4.2"]
    with store.write() as transaction:
        mutes.end_snooze(transaction, "gate", label="siren", now_us=desk.now_us)
    desk.later(1)
    desk.news("start", 5, label="siren")
    desk.news("end", 5, label="siren")
    assert desk.drain() == ["e5.2"]


def test_the_first_of_the_day_counts_days_of_the_camera(store: Database) -> None:
    desk = Desk(store, sink(first_of_day=True), tz="Pacific/Auckland")
    for number, at in enumerate(("2026-04-04T23:30", "2026-04-04T23:40", "2026-04-05T00:10", "2026-04-05T23:50"), 1):
        desk.now_us = us(at, ZoneInfo("Pacific/Auckland"))  # a day of 25 hours
        desk.news("start", number)
        desk.news("end", number)
        desk.drain()
    assert desk.sender.ids == ["e1.2", "e3.2"]
    assert {cause for *_, cause in suppressed(desk)} == {"not the first of the day"}


def test_quiet_hours_are_for_events_and_not_for_the_service(store: Database) -> None:
    desk = Desk(store, sink(quiet_hours=("22:00-06:00",)), tz="Europe/Berlin")
    desk.now_us = us("2026-07-01T23:00")
    desk.news("start")
    desk.news("end")
    desk.incident("camera down")
    assert len(desk.drain()) == 1
    assert desk.sender.got[0].type == "incident.begin"
    assert suppressed(desk) == [("e1", 2, "quiet hours")]


@pytest.mark.parametrize(
    ("at", "fold", "quiet"),
    [
        ("2026-03-29T01:59", 0, False),  # clocks go forward from 02:00 to 03:00
        ("2026-03-29T03:00", 0, True),
        ("2026-03-29T03:29", 0, True),
        ("2026-03-29T03:30", 0, False),
        ("2026-10-25T02:29", 0, False),  # and back from 03:00 to 02:00
        ("2026-10-25T02:45", 0, True),
        ("2026-10-25T02:15", 1, False),
        ("2026-10-25T02:45", 1, True),
        ("2026-10-25T03:30", 0, False),
    ],
)
def test_quiet_hours_go_by_the_clock_on_the_wall(at: str, fold: int, quiet: bool) -> None:
    assert in_quiet_hours(("02:30-03:30",), us(at, fold=fold), BERLIN) is quiet


@given(
    begin=st.times(),
    end=st.times(),
    at_us=st.integers(0, 4_000_000_000 * SECOND_US),
    zone=st.sampled_from(
        ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Asia/Kathmandu", "UTC"]
    ),
)
def test_a_span_and_the_one_around_it_make_a_day(begin: Any, end: Any, at_us: int, zone: str) -> None:
    spans = [f"{one:%H:%M}-{other:%H:%M}" for one, other in ((begin, end), (end, begin))]
    quiet = [in_quiet_hours((span,), at_us, ZoneInfo(zone)) for span in spans]
    assert sum(quiet) == (2 if spans[0] == spans[1] else 1)
