"""A camera as OpenCV opens it and a microphone (PulseAudio's null sink), watched by the whole service."""

from __future__ import annotations

import shutil
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from support import pulse
from support.flashes import watch
from support.http_station import JpegCamera
from support.service import CLIP, DEMO, check_assets, site, until

from ovavel.service.capture.feed import CameraState
from ovavel.service.config.changes import Changes
from ovavel.service.config.read import read_site
from ovavel.service.config.site import Camera, Clips
from ovavel.service.store import accounts, events
from ovavel.service.store.care.invariants import violations
from ovavel.service.store.database import Database, rows
from ovavel.service.watch.reload import Reloader
from ovavel.service.watch.service import Service

pytestmark = pytest.mark.timeout(400)  # each wait has 90 s

DRUM = "large drum beating quickly"
DRUMS_S = (29, 35)
"""Where the demo's clip shows and sounds it."""
STILL_S = 26.5
"""Where it shows nothing of its vocabulary."""
SLACK_S = 0.3
"""What is on its way when something changes."""


class Stage(JpegCamera):
    """A camera that shows a still or a drum, and a microphone that hears nothing or that drum."""

    def __init__(self, server: pulse.PulseServer, folder: Path) -> None:
        self.still, self.drum = frame_at(STILL_S), frame_at(DRUMS_S[0] + 1.5)
        self.shown = self.still
        self.sounds, drum = server, drums(folder / "drums.wav")
        server.control("set-sink-mute", "null", "1")
        self.playing = server.play(drum)
        super().__init__()

    def picture(self) -> NDArray[np.uint8]:
        return self.shown

    def play(self, on: bool) -> float:
        """Begin or end; returns how long the change took."""
        began_s = time.monotonic()
        self.shown = self.drum if on else self.still
        self.sounds.control("set-sink-mute", "null", str(int(not on)))
        return time.monotonic() - began_s

    def close(self) -> None:
        self.stop()
        self.playing.kill()
        self.playing.wait()


def frame_at(time_s: float) -> NDArray[np.uint8]:
    with av.open(CLIP) as container:
        return next(
            frame.to_ndarray(format="rgb24") for frame in container.decode(video=0) if float(frame.time or 0) >= time_s
        )


def drums(path: Path) -> Path:
    """Two minutes of drums as WAV."""
    with av.open(CLIP) as container:
        heard = np.concatenate([frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)])
        rate_hz = container.streams.audio[0].rate
    heard = np.tile(heard[DRUMS_S[0] * rate_hz : DRUMS_S[1] * rate_hz], 20)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes((heard * 32767).astype(np.int16).tobytes())
    return path


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pulse.PulseServer]:
    """A sound server that the capture processes of this test use."""
    folder = tmp_path / "sound"
    folder.mkdir()
    with pulse.null_sink(folder) as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def stage(server: pulse.PulseServer, tmp_path: Path) -> Iterator[Stage]:
    made = Stage(server, tmp_path)
    yield made
    made.close()


def decided(service: Service, camera: str) -> int:
    return sum(each.final for each in accounts.read_accounts(service.store.read, camera, from_us=0, to_us=2**62))


def is_whole(service: Service, camera: str) -> bool:
    """Whether its last three seconds were both seen and heard."""
    seconds = service.board.seconds(camera)[-3:]
    return len(seconds) == 3 and not any(each.missing for each in seconds)


def is_decided_without(service: Service, camera: str, sense: str) -> bool:
    """Whether a second that lacks `sense` alone is final."""
    return any(each.final and each.missing == (sense,) for each in service.board.seconds(camera))


def check(folder: Path) -> None:
    with Database.open(folder / "data", ballast_bytes=0) as store:
        assert violations(store.read) == []
        check_assets(store)


def test_what_is_seen_and_heard_is_an_event_with_a_clip_that_has_both(stage: Stage, tmp_path: Path) -> None:
    watched = site(tmp_path, Camera(id="one", source=stage.url, microphone="default"), clip=Clips(pre_s=3, post_s=2))
    with Service(watched) as service:
        service.start()
        until(lambda: is_whole(service, "one"))
        took_s = stage.play(True)
        until(lambda: [each for each in events.log_after(service.store.read, 0) if each.body.label == DRUM])
        before = decided(service, "one")
        until(lambda: decided(service, "one") > before + 3)
        stage.play(False)
        query = (
            "SELECT kind, path FROM asset JOIN event ON event.id = event_id WHERE label = ? AND asset.state = 'ready'"
        )
        until(lambda: len(rows(service.store.read, query, (DRUM,))) == 3)
        found: dict[str, Any] = dict(rows(service.store.read, query, (DRUM,)))
        assert found.keys() == {"snapshot", "sound", "clip"}
        clip = shutil.copy(tmp_path / "data" / found["clip"], tmp_path / "clip.mp4")
        assert service.feeds["one"].restarts == 0
    check(tmp_path)
    seen = watch(clip)
    assert (seen.codecs, seen.first_key) == (("h264", "aac"), True)
    assert seen.duration_s > 6
    apart_s = first_heard_s(clip) - first_seen_s(clip, stage)
    assert abs(apart_s) <= took_s + SLACK_S


