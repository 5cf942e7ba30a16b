"""`ovavel live` as a user runs it: a process of its own, real signals, real pipes."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.media_factory import make_clip

from ovavel.runtime.archive.reader import Archive
from ovavel.runtime.cli import main

OVAVEL = (sys.executable, "-c", "from ovavel.runtime.cli import main; raise SystemExit(main())")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    noise = np.random.default_rng(0).standard_normal((1, 16_000 * 30)).astype(np.float32) / 8
    return make_clip(tmp_path_factory.mktemp("live") / "clip.mp4", duration_s=30, fps=5, waveform=noise)


def live(bundle: Path, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    command = [*OVAVEL, "live", "--bundle", str(bundle), "--device", "cpu", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def wait_for(path: Path, record_type: str, count: int) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() or path.read_text().count(f'"type":"{record_type}"') < count:
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.05)


def assert_every_start_ends(events: Sequence[dict[str, Any]]) -> None:
    states: dict[int, list[str]] = {}
    for event in events:
        states.setdefault(event["id"], []).append(event["state"])
    for reported in states.values():
        assert reported[0] == "start"
        assert reported[-1] in ("end", "retract")
        assert not {"end", "retract"} & set(reported[:-1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_open_events_and_exits_0(
    exported_bundle: Path, clip: Path, tmp_path: Path, number: signal.Signals
) -> None:
    news = tmp_path / "news.jsonl"
    process = live(exported_bundle, clip, "--realtime", "--jsonl", news, "--lag", 0)
    wait_for(news, "segment", 2)
    process.send_signal(number)
    out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, "")
    assert "ready" in out
    reported = records(news)
    assert reported[-1]["type"] == "summary"
    assert_every_start_ends([r for r in reported if r["type"] == "event"])
    assert len([r for r in reported if r["type"] == "segment"]) < 30


def test_what_was_watched_is_archived_by_the_clock_of_this_machine(
    exported_bundle: Path, clip: Path, tmp_path: Path
) -> None:
    """All that was final when Ctrl-C came, and no second twice."""
    news, root = tmp_path / "news.jsonl", tmp_path / "archive"
    before_s = int(time.time())
    process = live(
        exported_bundle, clip, "--realtime", "--jsonl", news, "--archive", root, "--archive-camera", "front yard"
    )
    wait_for(news, "segment", 2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, "")
    found: list[int] = []
    for day in reversed(Archive(root).days(["front yard"])):
        with day.open() as files:
            found += [second.utc_s for second in files.seconds(0, 86_400)]
    assert len(found) == len([each for each in records(news) if each["type"] == "segment"])
    assert found == sorted(set(found))
    assert before_s - 1 <= found[0] <= found[-1] <= time.time()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--realtime", "--archive", "a"), "--archive and --archive-camera go together"),
        (("--realtime", "--archive-camera", "yard"), "--archive and --archive-camera go together"),
        (("--archive", "a", "--archive-camera", "yard"), "use 'ovavel localize --archive'"),
    ],
)
def test_archives_that_make_no_sense(
    exported_bundle: Path, clip: Path, arguments: tuple[str, ...], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["live", str(clip), "--bundle", str(exported_bundle), *arguments]) == 2
    assert why in capsys.readouterr().err


def test_a_closed_pipe_ends_it_quietly(exported_bundle: Path, clip: Path) -> None:
    process = live(exported_bundle, clip, "--realtime", "--jsonl", "-")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["type"] == "session"
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, "")


def wait_until_heard(process: subprocess.Popen[Any], number: signal.Signals) -> None:
    """Wait until the process has a handler for the signal."""
    deadline = time.monotonic() + 60
    status = Path(f"/proc/{process.pid}/status")
    while not int(status.read_text().partition("SigCgt:")[2].split()[0], 16) & 1 << number - 1:
        assert time.monotonic() < deadline, "nobody listens to the signal"
        time.sleep(0.05)


@pytest.mark.parametrize("view", ["jsonl", "lines"])
@pytest.mark.parametrize("errors", ["apart", "into the same pipe"])
def test_sigterm_ends_it_though_nobody_reads_its_output(
    exported_bundle: Path, clip: Path, tmp_path: Path, view: str, errors: str
) -> None:
    reader, writer = os.pipe()
    os.write(writer, bytes(fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)))  # full
    news = tmp_path / "news.jsonl"
    arguments = ("--jsonl", "-") if view == "jsonl" else ("--view", "lines", "--jsonl", news)
    command = [*OVAVEL, "live", "--bundle", str(exported_bundle), "--device", "cpu", str(clip), "--realtime"]
    process = subprocess.Popen(
        [*command, *map(str, arguments)],
        stdout=writer,
        stderr=writer if errors != "apart" else subprocess.PIPE,
        text=True,
    )
    try:
        wait_until_heard(process, signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=100)
    finally:
        process.kill()
        os.close(reader)
        os.close(writer)
    assert process.returncode == 1
    if errors == "apart":
        assert "standard output accepted no data" in err
        assert "Traceback" not in err
    if view == "lines":
        assert records(news)[-1]["type"] == "summary"


def test_sigterm_ends_it_though_its_terminal_is_held(exported_bundle: Path, clip: Path) -> None:
    """As Ctrl-S holds a terminal: nothing that is written goes through."""
    parent, child = pty.openpty()
    command = [*OVAVEL, "live", "--bundle", str(exported_bundle), "--device", "cpu", str(clip), "--realtime"]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    termios.tcflow(child, termios.TCOOFF)
    process = subprocess.Popen(command, stdin=child, stdout=child, stderr=child, env=environment)
    try:
        wait_until_heard(process, signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        assert process.wait(100) == 1
    finally:
        process.kill()
        os.close(child)
        os.close(parent)


def test_sighup_under_nohup_ends_nothing(exported_bundle: Path, clip: Path, tmp_path: Path) -> None:
    news = tmp_path / "news.jsonl"
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # which the new process inherits
    try:
        process = live(exported_bundle, clip, "--realtime", "--jsonl", news, "--lag", 0)
    finally:
        signal.signal(signal.SIGHUP, before)
    wait_for(news, "segment", 1)
    process.send_signal(signal.SIGHUP)
    seen = len(records(news))
    wait_for(news, "segment", seen + 2)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, "")


def test_a_removed_folder_is_reported(exported_bundle: Path, clip: Path, tmp_path: Path) -> None:
    news = tmp_path / "folder" / "news.jsonl"
    news.parent.mkdir()
    process = live(exported_bundle, clip, "--realtime", "--jsonl", news, "--lag", 0, "--view", "lines")
    wait_for(news, "segment", 2)
    shutil.rmtree(news.parent)
    assert process.stdout is not None
    assert any("cannot write to" in line for line in process.stdout)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "records are gone with" in err
    assert "could not be written" in err


def test_kill_9_loses_nothing_that_was_reported(exported_bundle: Path, clip: Path, tmp_path: Path) -> None:
    news = tmp_path / "news.jsonl"
    process = live(exported_bundle, clip, "--realtime", "--jsonl", news, "--lag", 0)
    wait_for(news, "segment", 2)
    process.kill()
    process.wait()
    before = records(news)
    assert [r["index"] for r in before if r["type"] == "segment"][:2] == [0, 1]
    done = live(exported_bundle, clip, "--jsonl", news)
    assert done.wait(100) == 0
    done.communicate()
    assert records(news)[: len(before)] == before
    assert records(news)[-1]["type"] == "summary"


def test_a_full_disk_is_reported_and_does_not_stop_the_watch(exported_bundle: Path, clip: Path) -> None:
    process = live(exported_bundle, clip, "--jsonl", "/dev/full", "--view", "lines")
    out, err = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "Traceback" not in err
    assert "/dev/full" in err
    assert re.search(r"30 windows", out)


def test_the_live_view_runs_in_a_terminal(exported_bundle: Path, clip: Path) -> None:
    parent, child = pty.openpty()
    command = [*OVAVEL, "live", "--bundle", str(exported_bundle), "--device", "cpu", str(clip)]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    process = subprocess.Popen(command, stdin=child, stdout=child, stderr=child, env=environment)
    os.close(child)
    screen = b""
    try:
        while data := os.read(parent, 65536):
            screen += data
    except OSError:  # the other end is closed
        pass
    assert process.wait(100) == 0
    os.close(parent)
    assert b"\x1b[?1049h" in screen
    assert b"\x1b[?1049l" in screen
    assert b"Traceback" not in screen


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["no/such/file.mp4"], 1, "no/such/file.mp4"),
        (["CLIP", "--device", "tpu"], 1, "tpu"),
        (["CLIP", "--device", "cuda:7"], 1, "cuda"),
        (["CLIP", "--no-audio", "--no-video"], 2, "nothing to watch"),
        (["CLIP", "--lag", "10"], 2, "lag"),
        (["CLIP", "--microphone", "nonesuch"], 2, "leave --camera and --microphone out"),
        (["--realtime"], 2, "name one"),
        (["CLIP", "--keep-margin", "0.5"], 2, "keep-margin"),
        (["CLIP", "--jsonl", "-", "--view", "lines"], 2, "standard output"),
        (["CLIP", "--jsonl", "no/such/folder/x.jsonl"], 1, "no/such/folder"),
        (["--camera", "97", "--no-audio"], 1, "camera"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    exported_bundle: Path, clip: Path, arguments: list[str], code: int, message: str
) -> None:
    process = live(exported_bundle, *[str(clip) if a == "CLIP" else a for a in arguments])
    _, err = process.communicate(timeout=100)
    assert process.returncode == code, err
    assert message in err
    assert "Traceback" not in err


def test_without_a_bundle_it_says_how_to_make_one() -> None:
    done = subprocess.run([*OVAVEL, "live"], capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert "ovavel bundle export" in done.stderr
