"""Timestamps that jump, pause, run backwards or end early."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from support.media_factory import colour_of_second, make_clip, tone
from support.runtime.played import MP2_SOUND, Played


@pytest.mark.parametrize("step_s", [1e6, 40.0])
def test_a_splice_is_declared_and_keeps_sound_and_picture_together(tmp_path: Path, step_s: float) -> None:
    def spliced(time_s: float) -> float:
        return time_s + 2 + (step_s if time_s >= 2 else 0)

    path = make_clip(tmp_path / "clip.mkv", duration_s=4, video_stamps=spliced, audio_stamps=spliced)
    played = Played(path)
    played.check_clock()
    assert {(gap.sense, gap.cause) for gap in played.gaps} >= {
        ("vision", "timestamp jump"),
        ("audio", "timestamp jump"),
    }
    assert sum(gap.duration_s for gap in played.gaps) < 3
    assert any("jump" in text for text in played.reported)
    assert [frame.time_s for frame in played.frames] == pytest.approx([index / 25 for index in range(100)], abs=0.13)
    assert played.blocks[-1].time_s == pytest.approx(3.97, abs=0.13)


def test_timestamps_that_run_backwards(tmp_path: Path) -> None:
    parts = [make_clip(tmp_path / f"{n}.ts", duration_s=2, codec="mpeg2video", **MP2_SOUND) for n in range(2)]
    path = tmp_path / "clip.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    played = Played(path)
    played.check_clock()
    assert {(gap.sense, gap.cause) for gap in played.gaps} >= {
        ("vision", "timestamp jump"),
        ("audio", "timestamp jump"),
    }
    assert played.frames[-1].time_s == pytest.approx(3.96, abs=0.2)
    assert played.blocks[-1].time_s == pytest.approx(3.95, abs=0.2)
    # sound and picture of the second part are still together
    again = [
        frame.time_s
        for frame in played.frames[50:]
        if np.abs(frame.image()[60, 80] - 0.0 - colour_of_second(1)).max() < 20
    ]
    assert again[0] == pytest.approx(3.0, abs=0.2)


def test_a_pause_in_the_timestamps_is_kept_and_declared(tmp_path: Path) -> None:
    def paused(time_s: float) -> float:
        return time_s + (3 if time_s >= 2 else 0)

    played = Played(make_clip(tmp_path / "clip.mkv", duration_s=4, video_stamps=paused, audio_stamps=paused))
    played.check_clock()
    for sense in ("vision", "audio"):
        gaps = [gap for gap in played.gaps if gap.sense == sense]
        assert {gap.cause for gap in gaps} == {"no video" if sense == "vision" else "no audio"}
        assert gaps[0].start_s == pytest.approx(2.0, abs=0.1)
        assert sum(gap.duration_s for gap in gaps) == pytest.approx(3.0, abs=0.1)
    assert played.frames[-1].time_s == pytest.approx(6.96, abs=0.01)


def test_sound_that_ends_early_is_declared(tmp_path: Path) -> None:
    played = Played(make_clip(tmp_path / "clip.mp4", duration_s=14, fps=5, waveform=tone(1, 16_000)))
    missing = [gap for gap in played.gaps if gap.cause == "no audio"]
    assert missing[0].start_s == pytest.approx(1, abs=0.1)
    assert missing[-1].start_s + missing[-1].duration_s == pytest.approx(14, abs=0.2)
    for before, after in itertools.pairwise(missing):
        assert after.start_s == pytest.approx(before.start_s + before.duration_s)
