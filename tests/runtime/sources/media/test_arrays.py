"""Pictures into arrays: threads and memory stay as they are, however many are converted."""

import gc
from pathlib import Path

import av
import pytest
from support.media_factory import make_clip

from ovavel.runtime.sources.media import decode
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.types import Frame

TASKS = Path("/proc/self/task")


def threads() -> int:
    return sum(1 for _ in TASKS.iterdir())


@pytest.mark.skipif(not TASKS.exists(), reason="threads are counted with Linux's /proc")
@pytest.mark.parametrize("decoder_threads", [1, 16])
def test_threads_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoder_threads: int) -> None:
    monkeypatch.setattr(decode, "DECODER_THREADS", decoder_threads)
    path = make_clip(tmp_path / "clip.mp4", duration_s=12, audio=False, codec="libx264", rotation=90)
    chunks = MediaSource(path).chunks()
    before = threads()
    counted = []
    gc.disable()  # nothing must wait for the search for cycles
    try:
        for chunk in chunks:
            if isinstance(chunk, Frame):
                chunk.image()
                counted.append(threads())
    finally:
        gc.enable()
    assert len(counted) == 300
    steady = counted[20:-20]  # the decoder's own threads come with its first packets and go with it
    assert max(steady) == min(steady)
    assert max(steady) <= before + decoder_threads + 1


def test_no_frame_waits_for_the_search_for_cycles(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4", duration_s=2, audio=False, rotation=90)
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for chunk in MediaSource(path).chunks():
            if isinstance(chunk, Frame):
                chunk.image()
        del chunk
        gc.collect()
        assert [thing for thing in gc.garbage if isinstance(thing, av.VideoFrame)] == []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
