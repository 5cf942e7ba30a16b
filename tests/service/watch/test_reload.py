"""A site file that is read again while the service runs: all of it or nothing, and no more than what is different."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.media_factory import make_clip
from support.running_site import decided, open_events, running, runs
from support.service import CLIP, DEMO, until

from ovavel.runtime.errors import DeviceError, InputError, OutputError
from ovavel.service.capture.feed import CameraState
from ovavel.service.config.changes import Changes
from ovavel.service.encoding.capacity import Speeds
from ovavel.service.store import accounts
from ovavel.service.store.database import open_readonly, rows
from ovavel.service.store.incidents import list_incidents

pytestmark = pytest.mark.timeout(300)  # each wait has 90 s

CAMERA = f'source = "{CLIP}"\nloop = true'
OVAVEL = (sys.executable, "-c", "from ovavel.runtime.cli import main; raise SystemExit(main())")


def write(folder: Path, cameras: dict[str, str], *lines: str, more: str = "") -> Path:
    """A site file; `cameras` has what is said of each, besides its id."""
    text = [f'bundle = "{DEMO / "bundle"}"', 'data = "data"', "threads = 1", 'listen = "127.0.0.1:0"', *lines]
    for camera, says in cameras.items():
        text += ["[[camera]]", f'id = "{camera}"', says]
    path = folder / "site.toml"
    path.write_text("\n".join([*text, more]), encoding="utf-8")
    return path


def test_only_what_is_different_is_interrupted(tmp_path: Path) -> None:
    path = write(tmp_path, {"stays": CAMERA, "changes": CAMERA, "goes": CAMERA})
    with running(path) as (service, reloader):
        for camera in ("stays", "changes", "goes"):
            until(lambda camera=camera: decided(service, camera) > 2)  # type: ignore[misc]
        until(lambda: open_events(service, "goes"))
        (watched,) = runs(service, "stays")
        pid = service.feeds["stays"].pid

        cameras = {"stays": f'{CAMERA}\nname = "Yard"', "changes": f"{CAMERA}\nlag = 3", "new": CAMERA}
        sink = '[[sink]]\nkind = "jsonl"\nid = "file"\npath = "events.jsonl"\nwhen = "early"\ncameras = ["stays"]'
        write(tmp_path, cameras, 'tz = "Asia/Tokyo"', more=sink)
        expected = Changes(
            added=("new",),
            removed=("goes",),
            restarted=("changes",),
            shown=("stays",),
            opened=("file",),
            fields=("tz",),
        )
        assert reloader.check() == expected
        assert reloader.reload() == expected
        assert reloader.reload() == Changes(), "it is in force"
        assert list(service.feeds) == ["stays", "changes", "new"]

        until(lambda: len(runs(service, "changes")) == 2)
        assert runs(service, "changes")[0][1] == "configuration changed"
        until(lambda: runs(service, "new"))
        until(lambda: rows(service.store.read, "SELECT 1 FROM camera WHERE id = 'goes' AND removed_us NOTNULL"))
        assert runs(service, "goes")[0][1] == "camera removed"
        ended = rows(
            service.store.read, "SELECT DISTINCT state, end_cause FROM event WHERE end_cause = 'camera removed'"
        )
        assert ended == [("ended", "camera removed")]
        assert not open_events(service, "goes")

        # The camera of which only the name has changed: the same process, the same run, no second lost.
        assert (service.feeds["stays"].pid, runs(service, "stays")) == (pid, [watched])
        assert service.feeds["stays"].camera.name == "Yard"
        facts = rows(service.store.read, "SELECT name, tz FROM camera WHERE id = 'stays'")
        assert facts == [("Yard", "Asia/Tokyo")]
        log = tmp_path / "events.jsonl"
        until(lambda: log.exists() and '"camera":"stays"' in log.read_text())  # its run reports to the new sink
        for account in accounts.read_accounts(service.store.read, "stays", from_us=0, to_us=2**62):
            assert account.gap_us.keys() <= {"starting"}
            assert account.dropped.keys() <= {"encoder too slow"}, "which is another matter"

        # And back: the camera has its history, and was off meanwhile.
        write(tmp_path, {"goes": CAMERA, "stays": CAMERA})
        changes = reloader.reload()
        assert (changes.added, changes.removed, changes.closed) == (("goes",), ("changes", "new"), ("file",))
        until(lambda: len(runs(service, "goes")) == 2)
        until(lambda: len(service.board.seconds("goes")) > 2)
        assert sum(each.off_us for each in accounts.read_accounts(service.store.read, "goes", from_us=0, to_us=2**62))
        assert service.deliveries.states == []
        assert service.failure is None


def test_what_is_broken_changes_nothing_and_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, {"one": CAMERA})
    good = path.read_text()
    with running(path) as (service, reloader):
        until(lambda: runs(service, "one"))
        before, feeds = service.site, service.feeds
        webhook = '[[sink]]\nkind = "webhook"\nid = "hook"\naddress = "env:NO_SUCH_VARIABLE"\nsecret = "x"'
        more = good + f'\n[[camera]]\nid = "two"\n{CAMERA}\n'
        broken = {
            good[: len(good) // 2]: "TOML|missing",  # half-written
            "": "missing required field",
            good + "\nx = 1": "unknown field `x`",
            more + "[[camera]]\nid = 'two'\nsource = 'x'": "2 cameras are called 'two'",
            more + webhook: "NO_SUCH_VARIABLE",
            more.replace("threads = 1", "threads = 2"): "threads cannot change .*restart the service",
        }
        for text, why in broken.items():
            path.write_text(text)
            for act in (reloader.check, reloader.reload):
                with pytest.raises(Exception, match=why) as caught:
                    act()
                assert "\n" not in str(caught.value)
            assert (service.site, service.feeds) == (before, feeds)
            assert service.rejected
        path.write_text(more)
        monkeypatch.setattr(
            service, "speeds", Speeds(window_s=1, sound_s=1, picture_s=1, lone_sound_s=1, lone_picture_s=1)
        )
        path.write_text('capacity = "refuse"\n' + more)
        with pytest.raises(DeviceError, match="the cameras bring 2"):
            reloader.reload()
        monkeypatch.undo()
        path.write_text(more)
        with monkeypatch.context() as patch:

            def full(*_: object, **__: object) -> None:
                raise OutputError("the disk is full")

            patch.setattr("ovavel.service.watch.reload.add_camera", full)
            with pytest.raises(OutputError):
                reloader.reload()
        assert (service.site, service.feeds) == (before, feeds)
        path.unlink()
        with pytest.raises(InputError, match="cannot be read"):
            reloader.reload()
        path.write_text(good)
        assert reloader.reload() == Changes()
        assert service.rejected == ""
        assert len(runs(service, "one")) == 1


def test_a_camera_that_is_not_watched_is_removed_or_changed_all_the_same(tmp_path: Path) -> None:
    gone, short = tmp_path / "none.mp4", tmp_path / "short.mp4"
    make_clip(short, duration_s=3, fps=5)
    says = {"off": CAMERA, "lost": f'source = "{gone}"', "over": f'source = "{short}"', "stays": CAMERA}
    path = write(tmp_path, says)
    with running(path) as (service, reloader):
        until(lambda: decided(service, "off") > 0)
        service.enable("off", False)
        until(lambda: service.feeds["off"].state is CameraState.OFF)
        until(lambda: service.feeds["lost"].state is CameraState.OFFLINE)
        until(lambda: service.feeds["over"].state is CameraState.ENDED)
        write(tmp_path, {**says, "over": CAMERA, "lost": CAMERA, "off": f"{CAMERA}\nlag = 3"})
        assert reloader.reload().restarted == ("off", "lost", "over")
        until(lambda: service.feeds["lost"].state is CameraState.WATCHING)
        until(lambda: service.feeds["over"].state is CameraState.WATCHING)
        assert service.feeds["off"].state is CameraState.OFF
        write(tmp_path, says)
        reloader.reload()
        until(lambda: service.feeds["lost"].state is CameraState.OFFLINE)
        write(tmp_path, {"stays": CAMERA})
        assert reloader.reload().removed == ("off", "lost", "over")
        query = "SELECT id FROM camera WHERE removed_us IS NULL"
        until(lambda: rows(service.store.read, query) == [("stays",)])
        assert service.failure is None


def test_an_incident_of_a_camera_ends_with_it(tmp_path: Path) -> None:
    path = write(tmp_path, {"lost": f'source = "{tmp_path / "none.mp4"}"', "stays": CAMERA})
    with running(path) as (service, reloader):
        until(lambda: service.feeds["lost"].restarts > 0)
        service.monitor.look(now_s=1e6, now_us=1)
        service.monitor.look(now_s=2e6, now_us=2)
        assert any(each.kind == "begin" for each in list_incidents(service.store.read))
        write(tmp_path, {"stays": CAMERA})
        reloader.reload()
        until(lambda: not any(each.kind == "begin" for each in list_incidents(service.store.read)))


def test_a_signal_reads_it_again_and_two_at_once_do_no_harm(tmp_path: Path) -> None:
    path = write(tmp_path, {"one": CAMERA})
    store, log = tmp_path / "data" / "ovavel.sqlite3", tmp_path / "log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [*OVAVEL, "serve", str(path)], stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ
        )
    with process:
        try:
            assert process.stdout
            assert process.stdout.readline().startswith("watching")
            path.write_text("[[camera")
            process.send_signal(signal.SIGHUP)
            until(lambda: "the one before it stays" in log.read_text())
            write(tmp_path, {"one": CAMERA, "two": CAMERA})
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGHUP)
            until(lambda: "cameras added: two" in log.read_text())
            until(lambda: rows(open_readonly(store), "SELECT 1 FROM run WHERE camera_id = 'two'"))
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert log.read_text().count("cameras added: two") == 1
