"""`ovavel bundle engine`, with the real TensorRT-RTX."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

pytest.importorskip("tensorrt_rtx")


COMMAND = [
    sys.executable,
    "-c",
    "from ovavel.runtime.cli import main; raise SystemExit(main())",
    "bundle",
    "engine",
    "--bundle",
]


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, **environment},
    )


def test_the_command_builds_ahead_of_time(exported_bundle: Path, tmp_path: Path) -> None:
    arguments = (exported_bundle, "--library", "tensorrt-rtx", "--compute-capability", "8.9", "--batch", "1", "2")
    done = run(*arguments, XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["vision", "audio", "head"]
    assert all("matrix products in fp32 (network and build log)" in line for line in lines)
    folders = [Path(line.rpartition(": ")[2]) for line in lines]
    assert {folder.parent for folder in folders} == {tmp_path / "ovavel" / "engines"}
    assert all((folder / "engine.plan").is_file() for folder in folders)
    described = folders[0] / "engine.json"
    described.write_text(re.sub(r'"found": \d+', '"found": 7', described.read_text()))
    again = run(*arguments, XDG_CACHE_HOME=str(tmp_path))
    assert again.stdout.count("already built") == 3
    assert " 7 of " in again.stdout.splitlines()[0]  # what was found, not what it was built from
    assert not again.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--library", "tensorrt"), r"needs tensorrt, which is not installed.*pip install .*\[tensorrt\]"),
        (
            ("--library", "tensorrt", "--compute-capability", "8.9"),
            "--compute-capability is for --library tensorrt-rtx",
        ),
        (("--library", "tensorrt-rtx", "--compute-capability", "9.0"), "not 9.0"),
        (("--library", "tensorrt-rtx", "--batch", "0", "--compute-capability", "8.9"), "--batch takes a number from 1"),
        (("--library", "tensorrt-rtx", "--precision", "fp8", "--compute-capability", "8.9"), "fp8"),
    ],
)
def test_build_errors_are_one_line(
    exported_bundle: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    if arguments == ("--library", "tensorrt") and find_spec("tensorrt"):
        pytest.skip("tensorrt is installed here")
    done = run(exported_bundle, *arguments, "--out", tmp_path / "out")
    assert done.returncode in (1, 2)
    assert re.search(message, done.stderr)
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


HELD = """
import time
from ovavel.runtime.backends.tensorrt import build
from ovavel.runtime.cli import main

monitor_of = build._monitor

def held(trt, graph, state):
    class Held(type(monitor_of(trt, graph, state))):
        def step_complete(self, phase_name, step):
            print("building", flush=True)
            while not state.cancelled:
                time.sleep(0.01)
            return super().step_complete(phase_name, step)

    return Held()

build._monitor = held
raise SystemExit(main())
"""
"""The command, whose build stays at its first step until it is interrupted: a fast one would be over before."""


def test_ctrl_c_ends_it_cleanly(exported_bundle: Path, tmp_path: Path) -> None:
    root = tmp_path / "engines"
    options = ("--library", "tensorrt-rtx", "--compute-capability", "8.9", "--out", str(root))
    process = subprocess.Popen(
        [sys.executable, "-c", HELD, *COMMAND[3:], str(exported_bundle), *options],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "building\n"
    assert list(root.glob(".*.part"))  # half an engine
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    assert not [path for path in root.iterdir() if path.suffix != ".lock"]
