"""Damage moves nothing else and is counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.demo_copies import EVENTS, encode_clip
from support.media_factory import make_clip, tone
from support.runtime.everyday import Answer, watch

from ovavel.runtime.sources.media import decode


@pytest.mark.parametrize("suffix", ["mp4", "ts", "mkv", "flv"])
@pytest.mark.parametrize("threads", [1, 16])
def test_a_damaged_stretch_moves_nothing_else(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    localize: Callable[[Path], Answer],
    suffix: str,
    threads: int,
) -> None:
    monkeypatch.setattr(decode, "DECODER_THREADS", threads)
    path = encode_clip(tmp_path / f"clip.{suffix}")
    content = bytearray(path.read_bytes())
    start = len(content) * 52 // 100
    content[start : start + 30_000] = np.random.default_rng(0).integers(0, 256, 30_000, np.uint8).tobytes()
    path.write_bytes(content)
    answer = localize(path)
    assert len(answer.document.segments) == 40
    assert answer.document.duration_s == pytest.approx(40, abs=0.1)
    assert [event for event in answer.events if event[0] > 28] == EVENTS[4:]
    assert [event for event in answer.events if event[1] < 18] == EVENTS[:2]
    damaged = [gap for gap in answer.document.gaps if gap.cause != "timestamp jump"]
    assert {gap.sense for gap in damaged} == {"vision", "audio"}
    assert all(gap.start_s > 17 and gap.start_s + gap.duration_s < 28 for gap in damaged)
    assert answer.lost_s("vision") > 0.5
    assert answer.lost_s("audio") > 0.5


def test_video_that_is_damaged_throughout(tmp_path: Path, localize: Callable[[Path], Answer]) -> None:
    path = make_clip(tmp_path / "clip.mkv", codec="ffv1", audio_codec="pcm_s16le", audio_format="s16",
                     waveform=(tone(3, 16_000) * 30_000).astype(np.int16))  # fmt: skip
    whole = watch(path)
    assert len(whole.windows) == 3
    import av

    broken = tmp_path / "broken.mkv"
    with av.open(str(path)) as source, av.open(str(broken), "w") as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.size:
                copy = packet
                if packet.stream.type == "video":
                    copy = av.Packet(bytes(packet.size))
                    copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
                copy.stream = streams[packet.stream.index]
                out.mux(copy)
    answer = localize(broken)
    assert answer.code == 1
    assert "nothing of the video" in answer.out
    assert answer.lost_s("vision", "damaged video") == pytest.approx(3, abs=0.1)


def test_a_damaged_size_is_not_a_lack_of_memory(tmp_path: Path) -> None:
    movflags = {"movflags": "frag_keyframe+empty_moov", "frag_duration": "1000000"}
    path = make_clip(tmp_path / "clip.mp4", duration_s=6, codec="libx264", options=movflags)
    content = bytearray(path.read_bytes())
    sizes = content.index(b"trun", len(content) // 2) + 24
    content[sizes : sizes + 40] = b"\xf0" * 40
    path.write_bytes(content)
    run = watch(path)
    assert 2 < run.source.duration_s < 6
    assert run.reported == [f"{path} is truncated: it ends at {run.source.duration_s:.3f} s"]
