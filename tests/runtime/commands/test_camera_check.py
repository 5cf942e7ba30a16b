"""`ovavel doctor --camera` watches real cameras, and says what to change."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from support import pulse
from support.demo_copies import CLIP
from support.http_station import JpegCamera
from support.media_factory import make_clip

from ovavel.eval.demo.cameras.http import HTTPCamera
from ovavel.eval.demo.cameras.rtsp import RTSPCamera
from ovavel.runtime.cli import main
from ovavel.runtime.commands import doctor_camera
from ovavel.runtime.commands.camera_check import CameraReport, check_camera

GRAINY = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)


def grainy(_time_s: float) -> np.ndarray:
    return GRAINY


@pytest.mark.parametrize("kind", [HTTPCamera, RTSPCamera])
def test_a_network_camera_that_works(kind: type[HTTPCamera] | type[RTSPCamera]) -> None:
    with closing(kind(CLIP, 6.9)) as camera:
        report = check_camera(camera.url, seconds=6)
    assert report.works, report
    assert report.video is not None
    assert (report.video.codec, report.video.width, report.video.height) == ("h264", 288, 224)
    assert not report.video.blank
    assert report.sound is not None
    assert (report.sound.codec, report.sound.rate_hz, report.sound.channels) == ("aac", 16_000, 1)
    assert report.sound.peak_db is not None and report.sound.peak_db > -30
    assert report.clock.stamped
    assert report.clock.jumps == 0
    assert report.windows >= report.whole > 0


def found(path: Path, seconds: float = 10.0) -> CameraReport:
    return check_camera(str(path), seconds=seconds)


def test_a_file_is_watched_as_long_as_it_lasts(tmp_path: Path) -> None:
    report = found(make_clip(tmp_path / "a.mp4", duration_s=3, fps=10, codec="libx264", picture=grainy))
    assert report.works
    assert (report.windows, report.whole, report.clock.speed, report.clock.late_s) == (3, 3, None, None)
    assert report.video is not None and report.video.rate_hz == pytest.approx(10, rel=0.05)
    assert report.advice == ()


def test_the_time_between_key_frames_counts_as_far_as_it_was_watched() -> None:
    report = found(CLIP)
    assert report.video is not None and report.video.keyless_s is not None
    assert report.video.keyless_s > 4
    assert any("key frame" in each for each in report.advice)


@pytest.mark.parametrize(
    ("made", "works", "advice"),
    [
        ({"audio": False, "picture": grainy}, False, "no sound"),
        ({"video": False}, False, "no picture"),
        ({"waveform": np.zeros((1, 48_000), np.float32), "picture": grainy}, True, "silent"),
        ({"rate_hz": 8_000, "picture": grainy}, True, "nothing above 4 kHz"),
        ({"picture": lambda time_s: np.zeros((120, 160, 3), np.uint8)}, True, "one color"),
        ({"times_s": [0.0, 0.8, 1.6, 2.4], "picture": grainy}, True, "pictures a second"),
        ({"codec": "mpeg4", "picture": grainy}, True, "H.264 saves"),
        ({"codec": "libx265", "picture": grainy}, True, "many browsers"),
        ({"picture": lambda time_s: np.resize(GRAINY, (1440, 2560, 3)), "fps": 2}, True, "smaller stream"),
    ],
)
def test_what_is_wrong_is_named_with_what_to_do(tmp_path: Path, made: dict, works: bool, advice: str) -> None:
    report = found(make_clip(tmp_path / "a.mp4", **{"codec": "libx264", "fps": 10, **made}))
    assert report.works == works
    assert advice in "\n".join(report.advice)


def test_a_clock_that_jumps(tmp_path: Path) -> None:
    def later(time_s: float) -> float:
        return time_s + (5_000 if time_s > 2 else 0)

    clip = make_clip(
        tmp_path / "a.ts", duration_s=5, fps=10, codec="libx264", picture=grainy, video_stamps=later, audio_stamps=later
    )
    report = found(clip)
    assert report.clock.jumps > 0
    assert "time stamps jumped" in "\n".join(report.advice)


def test_pictures_without_time_stamps_and_sound() -> None:
    with closing(JpegCamera()) as camera:
        report = check_camera(camera.url, seconds=4)
    assert not report.works
    assert report.sound is None
    assert not report.clock.stamped
    assert report.video is not None
    assert (report.video.codec, report.video.keyless_s) == ("mjpeg", None)
    assert "no sound" in report.advice[0]


def test_a_camera_that_falls_silent_does_not_work() -> None:
    with closing(JpegCamera()) as camera:
        camera.change((0, 0, 0), pictures=20)
        report = check_camera(camera.url, seconds=8)
    assert "stream lost" in report.gaps
    assert any("connection was lost" in each for each in report.advice)


def test_the_command_hides_secrets_and_answers_with_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor_camera, "WATCH_S", 4.0)
    with closing(RTSPCamera(CLIP, 6.9)) as camera:
        address = camera.url.replace("://", "://anna:s3cret@") + "?token=abcdefgh"
        (tmp_path / "gate.txt").write_text(f"{address}\n")
        assert main(["doctor", "--camera", f"@{tmp_path / 'gate.txt'}"]) == 0
        text = capsys.readouterr()
        assert main(["doctor", "--camera", address, "--json"]) == 0
        report = json.loads((as_json := capsys.readouterr()).out)
    assert "Events can be found in it." in text.out
    assert report["works"] is True
    for said in (*text, *as_json):
        assert "s3cret" not in said and "abcdefgh" not in said

    silent = make_clip(tmp_path / "silent.mp4", audio=False, codec="libx264", picture=grainy)
    assert main(["doctor", "--camera", str(silent)]) == 1
    assert "No events can be found in it." in capsys.readouterr().out


def test_a_microphone_beside_a_camera(tmp_path: Path) -> None:
    """In a process of its own: PortAudio reads the environment when it is loaded."""
    code = (
        "from ovavel.runtime.commands import doctor_camera; doctor_camera.WATCH_S = 4.0; "
        "from ovavel.runtime.cli import main; raise SystemExit(main())"
    )
    with pulse.null_sink(tmp_path) as server, closing(JpegCamera()) as camera:
        server.control("load-module", "module-sine", "sink=null", "frequency=440")
        command = [sys.executable, "-c", code, "doctor", "--camera", camera.url, "--microphone"]
        asked = partial(subprocess.run, env=server.environment, capture_output=True, text=True, timeout=100)
        done = asked([*command, "default", "--json"])
        refused = asked([*command, "nobody has this one"])
    report = json.loads(done.stdout)
    assert (done.returncode, report["works"]) == (0, True)
    assert report["source"] == f"camera {camera.url} and microphone default"
    assert (report["video"]["codec"], report["video"]["width"], report["video"]["height"]) == ("", 160, 120)
    assert (report["sound"]["codec"], report["sound"]["rate_hz"]) == ("", 44_100)
    assert report["sound"]["peak_db"] > -20
    assert report["clock"]["stamped"] is None
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith(
        "ovavel: there is no microphone 'nobody has this one'. Microphones of this machine: "
    )


def test_a_camera_of_this_machine_without_a_microphone(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(JpegCamera()) as camera:
        monkeypatch.setattr("ovavel.runtime.commands.camera_check.camera_device", lambda _: camera.url)
        report = check_camera(camera.url, seconds=3)
    assert not report.works
    assert report.sound is None
    assert "--microphone default" in report.advice[0]
    assert not any("H.264" in each for each in report.advice), "it has no codec to choose"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--camera", "99"], 1, "there is no /dev/video99"),
        (["--camera", "/dev/video99"], 1, "there is no /dev/video99"),
        (["--camera", str(CLIP), "--microphone", "default"], 2, "a file brings its own sound"),
        (["--microphone", "default"], 2, "give --camera as well"),
    ],
)
def test_devices_that_cannot_be_tried(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, says: str
) -> None:
    assert main(["doctor", *arguments]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert says in said.err


def test_nobody_there_is_one_line_without_the_password(capsys: pytest.CaptureFixture[str]) -> None:
    with closing(RTSPCamera(CLIP, 0.0)) as camera:
        port = camera.url.rpartition(":")[2].partition("/")[0]
    assert main(["doctor", "--camera", f"rtsp://anna:s3cret@127.0.0.1:{port}/live"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("ovavel: ") and "s3cret" not in said.err
