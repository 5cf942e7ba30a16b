"""`ovavel demo` with a small world that stands for any other."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import NAMES
from support import pulse
from support.eval.demo import PLAY, SECONDS, demo, write_truth
from support.http_station import JpegCamera
from support.proofs import proof_unless

from ovavel.eval.demo.assets import Assets
from ovavel.eval.demo.play import play_clip
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.cli import main
from ovavel.runtime.errors import OutputError
from ovavel.runtime.results import FORMATS, read_json, result_paths


def test_it_writes_all_results_and_ends_with_the_comparison(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "out"
    assert play_clip(Assets.open(world), out, fast=True) == 0
    said = capsys.readouterr().out
    truth = Assets.open(world).truth.labels
    assert f"{SECONDS} of {SECONDS} seconds right" in said
    assert "Acc. 100.0   Seg. 100.0   Eve. 100.0" in said
    assert "✗" not in said
    assert said.count("✓") >= SECONDS
    for label in set(truth) - {""}:
        assert label in said
    assert "knows nothing of the real world" in said
    assert said.count("ovavel demo --camera") == 1
    assert "do not match" not in said
    document = json.loads((out / "demo.json").read_bytes())
    assert document["scores"] == {"acc": 1, "seg": 1, "eve": 1, "avg": 1}
    reported = [s["reported"] for s in document["stretches"] for _ in range(round(s["end_s"] - s["start_s"]))]
    assert reported == list(truth)
    results = read_json(result_paths(out / "clip.mp4", out, ["json"])[0])
    assert len(results.segments) == SECONDS
    assert all(path.is_file() for path in result_paths(out / "clip.mp4", out, FORMATS))
    assert Bundle.open(out / "bundle").sha256 == Bundle.open(world / "bundle").sha256
    assert {path.name.split(".")[0] for path in out.iterdir()} == {"bundle", "clip", "demo"}


def test_a_bad_match_is_reported_plainly(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = Assets.open(world).truth.labels
    folder = shutil.copytree(world, tmp_path / "world")
    other = dict(zip((*NAMES, ""), ("", *NAMES), strict=True))
    write_truth(folder, labels=tuple(other[label] for label in truth))
    assert play_clip(Assets.open(folder), tmp_path / "out", fast=True) == 0
    said = capsys.readouterr().out
    assert "do not match the truth: Eve. 0.0" in said
    assert f"0 of {SECONDS} seconds right" in said


def test_a_bundle_with_the_users_own_names_is_kept(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert play_clip(Assets.open(world), out, fast=True) == 0
    assert main(["vocab", "add", "--bundle", str(out / "bundle"), "glass breaking"]) == 0
    changed = Bundle.open(out / "bundle").sha256
    assert play_clip(Assets.open(world), out, fast=True) == 0
    assert Bundle.open(out / "bundle").sha256 == changed
    assert json.loads((out / "demo.json").read_bytes())["right_s"] == SECONDS  # the shipped one plays


def test_an_unwritable_folder_is_reported_before_playing(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ovavel.eval.demo.play.MediaSource", lambda *_, **__: pytest.fail("it plays"))
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match=r"cannot write .*file"):
            play_clip(Assets.open(world), out)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_plays_live_and_stops_when_asked(world: Path, tmp_path: Path, number: signal.Signals) -> None:
    process = demo(world, "--out", tmp_path / "out", bufsize=1)
    assert process.stdout is not None
    for line in process.stdout:
        if "  start  " in line:
            break
    process.send_signal(number)
    out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (130, "")
    assert re.search(rf"Stopped after \d of {SECONDS} seconds", out)
    assert not list((tmp_path / "out").glob("*.html"))


def test_a_terminal_gets_the_live_view_and_then_the_table(world: Path, tmp_path: Path) -> None:
    parent, child = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "60", "LINES": "30"}
    command = [sys.executable, "-c", PLAY, str(world), "--fast", "--out", str(tmp_path / "out")]
    process = subprocess.Popen(command, stdin=child, stdout=child, stderr=child, env=environment)
    os.close(child)
    screen = b""
    try:
        while data := os.read(parent, 65536):
            screen += data
    except OSError:  # the other end is closed
        pass
    os.close(parent)
    assert process.wait(100) == 0
    live, _, after = screen.decode().rpartition("\x1b[?1049l")
    assert "\x1b[?1049h" in live
    assert f"{SECONDS} of {SECONDS} seconds right" in after
    assert "Traceback" not in after


def test_a_camera_is_used_with_a_warning(world: Path, tmp_path: Path) -> None:
    camera = JpegCamera()
    with pulse.null_sink(tmp_path) as server:
        process = demo(world, "--camera", camera.url, env=server.environment, cwd=tmp_path, bufsize=1)
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if "  notice  " in line:
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=100)
    camera.stop()
    assert (process.returncode, err) == (0, "")
    before, _, after = (said + out).partition("ready    ")
    assert "knows nothing but its own made-up world" in before
    assert all(name in before for name in NAMES)
    assert "nothing of the real world" in after
    assert "knows only its own world" in out.splitlines()[-1]
    assert not (tmp_path / "demo-out").exists()


@pytest.mark.parametrize("encoding", proof_unless(("ascii",).__contains__, ["ascii", "latin-1"]))
def test_a_limited_terminal_is_enough(world: Path, tmp_path: Path, encoding: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "30"}
    process = demo(world, "--fast", "--out", tmp_path / "out", env=environment, encoding=encoding)
    out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, "")
    assert f"{SECONDS} of {SECONDS} seconds right" in out


def test_a_closed_pipe_ends_it_quietly(world: Path, tmp_path: Path) -> None:
    process = demo(world, "--out", tmp_path / "out")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, "")
    assert not list((tmp_path / "out").glob("*.html")), "it did not play to the end"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--microphone", "1"], 2, "--camera"),
        (["--camera", "--fast"], 2, "--fast"),
        (["--camera", "--out", "x"], 2, "--out"),
        (["--camera", "0", "1"], 2, "one camera"),
        (["--camera", "97"], 1, "camera"),
        (["--camera", "http://127.0.0.1:9/nothing"], 1, "127.0.0.1"),
    ],
)
def test_errors_are_one_line(world: Path, arguments: list[str], code: int, message: str) -> None:
    process = demo(world, *arguments)
    _, err = process.communicate(timeout=100)
    assert process.returncode == code, err
    assert message in err
    assert err.count("\n") == 1
    assert "Traceback" not in err
