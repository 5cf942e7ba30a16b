"""The benchmark, on a tiny bundle."""

from __future__ import annotations

import json
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from support.media_factory import make_clip

from ovavel.eval.bench import STAGES, Settings, run_bench
from ovavel.eval.bench import run as bench_run
from ovavel.eval.bench.html import report_page
from ovavel.eval.bench.machine import describe_machine, peak_memory_mb
from ovavel.eval.bench.report import Offline
from ovavel.eval.bench.settings import SCENARIOS, Scenario
from ovavel.eval.bench.tables import markdown
from ovavel.eval.commands.bench.run import Run
from ovavel.eval.demo import assets
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.cli import main
from ovavel.runtime.commands.options import DeviceOptions
from ovavel.runtime.errors import MediaError, OvavelError, UsageError

pytestmark = pytest.mark.slow

DEMO = Path(assets.__file__).parent


def test_every_stage_is_timed(exported_bundle: Path) -> None:
    report = run_bench(Bundle.open(exported_bundle), device="cpu", threads=1, settings=Settings(windows=5))
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
    bench = Run(
        bundle=exported_bundle,
        weights=tiny_weights,
        head=tiny_head,
        references=("eager", "bf16", "fp16"),
        scenarios=("single",),
        place=DeviceOptions(device="cpu", threads=1),
        windows=4,
        warm_up_s=1,
        out=out.parent,
    )
    assert bench.run() == 0
    said = capsys.readouterr().out
    for word in ("onnxruntime", "PyTorch eager fp32", "times faster", "end to end", "resident memory"):
        assert word in said
    assert "PyTorch eager fp16 autocast: not measured: fp16 needs a GPU" in said
    report = json.loads(out.read_text())
    own, eager, bf16, fp16 = report["rows"]
    assert [row["name"] for row in report["rows"][1:3]] == ["PyTorch eager fp32", "PyTorch eager bf16 autocast"]
    assert bf16["backend"]["precision"] == {"vision": "bf16", "audio": "bf16", "head": "fp32"}
    assert fp16["single"] is None
    assert own["gate"] is None, "the scenario parity was not run"
    assert own["known_gate"]["passed"]
    assert [eager["known_gate"], bf16["known_gate"]] == [None, None]
    assert [len(row["single"]["durations_ms"]["window"]) for row in (own, eager, bf16)] == [4, 4, 4]
    assert own["single"]["ratios"]["window"] == report["ratios"]["window"]
    assert eager["single"]["ratios"] is None
    assert report["pytorch"]["backend"]["name"] == "torch"
    assert report["pytorch"]["backend"]["threads"] == report["runtime"]["backend"]["threads"] == 1
    medians = {name: report[name]["stages_ms"]["window"][0] for name in ("runtime", "pytorch")}
    ratio = report["ratios"]["window"]
    assert ratio["p5"] <= ratio["p95"]
    assert 0.2 < ratio["of_medians"] / (medians["pytorch"] / medians["runtime"]) < 5
    assert report["machine"]["versions"]["torch"]
    assert report["windows"] == 4


def test_a_row_says_which_comparison_is_known(
    exported_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bundle, settings = Bundle.open(exported_bundle), Settings(windows=1, warm_up_s=0.1)
    report = run_bench(bundle, device="cpu", settings=settings)
    assert report.rows[0].known_gate == bundle.manifest.parity.gates[0]
    assert "| as PyTorch fp32 by the bundle's own record, cosine at least 0.9999" in markdown(report)
    parity = msgspec.structs.replace(bundle.manifest.parity, gates=())
    bare = replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, parity=parity))
    report = run_bench(bare, device="cpu", settings=settings)
    assert report.rows[0].known_gate is None
    assert "| not verified: no comparison with PyTorch is known |" in markdown(report)
    assert b"<td>not verified: no comparison with PyTorch is known</td>" in report_page(report)


@pytest.mark.parametrize(("drift", "changed"), [(-0.33, True), (0.04, False)])
def test_a_row_that_did_not_stay_steady_is_reported(exported_bundle: Path, drift: float, changed: bool) -> None:
    report = run_bench(
        Bundle.open(exported_bundle), device="cpu", threads=1, settings=Settings(scenarios=("single",), windows=2)
    )
    (row,) = report.rows
    assert row.single
    assert "the median of the second half" not in markdown(report), "two windows tell nothing of it"
    durations = {stage: times * 10 for stage, times in row.single.durations_ms.items()}
    single = replace(row.single, drift=drift, durations_ms=durations)
    reported = markdown(replace(report, rows=[replace(row, single=single)]))
    assert f"the median of the second half was {drift:+.0%} against the first" in reported
    assert ("its speed changed after the warm-up" in reported) == changed


def test_a_recording_without_sound_has_no_audio_stage(exported_bundle: Path, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "silent.mp4", duration_s=3, audio=False)
    report = run_bench(Bundle.open(exported_bundle), device="cpu", settings=Settings(windows=4), media=str(clip))
    assert "audio" not in report.runtime.stages_ms
    assert "vision" in report.runtime.stages_ms


