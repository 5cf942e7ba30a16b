"""A whole site on the demo's clip, with real processes; and what happens when one of them dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from support.media_factory import make_clip
from support.service import CLIP, check_assets, news, run_facts, site, until

from ovavel.runtime.errors import DeviceError
from ovavel.service.config.site import Camera
from ovavel.service.encoding.capacity import Speeds
from ovavel.service.store import accounts, cameras, events
from ovavel.service.store.care import recovery
from ovavel.service.store.database import Database, open_readonly, rows
from ovavel.service.watch.service import Service

pytestmark = pytest.mark.timeout(300)  # each wait has 90 s

SERVE = """
import sys, time
import msgspec
from ovavel.service.config.site import Site
from ovavel.service.watch.service import Service
service = Service(msgspec.json.decode(sys.argv[1], type=Site))
service.start()
time.sleep(3600)
"""


def decided_seconds(store: Database) -> int:
    return sum(each.final for each in accounts.read_accounts(store.read, "one", from_us=0, to_us=2**62))


def check(folder: Path) -> None:
    """What holds whatever happened."""
    with Database.open(folder / "data", ballast_bytes=0) as store:
        check_assets(store)
        log = events.log_after(store.read, 0, limit=100_000)
        assert [each.seq for each in log] == list(range(1, len(log) + 1))
        for event in {each.body.id for each in log}:
            kinds = [each.body.kind for each in log if each.body.id == event]
            assert kinds[0] == "start"
            assert kinds[-1] in ("end", "retract")
        assert not rows(store.read, "SELECT 1 FROM run WHERE ended_us IS NULL")
        for camera, created_us, accounted_us in rows(store.read, "SELECT id, created_us, accounted_us FROM camera"):
            found = accounts.read_accounts(store.read, camera, from_us=0, to_us=accounted_us + 1)
            assert sum(each.total_us for each in found) == accounted_us - created_us


def test_cameras_are_watched_and_one_that_is_offline_hinders_nobody(tmp_path: Path) -> None:
    watched = (
        Camera(id="one", source=CLIP, loop=True),
        Camera(id="two", source=CLIP, loop=True),
        Camera(id="dead", source=str(tmp_path / "none.mp4")),
    )
    with Service(site(tmp_path, *watched)) as service:
        service.start()
        until(lambda: len(events.log_after(service.store.read, 0)) >= 4)
        until(lambda: service.feeds["dead"].state == "offline")
        assert "none.mp4" in service.feeds["dead"].why
        until(lambda: service.board.picture("one"))
        assert service.failure is None
    check(tmp_path)
    with Database.open(tmp_path / "data", ballast_bytes=0) as store:
        hours = accounts.read_accounts(store.read, "dead", from_us=0, to_us=2**62)  # two where one began meanwhile
        causes = {cause for each in hours for cause in each.gap_us}
        assert "camera offline" in causes, "a camera that is not there has an account too"
        assert causes <= {"starting", "camera offline"}


def test_a_file_is_played_once_unless_it_loops(tmp_path: Path) -> None:
    make_clip(tmp_path / "short.mp4", duration_s=3, fps=5)
    with Service(site(tmp_path, Camera(id="one", source=str(tmp_path / "short.mp4")))) as service:
        service.start()
        until(lambda: service.feeds["one"].state == "ended")
        until(lambda: rows(service.store.read, "SELECT 1 FROM run WHERE ended_us IS NOT NULL"))
        assert service.feeds["one"].restarts == 1
    check(tmp_path)
    with Database.open(tmp_path / "data", ballast_bytes=0) as store:
        assert rows(store.read, "SELECT end_cause FROM run") == [("end of media",)]
        assert decided_seconds(store) == 3


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
def test_a_capture_process_that_dies_is_started_again(tmp_path: Path, how: signal.Signals) -> None:
    with Service(site(tmp_path, Camera(id="one", source=CLIP, loop=True))) as service:
        service.start()
        until(lambda: len(service.board.seconds("one")) >= 3)
        pid = service.feeds["one"].pid
        assert pid
        os.kill(pid, how)
        until(lambda: len(rows(service.store.read, "SELECT 1 FROM run")) == 2)
        (cause,) = rows(service.store.read, "SELECT end_cause FROM run WHERE ended_us IS NOT NULL")
        assert cause == ("capture died",)
    check(tmp_path)


def test_an_encoder_that_dies_is_started_again(tmp_path: Path) -> None:
    with Service(site(tmp_path, Camera(id="one", source=CLIP, loop=True))) as service:
        service.start()
        until(lambda: len(service.board.seconds("one")) >= 3)
        assert service.encoder.pid
        os.kill(service.encoder.pid, signal.SIGKILL)
        until(lambda: service.encoder.restarts == 1)
        decided = decided_seconds(service.store)
        until(lambda: decided_seconds(service.store) > decided + 5)
        assert service.failure is None
    check(tmp_path)


def test_a_service_that_was_killed_is_recovered(tmp_path: Path) -> None:
    watched = site(tmp_path, Camera(id="one", source=CLIP, loop=True))
    first = subprocess.Popen([sys.executable, "-c", SERVE, msgspec.json.encode(watched).decode()])
    path = tmp_path / "data" / "ovavel.sqlite3"
    try:
        until(path.exists)
        until(lambda: rows(open_readonly(path), "SELECT 1 FROM sqlite_schema WHERE name = 'event_log'"))
        until(lambda: len(events.log_after(open_readonly(path), 0)) >= 2)
    finally:
        first.kill()
        first.wait()
    with Service(watched) as service:
        assert service.recovered.runs == 1
    check(tmp_path)


def test_capacity_is_measured_and_a_camera_can_be_looked_at_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = (Camera(id="one", source=CLIP, loop=True, every_s=2), Camera(id="two", source=CLIP, loop=True))
    with Service(site(tmp_path, *watched)) as service:
        assert service.speeds.windows_per_s > 0
        assert service.demand == 1.5
        service.start()
        until(lambda: decided_seconds(service.store) > 3)
    check(tmp_path)
    with Database.open(tmp_path / "data", ballast_bytes=0) as store:
        found = [each.dropped for each in accounts.read_accounts(store.read, "one", from_us=0, to_us=2**62)]
        assert sum(each.get("not looked at", 0) for each in found) >= 3
        found = [each.dropped for each in accounts.read_accounts(store.read, "two", from_us=0, to_us=2**62)]
        assert not any(each.get("not looked at") for each in found)
    speeds = Speeds(window_s=1 / 1.2, sound_s=0.1, picture_s=0.7, lone_sound_s=0.1, lone_picture_s=0.7)
    monkeypatch.setattr("ovavel.service.watch.service.measure_speeds", lambda *_: speeds)
    with pytest.raises(DeviceError, match=r"manages 1.2 windows a second, and the cameras bring 1.5: look less often"):
        Service(site(tmp_path, *watched, capacity="refuse"))
    Service(site(tmp_path, *watched)).stop()


def test_an_event_that_ends_with_its_camera_is_shown_at_once(tmp_path: Path) -> None:
    with Service(site(tmp_path, Camera(id="one", source=CLIP))) as service:
        with service.store.write() as transaction:
            cameras.open_run(transaction, run_facts("run-1", "one"))
            events.record(transaction, news("start"), event_id="e1", now_us=0, sinks=())
        version = service.board.version
        with service.store.write() as transaction:
            recovery.end_run(transaction, "run-1", cause="encoder failed", now_us=0, sinks=())
        assert service.board.version > version, "readers of the stream look"
