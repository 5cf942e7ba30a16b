"""What OV-AVEBench's own media hold besides whole videos: each is prepared, or left out and counted by its cause."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.media_factory import make_clip, plain_picture
from support.ovavebench_factory import make_bench

from ovavel.eval.datasets.clip_media import read_frames
from ovavel.eval.datasets.ovavebench import OVAVEBench
from ovavel.runtime.cli import main
from ovavel.training.prepare import prepare


def test_empty_short_and_side_files_are_prepared_or_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_bench(tmp_path / "raw", seen=("dog barking",), unseen=(), media=False, clips=1)
    train, val, test = OVAVEBench.open(root).clips
    videos, out = root / "videos", tmp_path / "out"
    videos.mkdir()
    (videos / f"{train.name}.mp4").touch()
    make_clip(videos / f"{val.name}.mp4", duration_s=1.2, fps=10, picture=lambda t: plain_picture(t, 48, 32))
    make_clip(videos / f"{test.name}.mp4", duration_s=10.2, fps=5, picture=lambda t: plain_picture(t, 48, 32))
    shutil.copyfile(videos / f"{test.name}.mp4", videos / f"._{train.name}.mp4")  # of this one, nothing is read
    (videos / f"._{val.name}.mp4").write_bytes(b"\0\5\x16\7" * 1024)
    report, _ = prepare(videos, out, root / "annotations", workers=1)
    assert [(each.name, each.kind) for each in report.failures] == [(train.name, "video empty")]
    assert "0 bytes" in report.failures[0].message
    assert report.side_files == 2
    assert {split: (each.prepared, each.short) for split, each in report.splits.items()} == {
        "train": (0, 0),
        "val": (1, 1),
        "test": (1, 0),
    }
    padded = {(loss.sense, loss.cause, loss.duration_s) for loss in report.losses}
    assert padded == {("vision", "end of media", 9.0), ("audio", "end of media", 9.0)}
    media = OVAVEBench.open(out).media(val)
    assert all(np.array_equal(frame, media.frames[0]) for frame in media.frames[1:])
    assert media.waveform.shape[1] == 160_000
    assert np.abs(media.waveform[:, :16_000]).max() > 0.1
    assert not media.waveform[:, 16_000:].any()
    command = ["train", "prepare", "--videos", str(videos), "--annotations", str(root / "annotations")]
    assert main([*command, "--out", str(out), "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    assert "2 side files of videos (._*) were not read" in printed
    assert "shorter than 10 s (padded)" in printed
    assert "video empty" in printed


@pytest.mark.parametrize("suffix", ["jpg", "png", "PNG", "jpeg"])
def test_frames_may_be_of_any_usual_format_with_side_files_beside_them(tmp_path: Path, suffix: str) -> None:
    for second in range(10):
        image = Image.new("RGB", (32, 24), (20 * second, 0, 0))
        image.save(tmp_path / f"{second}.{suffix}")
        (tmp_path / f"._{second}.{suffix}").write_bytes(b"\0\5\x16\7")
    frames = read_frames(tmp_path)
    assert [round(float(frame[..., 0].mean()), -1) for frame in frames] == [20 * second for second in range(10)]
