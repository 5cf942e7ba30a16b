"""Each row runs in a process of its own, which may die or take too long."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from ovavel.eval.bench.report import BenchReport
from ovavel.eval.demo.assets import Assets
from ovavel.export.gpu_bench.process import Answer, in_process

pytestmark = pytest.mark.slow


def test_the_cause_of_a_dead_process_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dying = tmp_path / "python"
    dying.write_text(f"#!/bin/sh\necho out of memory\nkill -{int(signal.SIGSEGV)} $$\n")
    dying.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(dying))
    assert in_process({}, tmp_path, limit_s=20).why == "killed by SIGSEGV: out of memory"
    dying.write_text("#!/bin/sh\necho engines go to $XDG_CACHE_HOME\nexit 1\n")
    assert in_process({}, tmp_path, limit_s=20).why == f"engines go to {tmp_path / 'cache'}"
    dying.write_text("#!/bin/sh\nsleep 60\n")
    assert in_process({}, tmp_path, limit_s=1, grace_s=0.1).why == "it took longer than 1 s"


def test_a_process_beyond_its_time_limit_keeps_its_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\ntrap 'echo half > \"$4\"; exit 0' TERM\nwhile :; do sleep 0.1; done\n")
    slow.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(slow))
    answer = in_process({}, tmp_path, limit_s=1, grace_s=30)
    assert answer == Answer(content=b"half\n", why="it took longer than 1 s")


HELD = """
import runpy
import sys
from pathlib import Path
from ovavel.eval.bench import run

run_single = run.run_single

def begun(*given, progress, **options):
    def say(what, window, count):
        if window == 2:
            Path(__file__).with_name("begun").touch()
        progress(what, window, count)

    run_single(*given, progress=say, **options)

run.run_single = begun
del sys.argv[:2]
runpy.run_module("ovavel.export.gpu_bench.row", run_name="__main__", alter_sys=True)
"""
"""Process of a row that creates a file once two windows were measured."""


def test_a_row_beyond_its_time_limit_keeps_its_measurements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assets, limit_s = Assets.open(), 12345.0

    class Timed(subprocess.Popen[bytes]):
        """Times out once two windows were measured, however long they take."""

        def wait(self, timeout: float | None = None) -> int:
            if timeout != limit_s:
                return super().wait(timeout)
            while not (tmp_path / "begun").exists() and self.poll() is None:
                time.sleep(0.01)
            raise subprocess.TimeoutExpired(self.args, limit_s)

    held, python = tmp_path / "held.py", tmp_path / "python"
    held.write_text(HELD)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {held} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    monkeypatch.setattr("subprocess.Popen", Timed)
    job = {
        "bundle": str(assets.bundle.path),
        "device": "cpu",
        "media": str(assets.clip),
        "settings": {"scenarios": ["single"], "windows": 1_000_000, "warm_up_s": 1.0},
        "kind": "row",
        "spec": {"name": "onnxruntime fp32", "backend": "onnxruntime", "options": {"precision": "fp32"}},
    }
    answer = in_process(job, tmp_path, limit_s=limit_s, grace_s=60)
    assert answer.why == "it took longer than 12345 s"
    assert answer.content, (tmp_path / "output.txt").read_text()
    report = msgspec.json.decode(answer.content, type=BenchReport)
    assert report.partial
    assert 2 <= report.windows < 1_000_000
    assert report.rows[0].single
