"""When a recording began, as its file says."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import av
import pytest
from support.demo_copies import CLIP

from ovavel.runtime.errors import MediaError
from ovavel.runtime.sources.creation import creation_time


def stamped(path: Path, text: str) -> Path:
    with av.open(str(CLIP)) as media, av.open(str(path), "w") as copy:
        copy.metadata["creation_time"] = text
        streams = {stream.index: copy.add_stream_from_template(stream) for stream in media.streams}
        for packet in media.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                copy.mux(packet)
    return path


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
def test_the_time_in_the_file(tmp_path: Path, suffix: str) -> None:
    file = stamped(tmp_path / f"clip.{suffix}", "2026-05-01T23:59:50.000000Z")
    assert creation_time(file) == datetime(2026, 5, 1, 23, 59, 50, tzinfo=UTC)


def test_a_file_without_one() -> None:
    assert creation_time(CLIP) is None


def test_a_camera_whose_clock_was_never_set(tmp_path: Path) -> None:
    assert creation_time(stamped(tmp_path / "clip.mkv", "1970-01-01T00:01:00Z")) is None


def test_what_is_no_recording(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(MediaError):
        creation_time(tmp_path / "notes.txt")
