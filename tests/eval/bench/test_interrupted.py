"""A run that is interrupted keeps what it measured."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ovavel.eval.bench import Settings, run_bench
from ovavel.eval.bench.report import Trial
from ovavel.eval.bench.scenarios.live import run_trial
from ovavel.eval.bench.tables import markdown
from ovavel.eval.demo import assets
from ovavel.runtime.bundle.bundle import Bundle

pytestmark = pytest.mark.slow


DEMO = Path(assets.__file__).parent


def test_what_was_measured_until_ctrl_c_is_kept(exported_bundle: Path) -> None:
    def interrupt(doing: str, done: float | None = None, *_: object) -> None:
        if doing == "single stream" and done == 7:
            raise KeyboardInterrupt

    settings = Settings(windows=50, warm_up_s=1)
    report = run_bench(Bundle.open(exported_bundle), device="cpu", threads=1, settings=settings, progress=interrupt)
    assert report.partial
    assert report.windows == 7
    assert report.rows[0].single
    assert {len(values) for stage, values in report.rows[0].single.durations_ms.items() if stage != "decode"} == {7}
    assert "PARTIAL" in markdown(report)


TERMINATED = """
import sys
from pathlib import Path
from ovavel.eval.bench import run
from ovavel.runtime.cli import program

run_single = run.run_single

def begun(*given, progress, **options):
    def say(what, window, count):
        if window == 2:
            Path(sys.argv[-1], "begun").touch()
        progress(what, window, count)

    run_single(*given, progress=say, **options)

run.run_single = begun
program()
"""
"""The program, which makes a file once two windows were measured."""


def test_what_was_measured_until_sigterm_is_written(tmp_path: Path) -> None:
    arguments = [
        "bench",
        "run",
        "--bundle",
        str(DEMO / "bundle"),
        "--device",
        "cpu",
        "--windows",
        "1000000",
        "--warm-up-s",
        "1",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", TERMINATED, *arguments, "--out", str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "begun").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=100)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    report = json.loads((tmp_path / "bench.json").read_text())
    assert report["partial"]
    assert 2 <= report["windows"] < 1_000_000


def test_an_interruption_before_anything_was_measured_is_one(exported_bundle: Path) -> None:
    def interrupt(doing: str, *_: object) -> None:
        if "warming up" in doing:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_bench(Bundle.open(exported_bundle), device="cpu", progress=interrupt)


def test_a_live_search_that_is_interrupted_keeps_its_trials(exported_bundle: Path) -> None:
    trials: list[object] = []

    def stop(pipeline: object, windows: object, cameras: int, **options: object) -> Trial:
        if trials:
            raise KeyboardInterrupt
        trials.append(cameras)
        return run_trial(pipeline, windows, cameras, **options)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ovavel.eval.bench.scenarios.live.run_trial", stop)
        settings = Settings(scenarios=("single", "live"), windows=1, trial_s=1, warm_up_s=1)
        report = run_bench(Bundle.open(exported_bundle), device="cpu", threads=1, settings=settings)
    assert report.partial
    assert report.rows[0].live
    assert len(report.rows[0].live.trials) == 1
