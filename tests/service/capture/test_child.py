"""The capture process and what the service asks of it: stop, clips, leave."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support import pulse
from support.flashes import watch
from support.http_station import JpegCamera
from support.service import CLIP, DEMO

from ovavel.runtime.bundle.bundle import Bundle
from ovavel.service.capture.messages import (
    Begin,
    Captured,
    Clip,
    Cut,
    Finished,
    FromChild,
    Leave,
    Opened,
    Recording,
    Stop,
)
from ovavel.service.capture.spectrum import BANDS, COLUMNS
from ovavel.service.link import Child, LinkClosed

pytestmark = pytest.mark.timeout(300)  # each wait has 90 s

NUMBER = 7
RECORDING = Recording(ring_bytes=1 << 26, ring_s=120.0, encode=False, sound=True)
Start = Callable[..., Child]


@pytest.fixture
def start() -> Iterator[Start]:
    children: list[Child] = []

    def started(**changes: Any) -> Child:
        facts = {"source": CLIP, "loop": True, "child": NUMBER, "recording": RECORDING, **changes}
        child = Child("ovavel.service.capture.child")
        children.append(child)
        child.link.send(Begin(encoders=Bundle.open(DEMO / "bundle").manifest.encoders, **facts))
        return child

    yield started
    for child in children:
        child.stop()


def take(child: Child, kind: type) -> Any:
    """The next message of this kind."""
    while not isinstance(message := child.link.receive(FromChild, timeout_s=90), kind):
        pass
    return message


def test_clips_are_cut_after_the_source_was_stopped(start: Start, tmp_path: Path) -> None:
    """So the last events of a service that ends have clips, too."""
    child = start()
    opened = take(child, Opened)
    assert opened.child == NUMBER
    while take(child, Captured).index < 3:
        pass
    child.link.send(Stop())
    assert take(child, Finished).error is None
    path = tmp_path / "media" / "clip.part"
    child.link.send(Cut(event="e1", child=NUMBER, path=str(path), from_s=1, to_s=1000))
    child.link.send(Cut(event="e2", child=NUMBER - 1, path=str(tmp_path / "x"), from_s=1, to_s=2))
    child.link.send(Leave(child=NUMBER - 1))
    child.link.send(Leave(child=NUMBER))
    clips = {each.event: each for each in (take(child, Clip), take(child, Clip))}
    assert clips["e1"].error == ""
    assert clips["e2"].error != "", "another child had that"
    assert not (tmp_path / "x").exists()
    assert watch(path).codecs == ("h264", "aac")
    assert path.stat().st_size == clips["e1"].bytes
    with pytest.raises(LinkClosed):
        take(child, Clip)
    assert child.process.wait(60) == 0


def test_windows_carry_a_spectrogram_where_it_is_kept(start: Start) -> None:
    child = start(spectrum=True)
    assert len(take(child, Captured).spectrum) == BANDS * COLUMNS
    child = start()
    assert take(child, Captured).spectrum is None


def test_sound_that_is_off_is_not_read(start: Start) -> None:
    child = start(sound=False, spectrum=True)
    assert take(child, Opened).senses == ("vision",)
    window = take(child, Captured)
    assert (window.sound, window.spectrum) == (None, None)


@pytest.fixture
def camera() -> Iterator[JpegCamera]:
    made = JpegCamera()
    yield made
    made.stop()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pulse.PulseServer]:
    """A sound server that children use, with a tone in it."""
    with pulse.null_sink(tmp_path) as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        running.control("load-module", "module-sine", "sink=null", "frequency=440")
        yield running


def cut(child: Child, folder: Path, *, after: int) -> tuple[Clip, Path]:
    """A clip of the first seconds, once so many windows have come."""
    while take(child, Captured).index < after:
        pass
    path = folder / "clip.mp4"
    child.link.send(Cut(event="e", child=NUMBER, path=str(path), from_s=0, to_s=after))
    return take(child, Clip), path


def test_a_microphone_is_heard_beside_a_camera_and_is_in_its_clips(
    start: Start, camera: JpegCamera, server: pulse.PulseServer, tmp_path: Path
) -> None:
    child = start(source=camera.url, microphone="default", loop=False, spectrum=True)
    assert take(child, Opened).senses == ("audio", "vision")
    clip, path = cut(child, tmp_path, after=4)
    assert (clip.error, clip.codec, clip.has_audio) == ("", "h264", True)
    assert watch(path).codecs == ("h264", "aac")
    window = take(child, Captured)
    assert window.frame is not None and window.sound is not None and window.spectrum is not None


def test_sound_of_a_microphone_that_is_not_kept_is_heard_and_in_no_clip(
    start: Start, camera: JpegCamera, server: pulse.PulseServer, tmp_path: Path
) -> None:
    quiet = msgspec.structs.replace(RECORDING, sound=False)
    child = start(source=camera.url, microphone="default", loop=False, recording=quiet)
    clip, path = cut(child, tmp_path, after=3)
    assert (clip.error, clip.has_audio, watch(path).codecs) == ("", False, ("h264",))
    window = take(child, Captured)
    assert (window.sound is not None, window.spectrum) == (True, None)


def test_a_microphone_is_not_opened_where_sound_is_off(start: Start, camera: JpegCamera) -> None:
    child = start(source=camera.url, microphone="there is no such thing", loop=False, sound=False)
    assert take(child, Opened).senses == ("vision",)
    assert take(child, Captured).frame is not None


def test_what_is_masked_is_in_no_clip_of_a_camera_without_packets(
    start: Start, camera: JpegCamera, tmp_path: Path
) -> None:
    left = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))
    camera.change((255, 255, 255))
    child = start(source=camera.url, microphone="default", loop=False, sound=False, masks=(left,))
    clip, path = cut(child, tmp_path, after=3)
    assert clip.codec == "h264"
    mean = watch(path).mean
    assert mean[:, :72].max() < 24 < 200 < mean[:, 88:].min()


@pytest.mark.parametrize(
    ("leads_to", "facts", "says"),
    [
        ("0", {}, "has no sound of its own"),
        ("/dev/video99", {"sound": False}, "there is no /dev/video99"),
        (CLIP, {"microphone": "default"}, "a file brings its own sound"),
        ("ftp://camera/1", {"microphone": "default"}, "addresses are not supported"),
    ],
)
def test_what_a_variable_leads_to_is_held_against_the_same_rules(
    start: Start, monkeypatch: pytest.MonkeyPatch, leads_to: str, facts: dict[str, Any], says: str
) -> None:
    monkeypatch.setenv("GATE", leads_to)
    error = take(start(source="env:GATE", loop=False, **facts), Finished).error
    assert error is not None and says in error


def test_a_child_ends_with_the_service(start: Start) -> None:
    child = start()
    take(child, Captured)
    child.link.close()
    assert child.process.wait(60) == 0
