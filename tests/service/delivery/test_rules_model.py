"""Which news a sink gets, in any order of news, outages and crashes, against a plain model."""

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
from ovavel.service.delivery.sender import Outcome
from ovavel.service.store import cameras, incidents, mutes, outbox
from ovavel.service.store.database import Database, rows

BERLIN = ZoneInfo("Europe/Berlin")


def sink(**rules: Any) -> Sink:
    return Jsonl(id="log", path="unused", **rules)


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


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cooldown_s=st.sampled_from([0.0, 60.0]),
    quiet=st.booleans(),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["change", "change", "moment", "deliver", "away"]),
            st.sampled_from(["camera down", "overload"]),
            st.sampled_from([0, 1, 20, 45, 300, 4 * 86_400]),
        ),
        max_size=25,
    ),
)
def test_the_end_of_an_incident_follows_its_begin_and_a_moment_is_always_reported(
    tmp_path_factory: pytest.TempPathFactory, cooldown_s: float, quiet: bool, steps: list[tuple[str, str, int]]
) -> None:
    with Database.open(tmp_path_factory.mktemp("store"), ballast_bytes=0) as store:
        with store.write() as transaction:
            cameras.add_camera(transaction, camera_facts("gate"), now_us=0)
        hours = ("00:00-23:59",) if quiet else ()  # of events alone
        desk = Desk(store, sink(cooldown_s=cooldown_s, first_of_day=quiet, quiet_hours=hours))
        waiting: list[tuple[str, str, int]] = []  # name, kind, written
        going_on: set[str] = set()
        reported: dict[str, bool] = {}  # whether the begin of the newest was
        last: dict[str, int] = {}
        for act, name, seconds in [*steps, ("deliver", "overload", 0)]:
            desk.later(seconds)
            match act:
                case "change":
                    desk.incident(name, over=name in going_on)
                    waiting.append((name, "end" if name in going_on else "begin", desk.now_us))
                    going_on ^= {name}
                case "moment":
                    with store.write() as transaction:
                        incidents.report_moment(transaction, "clock step", now_us=desk.now_us, sinks=(desk.sink,))
                    waiting.append(("clock step", "moment", desk.now_us))
                case "away":
                    desk.sender.away = "nobody answers"
                    desk.worker.round()
                    desk.sender.away = ""
                case "deliver":
                    before, wanted = len(desk.sender.got), list[tuple[str, str]]()
                    desk.drain()
                    for news, kind, written_us in waiting:
                        if kind == "begin":
                            since_us = last.get(news, -(2**62)) + round(cooldown_s * SECOND_US)
                            reported[news] = not cooldown_s or written_us >= since_us
                        if kind == "moment" or reported[news]:
                            wanted.append((news, kind))
                            last[news] = desk.now_us
                    waiting = []
                    found = [(each.body.incident, each.body.kind) for each in desk.sender.got[before:]]  # type: ignore[union-attr]
                    assert sorted(found) == sorted(wanted)
        assert outbox.backlog(store.read, desk.sink.id).pending == 0
