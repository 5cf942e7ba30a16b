"""Which news a sink gets, and why not the rest: by hand, and against a plain model."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.deliveries import DELIVERED, SECOND_US, Desk
from support.service import camera_facts, run_facts

from ovavel.service.config.sinks import Jsonl, Sink
from ovavel.service.delivery.rules import in_quiet_hours
from ovavel.service.delivery.sender import Outcome
from ovavel.service.store import cameras, mutes
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


RULES = st.fixed_dictionaries(
    {
        "when": st.sampled_from(["final", "early"]),
        "cooldown_s": st.sampled_from([0.0, 30.0, 300.0]),
        "first_of_day": st.booleans(),
        "quiet_hours": st.sampled_from([(), ("12:10-12:20",)]),
    }
)


class Deliveries(RuleBasedStateMachine):
    """Any order of news, outages, crashes, snoozes and waiting: a list knows who should have got what."""

    @initialize(rules=RULES)
    def open(self, rules: dict[str, Any]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ovavel-delivery-"))
        self.store = Database.open(self.folder, ballast_bytes=0)
        self.store._connection.execute("PRAGMA synchronous = OFF")  # a disk that is busy is not what is tested
        with self.store.write() as transaction:
            cameras.add_camera(transaction, camera_facts("gate"), now_us=0)
            cameras.open_run(transaction, run_facts("run-1", "gate"))
        self.desk = Desk(self.store, sink(**rules))
        self.rules, self.numbers = rules, itertools.count(1)
        self.labels: dict[int, str] = {}
        self.open_events: dict[int, int] = {}  # event → revision
        self.waiting: list[tuple[int, int, str, int]] = []  # event, revision, kind, written
        self.fate: dict[tuple[int, int], str] = {}
        self.delivered: dict[str, list[tuple[int, int]]] = {}  # label → written, delivered
        self.snooze: tuple[int, int] = (0, 0)

    def _news(self, number: int, kind: str) -> None:
        self.desk.news(kind, number, label=self.labels[number])
        self.open_events[number] = self.open_events.get(number, 0) + 1
        if kind in (("start", "end", "retract") if self.rules["when"] == "early" else ("end",)):
            self.waiting.append((number, self.open_events[number], kind, self.desk.now_us))

    @rule(label=st.sampled_from(["bell", "dog"]))
    def begin(self, label: str) -> None:
        number = next(self.numbers)
        self.labels[number] = label
        self._news(number, "start")

    @rule(data=st.data(), kind=st.sampled_from(["update", "end", "end", "retract"]))
    def go_on(self, data: st.DataObject, kind: str) -> None:
        if self.open_events:
            number = data.draw(st.sampled_from(sorted(self.open_events)))
            self._news(number, kind)
            if kind != "update":
                del self.open_events[number]

    @rule(seconds=st.sampled_from([1, 20, 45, 300, 40_000]))
    def wait(self, seconds: int) -> None:
        self.desk.later(seconds)

    @rule(hours=st.sampled_from([0, 1, 4]))
    def snooze_it(self, hours: int) -> None:
        now_us = self.desk.now_us
        with self.store.write() as transaction:
            if hours:
                mutes.snooze(transaction, "gate", until_us=now_us + hours * 3600 * SECOND_US, now_us=now_us)
            else:
                mutes.end_snooze(transaction, "gate", now_us=now_us)
        self.snoozes = [*getattr(self, "snoozes", [])]
        self.snoozes = [(since, min(until, now_us)) for since, until in self.snoozes]
        if hours:
            self.snoozes.append((now_us, now_us + hours * 3600 * SECOND_US))

    @rule(how=st.sampled_from(["away", "busy", "refused"]))
    def fail(self, how: str) -> None:
        """Nothing that fails changes what is to be delivered."""
        if how == "away":
            self.desk.sender.away = "nobody answers"
        result = "refused" if how == "refused" else "unavailable"
        self.desk.sender.answer = lambda _: Outcome(result=result, why="not now")
        self.desk.worker.round()
        self.desk.sender.away = ""
        self.desk.sender.answer = lambda _: DELIVERED
        self._model(deliver=False)

    @rule()
    def crash_between_sending_and_marking(self) -> None:
        worker = self.desk.new_worker()
        worker._write = lambda: None  # type: ignore[method-assign]
        worker.round()

    @rule()
    def deliver(self) -> None:
        before = len(self.desk.sender.got)
        while self.desk.worker.round() or rows(
            self.store.read, "SELECT 1 FROM outbox WHERE state = 'pending' AND next_us > ?", (self.desk.now_us,)
        ):
            with self.store.write() as transaction:  # the waiting between attempts is another test's
                transaction.execute("UPDATE outbox SET next_us = created_us WHERE state = 'pending'")
        got = [(int(each.delivery.event_id[1:]), each.delivery.revision) for each in self.desk.sender.got[before:]]
        self._model(deliver=True)
        assert sorted(got) == sorted(self.arrived)

    def _model(self, *, deliver: bool) -> None:
        """Judge all that waits, in order. A failed attempt may have judged some of it already, with the same result."""
        now_us, self.arrived, left = self.desk.now_us, [], []
        for number, revision, kind, written_us in self.waiting:
            cause = self._cause(number, revision, kind, written_us, now_us)
            if cause == "":
                if not deliver:
                    left.append((number, revision, kind, written_us))
                    continue
                self.arrived.append((number, revision))
                self.delivered.setdefault(self.labels[number], []).append((written_us, now_us))
            elif not deliver:
                state = rows(
                    self.store.read,
                    "SELECT state FROM outbox WHERE event_id = ? AND revision = ?",
                    (f"e{number}", revision),
                )
                if state == [("pending",)]:  # not reached yet
                    left.append((number, revision, kind, written_us))
                    continue
            self.fate[number, revision] = cause
        self.waiting = left

    def _cause(self, number: int, revision: int, kind: str, written_us: int, now_us: int) -> str:
        before = [
            cause for (event, earlier), cause in sorted(self.fate.items()) if event == number and earlier < revision
        ]
        if "" in before:
            return ""
        if kind == "retract":
            return "retracted before it was reported"
        for cause in before:
            if cause != "start too long ago":
                return cause
        if kind == "start" and now_us - written_us > 60 * SECOND_US:
            return "start too long ago"
        if any(since <= at < until for since, until in getattr(self, "snoozes", []) for at in (written_us, now_us)):
            return "snoozed"
        clock = datetime.fromtimestamp(written_us // SECOND_US, ZoneInfo("UTC"))
        if self.rules["quiet_hours"] and clock.hour == 12 and 10 <= clock.minute < 20:
            return "quiet hours"
        last = max(self.delivered.get(self.labels[number], []), key=lambda each: each[1], default=None)
        if (
            last
            and self.rules["first_of_day"]
            and last[0] // (86_400 * SECOND_US) == written_us // (86_400 * SECOND_US)
        ):
            return "not the first of the day"
        cooldown_us = self.rules["cooldown_s"] * SECOND_US
        if last and cooldown_us and written_us < last[1] + cooldown_us:
            return "cooldown"
        return ""

    @invariant()
    def nothing_is_lost(self) -> None:
        if not hasattr(self, "desk"):
            return
        found = rows(self.store.read, "SELECT event_id, revision, state, coalesce(last_error, '') FROM outbox")
        known = {(int(event[1:]), revision): (state, why) for event, revision, state, why in found}
        waiting = {(number, revision) for number, revision, *_ in self.waiting}
        assert known.keys() == waiting | self.fate.keys()
        for key, (state, why) in known.items():
            if key not in waiting:
                cause = self.fate[key]
                assert state == ("suppressed" if cause else "delivered")
                assert not cause or why == cause

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.folder)


TestDeliveries: Any = Deliveries.TestCase
TestDeliveries.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
