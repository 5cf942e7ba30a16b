"""The capture process and what the service asks of it: stop, clips, leave."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.flashes import watch
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


def test_a_child_ends_with_the_service(start: Start) -> None:
    child = start()
    take(child, Captured)
    child.link.close()
    assert child.process.wait(60) == 0