def test_bad_requests_are_refused(exported_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(exported_bundle)
    with pytest.raises(UsageError, match="windows"):
        run_bench(bundle, settings=Settings(windows=0))
    with pytest.raises(MediaError, match="nowhere"):
        run_bench(bundle, settings=Settings(windows=1), media=str(tmp_path / "nowhere.mp4"))


def test_every_scenario_in_a_few_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command that CI runs, on the demo's bundle."""
    files = {name: tmp_path / "new" / f"bench.{name}" for name in ("json", "md", "html")}
    command = ["bench", "run", "--bundle", str(DEMO / "bundle"), str(DEMO / "clip.mp4"), "--device", "cpu"]
    limits = ["--windows", "25", "--trial-s", "1", "--most-cameras", "3", "--capture-windows", "2"]
    limits += ["--largest-batch", "2", "--warm-up-s", "2", "--threads", "1"]
    assert main([*command, *limits, "--out", str(tmp_path / "new")]) == 0
    said = capsys.readouterr().out
    report = json.loads(files["json"].read_text())
    (row,) = report["rows"]
    assert not report["partial"]
    assert row["notes"] == []
    assert row["warm_up"]["windows"] >= 6
    assert len(row["single"]["durations_ms"]["window"]) == len(row["single"]["yardstick_ms"]) == 25
    assert {batch["size"] for batch in row["offline"]["batches"]} == {1, 2}
    assert row["offline"]["best"]["windows_per_s"] == max(b["windows_per_s"] for b in row["offline"]["batches"])
    assert row["live"]["cameras"] == max([t["cameras"] for t in row["live"]["trials"] if t["passed"]], default=0)
    assert row["live"]["at_most"] == (row["live"]["cameras"] == 3)
    assert row["capture"]["windows"] == 2
    # half of a window's second is still to come when its frame is drawn
    assert row["capture"]["frame_ms"]["p50"] > 400
    assert 0 < row["capture"]["sound_ms"]["p50"] < row["capture"]["frame_ms"]["p50"]
    assert set(report["rates"]["flops_per_s"]) == {"fp32", "int8"}
    assert row["floor"]["floor_ms"] == max(row["floor"]["memory_ms"], row["floor"]["compute_ms"]) > 0
    assert row["memory"]["host_mb"] == report["peak_memory_mb"]
    assert set(report["rules"]) == {"warm-up", "single", "offline", "live", "capture", "yardstick", "floor"}
    for text in (said, files["md"].read_text(), files["html"].read_text()):
        for word in (
            "single stream",
            "offline",
            "live",
            "capture",
            "floor",
            "steady",
            "unknown",
            "imagebind_demo-world",
        ):
            assert word in text
    assert "<svg" in files["html"].read_text()
    assert main(["bench", "compare", str(files["json"]), str(tmp_path / "new")]) == 0


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_each_scenario_alone(scenario: Scenario) -> None:
    settings = Settings(
        scenarios=(scenario,),
        windows=2,
        warm_up_s=1,
        offline_s=0.1,
        largest_batch=1,
        trial_s=0.5,
        most_cameras=1,
        capture_windows=1,
    )
    report = run_bench(
        Bundle.open(DEMO / "bundle"), device="cpu", threads=1, media=str(DEMO / "clip.mp4"), settings=settings
    )
    (row,) = report.rows
    assert row.notes == []
    found = {"parity": row.gate, "single": row.single, "offline": row.offline, "live": row.live, "capture": row.capture}
    assert {name for name, figures in found.items() if figures} == {scenario}
    assert report.windows == (2 if scenario == "single" else 0)
    assert "What ran" in markdown(report)
    assert b"What ran" in report_page(report)


def test_clocks_are_those_of_the_offline_work(exported_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Busy:
        read = threading.Semaphore(0)

        def clocks(self) -> str:
            if threading.current_thread() is threading.main_thread():
                return "idle: the work is over, or has not begun"
            self.read.release()
            return "busy"

        def energy_j(self) -> None:
            return None

    gpu, real = Busy(), bench_run.run_offline

    def work(*given: Any, **options: Any) -> Offline:
        for _ in range(2):  # the first reading is whole once the second begins
            assert gpu.read.acquire(timeout=60), "nobody reads the clocks during the work"
        return real(*given, **options)

    monkeypatch.setattr(bench_run, "open_gpu", lambda device: gpu)
    monkeypatch.setattr(bench_run, "run_offline", work)
    settings = Settings(scenarios=("offline",), windows=1, warm_up_s=1, offline_s=0.01, largest_batch=1)
    report = run_bench(Bundle.open(exported_bundle), device="cpu", threads=1, settings=settings)
    assert report.rows[0].offline
    assert report.rows[0].clocks == "busy"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"precision": ("fp32", "fp32")}, "twice"),
        ({"backend": ("abacus",)}, "no backend 'abacus'"),
        ({"precision": ("int3",)}, "int3"),
        ({"weights": Path("w"), "references": ("eager+compile",)}, "no reference 'eager.compile'"),
        ({"weights": Path("w"), "references": ("cast",)}, "no reference 'cast'"),
        ({"weights": Path("w"), "references": ("quick",)}, "no reference 'quick'"),
        ({"weights": Path("w"), "references": ("eager", "eager+fp32")}, "PyTorch eager fp32 twice"),
    ],
)
def test_rows_that_cannot_be_are_refused(exported_bundle: Path, options: dict[str, Any], said: str) -> None:
    bench = Run(bundle=exported_bundle, place=DeviceOptions(device="cpu"), **options)
    with pytest.raises(OvavelError, match=said):
        bench.run()


@pytest.mark.parametrize(
    "wrong",
    [{"scenarios": ("server",)}, {"scenarios": ()}, {"windows": 0}, {"trial_s": 0}, {"deadline_ms": float("inf")}],
)
def test_invalid_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Settings(**wrong)


def test_the_machine_is_described() -> None:
    machine = describe_machine()
    assert machine.cpu
    assert machine.cores >= 1
    assert machine.memory_gb > 0.5
    assert machine.versions["numpy"] == np.__version__
    assert machine.date.endswith("+00:00")
    kernel = subprocess.run(["uname", "-r"], capture_output=True, text=True, check=True).stdout.strip()
    assert kernel.partition("-")[0] in machine.system