def first_seen_s(clip: Path, stage: Stage) -> float:
    """When a clip first shows the drum."""
    with av.open(str(clip)) as container:
        for frame in container.decode(video=0):
            picture = frame.to_ndarray(format="rgb24").astype(np.float32)
            if np.abs(picture - stage.drum).mean() < np.abs(picture - stage.still).mean():
                assert frame.time is not None and frame.time > 0, "it began with the still"
                return float(frame.time)
    raise AssertionError("it never does")


def first_heard_s(clip: Path) -> float:
    """When a clip is first loud."""
    with av.open(str(clip)) as container:
        for frame in container.decode(audio=0):
            loud = np.nonzero(np.abs(frame.to_ndarray()).max(axis=0) > 0.05)[0]
            if len(loud):
                assert frame.time is not None and frame.time > 0, "it began with silence"
                return float(frame.time + loud[0] / frame.sample_rate)
    raise AssertionError("it never is")


def test_devices_that_are_unplugged_are_counted_and_come_back(
    stage: Stage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with Service(site(tmp_path, Camera(id="one", source=stage.url, microphone="default"))) as service:
        service.start()
        until(lambda: is_whole(service, "one"))
        pid, control = service.feeds["one"].pid, stage.sounds.control

        control("unload-module", "module-null-sink")
        until(lambda: service.board.gap_s("one").get(("audio", "microphone lost"), 0) > 2)
        until(lambda: is_decided_without(service, "one", "audio"))
        feed = service.feeds["one"]
        until(lambda: (feed.state, feed.lost, feed.why) == (CameraState.WATCHING, *["microphone lost"] * 2))
        control("load-module", "module-null-sink", "sink_name=null", "rate=48000")
        until(lambda: is_whole(service, "one"))

        stage.stop()
        until(lambda: service.board.gap_s("one").get(("vision", "camera lost"), 0) > 2)
        until(lambda: is_decided_without(service, "one", "vision"))
        until(lambda: (feed.state, feed.lost, feed.why) == (CameraState.OFFLINE, *["camera lost"] * 2))
        again = JpegCamera(port=stage.port)
        try:
            until(lambda: is_whole(service, "one"))
            until(lambda: (feed.state, feed.lost) == (CameraState.WATCHING, ""))
        finally:
            again.stop()
        news = service.board.notices("one")
        for device in ("microphone default", f"camera {stage.url}"):
            assert any(each.startswith(f"{device} is lost (") for each in news)
            assert f"{device} is back" in news
            assert f"{device} is back" in caplog.messages
        assert (service.feeds["one"].pid, service.feeds["one"].restarts) == (pid, 0)
    check(tmp_path)


def write(folder: Path, *cameras: str) -> Path:
    path = folder / "site.toml"
    lines = [f'bundle = "{DEMO / "bundle"}"', 'data = "data"', "threads = 1", 'listen = "127.0.0.1:0"']
    for each in cameras:
        lines += ["[[camera]]", each]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def is_offline(store: Database, camera: str) -> bool:
    """Whether the accounts say so."""
    hours = accounts.read_accounts(store.read, camera, from_us=0, to_us=2**62)
    return any("camera offline" in each.gap_us for each in hours)


def test_devices_that_are_not_there_are_a_state_and_no_error(stage: Stage, tmp_path: Path) -> None:
    other = f'id = "other"\nsource = "{CLIP}"\nloop = true'
    one = f'id = "one"\nsource = "{stage.url}"\nmicrophone = "nobody has this one"'
    two = 'id = "two"\nsource = "/dev/video99"\nmicrophone = "default"'
    path = write(tmp_path, other, one, two)
    with Service(read_site(path)) as service:
        reloader = Reloader(service, path)
        service.start()
        until(lambda: {service.feeds[each].state for each in ("one", "two")} == {CameraState.OFFLINE})
        assert "there is no microphone 'nobody has this one'. Microphones of this machine: " in service.feeds["one"].why
        assert "there is no /dev/video99" in service.feeds["two"].why
        until(lambda: is_whole(service, "other"))
        pid = service.feeds["other"].pid

        write(tmp_path, other, one.replace("nobody has this one", "default"), two)
        assert reloader.reload() == Changes(restarted=("one",))
        until(lambda: is_whole(service, "one"))
        assert service.feeds["other"].pid == pid
        until(lambda: is_offline(service.store, "two"))
        reloader.stop()
    check(tmp_path)
