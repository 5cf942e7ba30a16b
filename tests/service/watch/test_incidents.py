"""What befalls the service is noticed once, reported once, and ends once; nothing is made of what was expected."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from support.service import camera_facts, site

from ovavel.service.config.sinks import Jsonl
from ovavel.service.config.site import Camera
from ovavel.service.store import accounts, cameras
from ovavel.service.store.accounts import HOUR_US
from ovavel.service.store.database import Database, rows
from ovavel.service.store.incidents import list_incidents
from ovavel.service.watch.incidents import LOW_BYTES, Monitor

START_US = 1_795_867_200_000_000
MUCH = 100 * LOW_BYTES


class Watchman:
    """A monitor of two cameras, driven by hand; the second one may be offline at any time."""

    def __init__(self, store: Database) -> None:
        self.store, self.now_s, self.set_us, self.free = store, 1000.0, 0, MUCH
        gate, shed = Camera(id="gate", source="x"), Camera(id="shed", source="x", expected_offline=True)
        with store.write() as transaction:
            for each in (gate, shed):
                cameras.add_camera(transaction, camera_facts(each.id), now_us=START_US)
            transaction.execute("UPDATE camera SET accounted_us = ?", (START_US,))
        self.feeds: dict[str, Any] = {
            each.id: SimpleNamespace(camera=each, state="watching", why="", lost="", restarts=0)
            for each in (gate, shed)
        }
        self.site = site(store.folder, gate, shed, sink=(Jsonl(id="log", path="unused"),))
        self.again()

    def again(self) -> None:
        """As a service that starts."""
        self.monitor = Monitor(self.store, self.site, self.feeds, free_bytes=lambda _: self.free)

    def look(self, seconds: float = 1.0) -> None:
        self.now_s += seconds
        now_us = START_US + round((self.now_s - 1000) * 1e6) + self.set_us
        self.monitor.look(now_s=self.now_s, now_us=now_us)

    def found(self) -> list[tuple[str, str | None, str]]:
        return [(each.incident, each.camera, each.kind) for each in reversed(list_incidents(self.store.read))]

    def sent(self) -> list[tuple[str, int]]:
        query = "SELECT json_extract(body, '$.incident'), revision FROM outbox ORDER BY id"
        return rows(self.store.read, query)


@pytest.fixture
def watchman(store: Database) -> Watchman:
    return Watchman(store)


def offline(watchman: Watchman, *names: str) -> None:
    for name in names:
        feed = watchman.feeds[name]
        feed.state, feed.restarts, feed.why = "offline", feed.restarts + 1, "no answer of rtsp://u:opensesame@camera/"


def test_a_camera_that_stays_away_is_down_until_it_is_back(watchman: Watchman) -> None:
    watchman.look()
    offline(watchman, "gate", "shed")
    watchman.look(29)
    assert watchman.found() == []
    for _ in range(3):
        watchman.look(10)
    assert watchman.found() == [("camera down", "gate", "begin")]
    assert "opensesame" not in list_incidents(watchman.store.read)[0].detail
    watchman.feeds["gate"].state = "starting"
    watchman.look(60)
    watchman.feeds["gate"].state = "watching"
    watchman.look()
    watchman.look()
    assert watchman.found() == [("camera down", "gate", "end")]
    assert watchman.sent() == [("camera down", 1), ("camera down", 2)]


@pytest.mark.parametrize(("state", "lost"), [("offline", "stream lost"), ("watching", "microphone lost")])
def test_what_is_lost_while_its_process_lives_is_down_too(watchman: Watchman, state: str, lost: str) -> None:
    feed = watchman.feeds["gate"]
    watchman.look()
    for seconds in (29, 1, 10):
        feed.state, feed.lost, feed.why = state, lost, lost
        watchman.look(seconds)
    assert watchman.found() == [("camera down", "gate", "begin")]
    assert list_incidents(watchman.store.read)[0].detail == lost
    feed.state, feed.lost, feed.why = "watching", "", ""
    watchman.look()
    assert watchman.found() == [("camera down", "gate", "end")]


def test_a_hiccup_is_no_incident_and_a_camera_that_takes_long_to_open_is_not_down(watchman: Watchman) -> None:
    watchman.feeds["gate"].state = "starting"
    for _ in range(9):
        watchman.look(10)
    watchman.feeds["gate"].state = "watching"
    watchman.look()
    for _ in range(5):
        offline(watchman, "gate")
        watchman.look(20)
        watchman.feeds["gate"].state = "watching"
        watchman.look()
    assert watchman.sent() == []


@pytest.mark.parametrize("state", ["watching", "off", "ended"])
def test_a_start_of_the_service_ends_no_incident_before_that_is_clear(watchman: Watchman, state: str) -> None:
    watchman.look()
    offline(watchman, "gate")
    watchman.look(31)
    watchman.again()
    feed = watchman.feeds["gate"]
    feed.state, feed.restarts = "starting", 0
    watchman.look()
    offline(watchman, "gate")
    watchman.look()
    watchman.look(40)
    assert watchman.found() == [("camera down", "gate", "begin")], "it is the same one"
    feed.state = state
    watchman.look()
    assert watchman.found() == [("camera down", "gate", "end")]


def test_a_disk_that_is_nearly_full_is_reported_and_does_not_flicker(watchman: Watchman) -> None:
    for free in (MUCH, LOW_BYTES - 1, LOW_BYTES + 1, LOW_BYTES - 1, 2 * LOW_BYTES):
        watchman.free = free
        watchman.look()
    assert watchman.sent() == [("disk low", 1), ("disk low", 2)]


@pytest.mark.parametrize(("step_us", "says"), [(3_600_000_000, "forward by 3600.0 s"), (-2_000_000, "back by 2.0 s")])
def test_a_clock_that_was_set_is_reported_once(watchman: Watchman, step_us: int, says: str) -> None:
    watchman.look()
    watchman.set_us = 100_000  # NTP
    watchman.look()
    watchman.set_us += step_us
    for _ in range(3):
        watchman.look()
    assert watchman.sent() == [("clock step", 1)]
    assert says in list_incidents(watchman.store.read)[0].detail
    assert watchman.monitor.clock_steps_s == pytest.approx(abs(step_us) / 1e6)


def drop(watchman: Watchman, windows: int) -> None:
    with watchman.store.write() as transaction:
        to_us = accounts.accounted_us(transaction, "gate") + windows * 1_000_000
        cause = "encoder too slow"
        accounts.advance(transaction, "gate", to_us=to_us, outcome="dropped", cause=cause, windows=windows)


def test_an_encoder_that_drops_windows_is_an_overload_until_it_drops_none(watchman: Watchman) -> None:
    watchman.look(11)
    drop(watchman, 2)
    watchman.look(11)
    assert watchman.found() == [], "a hiccup"
    drop(watchman, 4)
    watchman.look(11)
    assert watchman.found() == [("overload", None, "begin")]
    assert watchman.monitor.losses["gate"] == {"encoder too slow": 6}
    for _ in range(8):
        watchman.look(11)
    assert watchman.found() == [("overload", None, "end")]


def test_time_without_windows_is_a_loss_with_its_cause(watchman: Watchman) -> None:
    with watchman.store.write() as transaction:
        for seconds, cause in ((40, "camera offline"), (2.6, "capture died"), (0.2, "starting")):
            to_us = accounts.accounted_us(transaction, "gate") + round(seconds * 1e6)
            accounts.advance(transaction, "gate", to_us=to_us, outcome="gap", cause=cause)
    drop(watchman, 2)
    watchman.look(11)
    assert watchman.monitor.losses["gate"] == {"camera offline": 40, "capture died": 3, "encoder too slow": 2}
    assert watchman.monitor.losses["shed"] == {}


def test_a_loss_has_its_cause_also_after_a_clock_that_was_ahead(watchman: Watchman) -> None:
    with watchman.store.write() as transaction:
        ahead_us = START_US + 3 * HOUR_US
        accounts.advance(transaction, "gate", to_us=ahead_us, outcome="gap", cause="clock step")
        now_us = START_US + 5_000_000
        cause = "encoder too slow"
        accounts.advance(transaction, "gate", to_us=now_us, outcome="dropped", cause=cause, windows=7)
    watchman.look(11)
    assert watchman.monitor.losses["gate"]["encoder too slow"] == 7


def test_what_could_not_be_written_is_noticed_again(watchman: Watchman, monkeypatch: pytest.MonkeyPatch) -> None:
    from ovavel.runtime.errors import OutputError

    def full() -> Any:
        raise OutputError("the disk is full")

    write: Callable[[], Any] = watchman.store.write
    watchman.look()
    watchman.free = 0
    monkeypatch.setattr(watchman.store, "write", full)
    with pytest.raises(OutputError):
        watchman.look()
    monkeypatch.setattr(watchman.store, "write", write)
    watchman.look()
    assert watchman.sent() == [("disk low", 1)]
