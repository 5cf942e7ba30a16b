"""The matrix of engines, run on the CPU with the tiny model."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ovavel.eval.bench import RowSpec, Settings
from ovavel.eval.demo.assets import Assets
from ovavel.export.gpu_bench import row as matrix_row
from ovavel.export.gpu_bench.matrix import Budget, MatrixReport, matrix_rows, run_matrix
from ovavel.export.gpu_bench.prepared import Prepared
from ovavel.export.gpu_bench.process import Answer, in_process
from ovavel.export.gpu_bench.report import matrix_markdown, write_matrix
from ovavel.runtime.backends.tensorrt.plan import BuildOptions
from ovavel.runtime.cli import main
from ovavel.runtime.errors import DeviceError
from ovavel.runtime.system.progress import no_progress

pytestmark = pytest.mark.slow


QUICK = Settings(scenarios=("parity", "single", "live"), windows=5, trial_s=1.0, warm_up_s=1.0, most_cameras=1)


def run_quickly(
    prepared: Prepared,
    specs: Sequence[RowSpec],
    folder: Path,
    *,
    device: str = "cpu",
    spent_s: float = 0.0,
    budget_s: float = 100.0,
    build_s: float = 60.0,
) -> MatrixReport:
    """Run a quick matrix of `specs` with `spent_s` of its budget used."""
    return run_matrix(
        prepared,
        specs,
        device=device,
        budget=Budget(
            begin_s=time.monotonic() - spent_s, prepared_s=0.0, total_s=budget_s, row_s=60.0, build_s=build_s
        ),
        settings=QUICK,
        folder=folder,
        progress=no_progress,
    )


def test_other_rows_continue_after_a_failure(
    exported_bundle: Path, tiny_weights: Path, tiny_head: Path, tmp_path: Path
) -> None:
    prepared = Prepared(bundle=exported_bundle, weights=tiny_weights, head=tiny_head, description="weights of tiny.pth")
    specs = matrix_rows(tiny_weights, tiny_head, wanted=["graph fp32", "onnxruntime fp32", "tensorrt-rtx fp16"])
    report = run_quickly(prepared, specs, tmp_path)
    rows = {row.name: row for row in report.rows}
    own = rows["onnxruntime fp32"]
    assert own.single
    assert len(own.single.durations_ms["window"]) == 5
    assert own.live
    assert own.gate
    assert own.gate.passed
    assert own.floor
    assert "CUDA graphs need a GPU" in str(rows["PyTorch graph fp32"].not_measured)
    assert "NVIDIA" in str(rows["tensorrt-rtx fp16"].not_measured)
    text = matrix_markdown(report)
    assert "| onnxruntime fp32 |" in text
    assert ", weights of tiny.pth, bundle " in text
    assert "random weights" not in text
    assert "for weights and bundle" not in text, "none were created"
    assert "- PyTorch graph fp32: CUDA graphs" in text
    page, data = write_matrix(report, tmp_path / "out")
    assert page.read_text() == text
    assert json.loads(data.read_text())["rows"][0]["name"] == report.rows[0].name


def test_a_row_without_time_left_is_not_started(exported_bundle: Path, tiny_weights: Path, tmp_path: Path) -> None:
    report = run_quickly(
        Prepared(bundle=exported_bundle, weights=tiny_weights, head=None, description="weights"),
        [RowSpec(name="onnxruntime")],
        tmp_path,
        spent_s=100,
        budget_s=101.0,
    )
    assert report.rates is None
    assert report.rows[0].not_measured == "the time budget of 101 s was used up"
    assert report.notes == ["rates not measured: the time budget of 101 s was used up"]


def test_impossible_rows_are_reported_as_such_even_without_time_left(
    exported_bundle: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    report = run_quickly(
        Prepared(bundle=exported_bundle, weights=tiny_weights, head=None, description="weights"),
        matrix_rows(tiny_weights, None, wanted=["graph fp32", "tensorrt fp16"]),
        tmp_path,
        spent_s=100,
        budget_s=101.0,
    )
    reasons = {row.name: str(row.not_measured) for row in report.rows}
    assert "not installed" in reasons["tensorrt fp16"] or "NVIDIA" in reasons["tensorrt fp16"]
    assert reasons["PyTorch graph fp32"] == "CUDA graphs need a GPU"


def test_the_most_important_rows_come_first(tiny_weights: Path) -> None:
    names = [spec.name for spec in matrix_rows(tiny_weights, None)]
    assert names[:6] == [
        *("PyTorch eager fp32", "onnxruntime fp16", "onnxruntime fp32", "onnxruntime bf16"),
        *("tensorrt fp16", "tensorrt-rtx fp16"),
    ]
    assert names[-4:] == ["tensorrt fp32", "tensorrt-rtx fp32", "tensorrt bf16", "tensorrt-rtx bf16"]
    assert len(set(names)) == len(names) == 17


def test_plans_are_built_before_a_row_within_a_separate_limit(
    exported_bundle: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested = []

    def answers(job: dict[str, Any], _folder: Path, *, limit_s: float, doing: str) -> Answer:
        name = job["spec"] and job["spec"]["name"]
        requested.append((job["kind"], name, limit_s))
        if job["kind"] == "build":
            if name == "tensorrt fp16":
                return Answer(content=b"63.04")
            return Answer(why=f"{doing} took longer than {limit_s:.0f} s")
        return Answer(why="there is no GPU")

    monkeypatch.setattr("ovavel.export.gpu_bench.matrix.in_process", answers)
    monkeypatch.setattr("ovavel.export.gpu_bench.matrix._impossible", lambda *_: None)
    report = run_quickly(
        Prepared(bundle=exported_bundle, weights=tiny_weights, head=None, description="weights"),
        matrix_rows(tiny_weights, None, wanted=["tensorrt fp16", "tensorrt fp32", "onnxruntime fp16"]),
        tmp_path,
        budget_s=470.0,
        build_s=90.0,
    )
    assert requested == [
        ("rates", None, 60),
        ("row", "onnxruntime fp16", 60),
        ("build", "tensorrt fp16", 90),
        ("row", "tensorrt fp16", 60),
        ("build", "tensorrt fp32", 90),
    ]
    assert report.rows[-1].not_measured == "building its plans took longer than 90 s"
    assert report.built_s == {"tensorrt fp16": 63.0}
    assert "- tensorrt fp16: building its plans took 63 s" in matrix_markdown(report)


@pytest.mark.parametrize("kind", ["build", "row"])
def test_engines_are_built_and_run_for_fewer_batches(
    exported_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    requested = []

    def opened(*_: Any, name: str, options: BuildOptions, **__: Any) -> None:
        requested.append((name, options.batches))
        raise DeviceError("there is no GPU")

    monkeypatch.setattr("ovavel.export.gpu_bench.row.open_compared", opened)
    monkeypatch.setattr("ovavel.eval.bench.rows.open_compared", opened)
    spec = {"name": "tensorrt fp16", "backend": "tensorrt", "options": {"precision": "fp16"}}
    job = {
        "bundle": str(exported_bundle),
        "device": "cuda",
        "settings": msgspec.to_builtins(QUICK),
        "kind": kind,
        "spec": spec,
    }
    media = str(Assets.open().clip)
    assert matrix_row.main(json.dumps({**job, "media": media}), str(tmp_path / "answer")) == 1
    assert requested == [("tensorrt", (1, 8))]
    assert max(requested[0][1]) < max(BuildOptions().batches)


def test_building_opens_the_backend_once(exported_bundle: Path, tmp_path: Path) -> None:
    job = {
        "bundle": str(exported_bundle),
        "device": "cpu",
        "media": "",
        "settings": msgspec.to_builtins(QUICK),
        "kind": "build",
    }
    spec = {"name": "onnxruntime fp32", "options": {"precision": "fp32"}}
    assert matrix_row.main(json.dumps({**job, "spec": spec}), str(tmp_path / "answer")) == 0
    assert 0 < json.loads((tmp_path / "answer").read_text()) < 60


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("keep", [False, True])
def test_engines_and_timings_are_stored_next_to_the_weights(
    exported_bundle: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: bool, keep: bool
) -> None:
    folders: list[Path] = []

    def run(*_: Any, folder: Path, **__: Any) -> MatrixReport:
        folders.append(folder)
        assert folder.is_dir()
        raise DeviceError("far enough")

    prepared = Prepared(bundle=exported_bundle, weights=tiny_weights, head=None, description="random weights")
    monkeypatch.setattr("ovavel.export.gpu_bench.prepared.prepare", lambda *_: prepared)
    monkeypatch.setattr("ovavel.export.gpu_bench.matrix.run_matrix", run)
    arguments = ["--device", "cpu", "--out", str(tmp_path / "out")]
    if given:
        arguments += ["--bundle", str(exported_bundle), "--weights", str(tiny_weights)]
    if keep:
        arguments += ["--keep", str(tmp_path / "kept")]
    assert main(["bench", "gpu", *arguments]) == 1
    assert (folders == [tmp_path / "kept"]) == keep
    assert folders[0].is_dir() == keep, "files that are not to be kept are removed"


def test_a_gpu_unsupported_by_tensorrt_rtx_takes_no_time(
    exported_bundle: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    pytest.importorskip("tensorrt_rtx")
    requested: list[str] = []

    def answers(job: dict[str, Any], *_: Any, **__: Any) -> Answer:
        requested.append(job["kind"])
        return Answer(why="there is no GPU")

    capability = (9, 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr("ovavel.export.gpu_bench.matrix.in_process", answers)
    monkeypatch.setattr("ovavel.export.gpu_bench.matrix.device_name", lambda device: device)
    prepared = Prepared(bundle=exported_bundle, weights=tiny_weights, head=None, description="weights")
    specs = matrix_rows(tiny_weights, None, wanted=["tensorrt-rtx fp16"])
    (row,) = run_quickly(prepared, specs, tmp_path, device="cuda").rows
    assert requested == ["rates"]
    assert "not 9.0; use TensorRT or ONNX Runtime for such a GPU" in str(row.not_measured)
    capability = (8, 9)
    report = run_quickly(prepared, specs, tmp_path, device="cuda")
    assert requested == ["rates", "rates", "build"]
    assert "batches of 1 and 8" in report.rules["engines"]
    assert "**engines**: those of TensorRT and TensorRT-RTX are built only for batches of 1 and 8" in matrix_markdown(
        report
    )


def test_an_incomplete_row_is_marked(
    exported_bundle: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(job: dict[str, Any], folder: Path, **given: Any) -> Answer:
        answer = in_process(job, folder, **given)
        return Answer(content=answer.content, why="it took longer than 9 s") if job["kind"] == "row" else answer

    monkeypatch.setattr("ovavel.export.gpu_bench.matrix.in_process", cut)
    prepared = Prepared(bundle=exported_bundle, weights=tiny_weights, head=None, description="weights")
    (row,) = run_quickly(prepared, [RowSpec(name="onnxruntime")], tmp_path).rows
    assert row.single
    assert row.notes[-1] == "it took longer than 9 s; the measurement is incomplete"


def test_a_missing_gpu_is_reported_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert main(["bench", "gpu", "--out", str(tmp_path / "out")]) == 1
    assert "cuda is unavailable" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
