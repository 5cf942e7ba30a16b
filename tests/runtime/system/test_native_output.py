"""What libraries write to standard error becomes notices; what Python writes there still goes there."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support import pulse

from ovavel.runtime.system.native_output import captured_stderr

OVAVEL = (sys.executable, "-c", "from ovavel.runtime.cli import main; raise SystemExit(main())")


def test_a_burst_is_one_notice_and_repeated_lines_are_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    reported: list[str] = []
    came = threading.Event()

    def listen(text: str) -> None:
        reported.append(text)
        came.set()

    with captured_stderr(listen):
        for _ in range(50):
            os.write(2, b"ALSA lib pcm.c: one\nExpression 'two' failed\n")
        os.write(2, "caf\udce9 three".encode("utf-8", "surrogateescape"))
        os.write(2, b"\n")
        assert came.wait(30)
        os.write(2, b"ALSA lib pcm.c: one\n" * 1000)
        os.write(2, b"four")
    assert reported == ["a library reports: ALSA lib pcm.c: one (and 2 more lines)", "a library reports: four"]
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "afterwards\n"


def test_it_works_in_a_process_with_many_open_files(capfd: pytest.CaptureFixture[str]) -> None:
    many, hard = 1200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if 0 <= hard < 2 * many:
        pytest.skip(f"a process may open {hard} files only")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 2 * many), hard))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(many)]
    reported: list[str] = []
    try:
        with captured_stderr(reported.append):
            os.write(2, b"one\n")
    finally:
        for fd in opened:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert reported == ["a library reports: one"]


def test_python_still_reaches_standard_error() -> None:
    code = """
import os, sys
from ovavel.runtime.system.native_output import captured_stderr
reported = []
with captured_stderr(reported.append):
    print("from Python", file=sys.stderr)
    os.write(2, b"from C\\n")
print(reported)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "from Python\n"
    assert done.stdout == "['a library reports: from C']\n"


def test_a_failure_passes_through(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="this"), captured_stderr(lambda text: None):
        raise ValueError("this")
    os.write(2, b"as before\n")
    assert capfd.readouterr().err == "as before\n"


@pytest.mark.timeout(180)
def test_a_dying_sound_server_does_not_write_over_the_view(exported_bundle: Path, tmp_path: Path) -> None:
    command = [*OVAVEL, "live", "--bundle", str(exported_bundle), "--device", "cpu", "--no-video", "--view", "lines"]
    with pulse.null_sink(tmp_path) as server:
        process = subprocess.Popen(
            command, env=server.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        reported = []
        for line in process.stdout:
            reported.append(line)
            if line.startswith("ready"):
                server.stop()
            elif "a library reports" in line:
                process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert err == ""
    assert sum("a library reports" in line for line in reported) == 1
    assert any("is lost" in line for line in reported)
