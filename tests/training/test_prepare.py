"""Preparing raw videos: aligned frames and sounds, reported failures, and the same result after any interruption."""

from __future__ import annotations

import fcntl
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
import wave
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from support.media_factory import colour_of_second, make_clip, plain_picture, tone
from support.ovavebench_factory import make_bench

from ovavel.eval.datasets.check import check_data
from ovavel.eval.datasets.cut import cut_windows
from ovavel.eval.datasets.ovavebench import OVAVEBench
from ovavel.runtime.cli import main
from ovavel.runtime.errors import InputError, OutputError, UsageError
from ovavel.training.prepare import prepare

pytestmark = pytest.mark.slow

FAILURES = {
    "no video file": None,
    "video unreadable": b"<!DOCTYPE html><title>Video unavailable</title>" * 20,
    "video too short": {"duration_s": 0.3},
    "no sound": {"audio": False},
    "no pictures": {"video": False},
}


def small_picture(time_s: float) -> np.ndarray:
    return plain_picture(time_s, 48, 32)


def video(path: Path, **options: object) -> Path:
    return make_clip(path, **({"duration_s": 10.2, "fps": 5, "picture": small_picture} | options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of annotations and videos of all clips; the first videos are bad. Do not change it."""
    root = make_bench(tmp_path_factory.mktemp("raw") / "raw", media=False, clips=1)
    whole = [
        video(root / "mono.mkv", waveform=tone(10.2, 44_100), rate_hz=44_100),
        video(root / "stereo.mkv", duration_s=9.7, waveform=tone(9.7, 16_000, channels=2)),  # has losses
    ]
    for number, clip in enumerate(OVAVEBench.open(root).clips):
        folder = root / "videos" / (clip.category if number % 3 else "")
        folder.mkdir(parents=True, exist_ok=True)
        how = list(FAILURES.values())[number] if number < len(FAILURES) else {}
        if isinstance(how, bytes):
            (folder / f"{clip.name}.mp4").write_bytes(how)
        elif how:
            video(folder / f"{clip.name}.mkv", **how)
        elif how is not None:
            shutil.copy(whole[number % 2], folder / f"{clip.name}.mkv")
            (folder / f"{clip.name}.json").write_text("{}")  # downloaders leave such files next to a video
            (folder / f"{clip.name}.mp4.part").write_bytes(b"x")
            (folder / f"{clip.name}.part").write_bytes(b"x" * 400_000)
    return root


@pytest.fixture(scope="module")
def prepared(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output of one uninterrupted run. Do not change it."""
    out = tmp_path_factory.mktemp("prepared") / "out"
    prepare(raw / "videos", out, raw / "annotations", workers=2)
    return out


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_failures_are_reported_and_the_rest_is_a_dataset(raw: Path, prepared: Path) -> None:
    bench = OVAVEBench.open(prepared)
    assert bench.fingerprint == OVAVEBench.open(raw).fingerprint
    report = json.loads((prepared / "prepare.json").read_text())
    expected = [(clip.name, kind) for clip, kind in zip(bench.clips, FAILURES, strict=False)]
    assert [(failure["name"], failure["kind"]) for failure in report["failures"]] == expected
    assert all(failure["message"] for failure in report["failures"])
    for split, counts in report["splits"].items():
        assert counts["clips"] == len(bench.select(split)) == counts["prepared"] + sum(counts["failed"].values())
    assert report["splits"]["test"]["prepared"] == len(bench.select("test"))
    checked = check_data(bench)
    assert [clip.name for clip in checked.damaged] == [name for name, _ in expected]
    assert not checked.short_sounds
    assert not (prepared / ".prepare" / "work").exists()


def test_frames_match_their_seconds_and_sound_keeps_its_channels(prepared: Path) -> None:
    bench = OVAVEBench.open(prepared)
    for number in (10, 11):
        clip = bench.clips[number]
        media = bench.media(clip)
        for second, frame in enumerate(media.frames):
            assert np.abs(frame.astype(int).mean((0, 1)) - colour_of_second(second)).max() < 12
        assert media.waveform.shape == (1 + number % 2, 160_000)
        assert np.quantile(np.abs(media.waveform), 0.99) == pytest.approx(0.5, abs=0.01)
        with wave.open(str(bench.audio_path(clip))) as sound:
            assert (sound.getframerate(), sound.getsampwidth(), sound.getnframes()) == (16_000, 2, 160_000)
        assert sorted(path.name for path in bench.frames_dir(clip).iterdir()) == [f"{i}.jpg" for i in range(10)]


def test_frames_and_samples_equal_those_of_the_live_path(raw: Path, prepared: Path) -> None:
    bench = OVAVEBench.open(prepared)
    clip = bench.clips[12]
    path = next((raw / "videos").rglob(f"{clip.name}.mkv"))
    for cut, kept in zip(cut_windows(path), bench.windows(clip), strict=True):
        assert cut.waveform is not None and kept.waveform is not None and cut.frame is not None
        assert np.abs(cut.waveform - kept.waveform).max() <= 0.5001 / 32768
        assert np.abs(cut.frame.astype(int) - kept.frame).max() < 12  # type: ignore[operator]


def test_sound_at_48_khz_equals_that_of_the_live_path(raw: Path, prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    name = OVAVEBench.open(prepared).clips[12].name
    path = shutil.copy(next((raw / "videos").rglob(f"{name}.mkv")), tmp_path / "videos")
    out = tmp_path / "out"
    report, fresh = prepare(tmp_path / "videos", out, raw / "annotations", rate_hz=48_000, workers=1)
    assert (report.rate_hz, fresh) == (48_000, 1)
    bench = OVAVEBench.open(out)
    clip = next(clip for clip in bench.clips if clip.name == name)
    for cut, kept in zip(cut_windows(Path(path), rate_hz=48_000), bench.windows(clip, 48_000), strict=True):
        assert cut.waveform is not None and kept.waveform is not None and kept.waveform.shape[1] == 48_000
        assert np.abs(cut.waveform - kept.waveform).max() <= 0.5001 / 32768
    assert bench.media(clip).waveform.shape[1] == 160_000, "16 kHz for whoever does not ask"
    with pytest.raises(UsageError, match="sound at 48000 Hz, not 16000 Hz"):
        prepare(tmp_path / "videos", out, raw / "annotations", workers=1)


def test_a_second_run_changes_nothing(raw: Path, prepared: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(prepared, tmp_path / "out"))
    before = contents(out)
    assert main(["train", "prepare", *arguments(raw, out)]) == 0
    assert contents(out) == before
    bench = OVAVEBench.open(out)
    (bench.frames_dir(bench.clips[8]) / "4.jpg").unlink()
    bench.audio_path(bench.clips[9]).unlink()
    _, fresh = prepare(raw / "videos", out, raw / "annotations", workers=1)
    assert fresh == 2
    assert contents(out) == before


def test_a_video_added_later_is_prepared(raw: Path, prepared: Path, tmp_path: Path) -> None:
    out, videos = Path(shutil.copytree(prepared, tmp_path / "out")), tmp_path / "videos"
    videos.mkdir()
    bench = OVAVEBench.open(out)
    video(videos / f"{bench.clips[0].name}.avi", duration_s=9.7)
    report, fresh = prepare(videos, out, raw / "annotations", workers=1)
    assert fresh == 1
    before = {failure["name"] for failure in json.loads((prepared / "prepare.json").read_text())["failures"]}
    assert before - {failure.name for failure in report.failures} == {bench.clips[0].name}
    silent = [loss for loss in report.losses if (loss.name, loss.sense) == (bench.clips[0].name, "audio")]
    assert [loss.cause for loss in silent] == ["end of media"]
    assert silent[0].duration_s == pytest.approx(0.3, abs=0.1)
    again, _ = prepare(videos, out, raw / "annotations", workers=1)
    assert again == report


@pytest.mark.timeout(300)  # on a busy machine; 13 s otherwise
def test_a_run_killed_at_random_moments_ends_the_same(raw: Path, prepared: Path, tmp_path: Path) -> None:
    out, rng = tmp_path / "out", random.Random(5)
    command = [sys.executable, "-c", "from ovavel.runtime.cli import main; raise SystemExit(main())"]
    command += ["train", "prepare", *arguments(raw, out), "--workers", "2"]
    interrupted = 0
    bench = OVAVEBench.open(raw)
    for wanted in sorted(rng.sample(range(1, 11), 3)):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            # Not timed: on a busy machine the run may not have started by then, on a fast one it may be over.
            while process.poll() is None and len(list(out.glob("*/audio/*/*.wav"))) < wanted:
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.03))
            children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            process.send_signal(signal.SIGKILL)
            interrupted += process.wait() == -signal.SIGKILL
        assert not psutil.wait_procs(children, timeout=100)[1]  # no process is left behind
        for clip in bench.clips:  # existing files are complete
            frames = out / bench.frames_dir(clip).relative_to(raw)
            assert not frames.exists() or len(list(frames.iterdir())) == 10
    assert interrupted >= 2
    assert subprocess.run([*command], check=False, capture_output=True).returncode == 0
    assert contents(out) == contents(prepared)


def test_a_concurrent_run_is_refused(raw: Path, prepared: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(prepared, tmp_path / "out"))
    with (out / ".prepare" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="another"):
            prepare(raw / "videos", out, raw / "annotations")


def test_other_datasets_are_left_alone(raw: Path, prepared: Path, tmp_path: Path) -> None:
    published = make_bench(tmp_path / "published", clips=1, ratio=False)
    before = contents(published)
    with pytest.raises(UsageError, match="not made by"):
        prepare(raw / "videos", published, raw / "annotations")
    assert contents(published) == before
    out = Path(shutil.copytree(prepared, tmp_path / "out"))
    with pytest.raises(UsageError, match="other annotation files"):
        prepare(raw / "videos", out, published / "annotations")
    with pytest.raises(InputError, match="is not a folder"):
        prepare(raw / "nothing", out, raw / "annotations")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError):
        prepare(raw / "videos", tmp_path / "file" / "out", raw / "annotations")


def test_no_clips_is_exit_code_1(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "loop").symlink_to(tmp_path / "videos")
    code = main(["train", "prepare", "--videos", str(tmp_path / "videos"), *arguments(raw, tmp_path / "out")[2:]])
    assert code == 1
    assert "no video file" in capsys.readouterr().out


def test_the_largest_file_with_a_name_is_the_video(raw: Path, tmp_path: Path) -> None:
    videos, clip = tmp_path / "videos", OVAVEBench.open(raw).clips[0]
    videos.mkdir()
    video(videos / f"{clip.name}.mkv")
    Image.effect_noise((2_000, 2_000), 99).save(
        videos / f"{clip.name}.jpg"
    )  # larger, but not a video: the next one is tried
    report, fresh = prepare(videos, tmp_path / "out", raw / "annotations", workers=1)
    assert fresh == 1
    assert clip.name not in {failure.name for failure in report.failures}


def arguments(raw: Path, out: Path) -> list[str]:
    return ["--videos", str(raw / "videos"), "--annotations", str(raw / "annotations"), "--out", str(out)]
