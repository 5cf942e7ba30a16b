"""The benchmark, on a tiny bundle."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from media_factory import make_clip

from ovavel.eval.bench import STAGES, run_bench
from ovavel.eval.commands.bench import Bench
from ovavel.eval.machine import describe_machine, peak_memory_mb
from ovavel.runtime.bundle import Bundle
from ovavel.runtime.errors import MediaError, UsageError


def test_every_stage_is_timed(exported_bundle: Path) -> None:
    report = run_bench(Bundle.open(exported_bundle), device="cpu", threads=1, windows=5)
    stages = report.runtime.stages_ms
    assert tuple(stages) == STAGES
    assert all(0 < times.p50 <= times.p95 <= times.p99 for times in stages.values())
    assert stages["window"].p99 >= stages["vision"].p99
    assert stages["end to end"].p50 > stages["decode"].p50
    assert report.runtime.backend.threads == 1
    assert report.pytorch is None
    assert report.ratios is None
    assert 20 < report.peak_memory_mb < 1.05 * peak_memory_mb()  # the kernel counts in batches


def test_pytorch_is_timed_on_the_same_windows(
    exported_bundle: Path, tiny_weights: Path, tiny_head: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bench.json"
    bench = Bench(
        bundle=exported_bundle, weights=tiny_weights, head=tiny_head, device="cpu", threads=1, windows=4, out=out
    )
    assert bench.run() == 0
    said = capsys.readouterr().out
    for word in ("onnxruntime", "torch", "times faster", "end to end", "resident memory"):
        assert word in said
    report = json.loads(out.read_text())
    assert report["pytorch"]["backend"]["name"] == "torch"
    assert report["pytorch"]["backend"]["threads"] == report["runtime"]["backend"]["threads"] == 1
    medians = {name: report[name]["stages_ms"]["window"][0] for name in ("runtime", "pytorch")}
    ratio = report["ratios"]["window"]
    assert ratio["p5"] <= ratio["p95"]
    assert 0.2 < ratio["of_medians"] / (medians["pytorch"] / medians["runtime"]) < 5
    assert report["machine"]["versions"]["torch"]
    assert report["windows"] == 4


def test_a_recording_without_sound_has_no_audio_stage(exported_bundle: Path, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "silent.mp4", duration_s=3, audio=False)
    report = run_bench(Bundle.open(exported_bundle), device="cpu", windows=4, media=str(clip))
    assert "audio" not in report.runtime.stages_ms
    assert "vision" in report.runtime.stages_ms


def test_bad_requests_are_refused(exported_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(exported_bundle)
    with pytest.raises(UsageError, match="windows"):
        run_bench(bundle, windows=0)
    with pytest.raises(MediaError, match="nowhere"):
        run_bench(bundle, windows=1, media=str(tmp_path / "nowhere.mp4"))


def test_the_machine_is_described() -> None:
    machine = describe_machine()
    assert machine.cpu
    assert machine.cores >= 1
    assert machine.memory_gb > 0.5
    assert machine.versions["numpy"] == np.__version__
    assert machine.date.endswith("+00:00")
    kernel = subprocess.run(["uname", "-r"], capture_output=True, text=True, check=True).stdout.strip()
    assert kernel in machine.system
