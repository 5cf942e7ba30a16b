"""The frontier on a tiny model: every candidate runs, and its figures are plausible."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from ovavel.eval.bench.meters.cost import flops
from ovavel.eval.bench.meters.rates import IntegerPeak, measure_integer_peak
from ovavel.export.cpu_bench.candidates import CANDIDATES, REFERENCE, chosen
from ovavel.export.cpu_bench.frontier import Frontier, FrontierRow, _take_turns, default_of, measure_frontier
from ovavel.export.cpu_bench.operators import operator_times
from ovavel.export.cpu_bench.report import html, markdown
from ovavel.export.cpu_bench.worker import Encoded
from ovavel.runtime.cli import main
from ovavel.runtime.errors import DeviceError, ExportError
from ovavel.runtime.system.progress import no_progress
from ovavel.runtime.system.timing import Percentiles
from ovavel.training.models.imagebind.model import ImageBindConfig

pytestmark = pytest.mark.slow

CHOSEN = (REFERENCE, "ONNX Runtime fp32", "ONNX Runtime int8, plain dynamic", "… + outlier migration")


@pytest.fixture(scope="module", autouse=True)
def quick_peak() -> Iterator[None]:
    """Measure the integer peak on small matrices: the usual ones take many seconds."""
    with pytest.MonkeyPatch.context() as patch:
        quick = partial(measure_integer_peak, sizes=(256,), for_s=0.02)
        patch.setattr("ovavel.export.cpu_bench.frontier.measure_integer_peak", quick)
        yield


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Frontier:
    return measure_frontier(
        tiny_weights,
        tmp_path_factory.mktemp("frontier"),
        config=ImageBindConfig.tiny(),
        outliers=True,
        windows=2,
        candidates=[candidate for candidate in CANDIDATES if candidate.name in CHOSEN],
    )


def test_rows_have_accuracy_and_speed(found: Frontier) -> None:
    reference, exact, plain, migrated = found.rows
    assert [row.name for row in found.rows] == list(CHOSEN)
    for row in found.rows:
        assert row.not_measured is None
        assert row.window_ms and 0 < row.window_ms.p50 <= row.window_ms.p95
        assert row.peak_mb > 50
        assert row.first_result_s > 0
        assert row.encoder_ms and min(row.encoder_ms.values()) > 0
    assert reference.times_faster == 1
    cosines = [min(row.min_cosine.values()) for row in (exact, plain, migrated) if row.min_cosine]
    assert cosines[0] > 1 - 1e-9
    assert cosines[1] < cosines[2] < cosines[0]
    assert found.default == exact.name  # among those that a bundle can contain


def test_the_share_of_the_integer_peak_is_operations_over_time(found: Frontier) -> None:
    reference, exact, plain, migrated = found.rows
    assert found.integer_peak.gops >= found.integer_peak.one_thread_gops > 0
    assert reference.of_integer_peak is exact.of_integer_peak is None  # they multiply floats
    for row in (plain, migrated):
        assert row.encoder_ms and row.of_integer_peak
        for sense, ms in row.encoder_ms.items():
            gops = flops(ImageBindConfig.tiny().to_dict(), sense) / 1e9 / (ms / 1e3)
            assert row.of_integer_peak[sense] == pytest.approx(gops / found.integer_peak.gops)


def test_the_higher_of_two_peaks_counts() -> None:
    first, second = IntegerPeak(one_thread_gops=3, gops=4), IntegerPeak(one_thread_gops=2, gops=5)
    assert first.or_higher(second) == second.or_higher(first) == IntegerPeak(one_thread_gops=3, gops=5)


def test_the_time_of_the_best_candidate_is_listed_by_operator(found: Frontier) -> None:
    for times in found.operators.values():
        assert {"MatMul", "LayerNormalization"} <= set(times)
        assert list(times.values()) == sorted(times.values(), reverse=True)
    assert "| vision | all others |" in markdown(found)


def test_a_graph_that_cannot_be_profiled_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "vision.onnx").write_bytes(b"nothing")
    with pytest.raises(DeviceError, match=r"cannot profile vision\.onnx"):
        operator_times(tmp_path / "vision.onnx", 1, (1, 3, 224, 224))


def test_candidates_are_chosen_by_precision() -> None:
    assert chosen(()) == CANDIDATES
    assert [(each.name == REFERENCE, each.gate) for each in chosen(["int8", "fp32"])] == [
        (True, "fp32"),
        (False, "fp32"),
        (False, "int8"),
    ]


def test_reports_contain_every_row(found: Frontier) -> None:
    assert markdown(found).splitlines()[0].endswith(", ".join(found.machine.cpu_features) or "hidden ones")
    for row in found.rows:
        assert row.name in markdown(found)
        assert row.name.encode() in html(found)
    assert "<svg" in html(found).decode()
    assert msgspec.json.decode(msgspec.json.encode(found), type=Frontier) == found


def row(
    name: str,
    times_faster: float,
    *,
    passed: bool,
    exported: bool = True,
    exact: bool = True,
    cosine: float = 1,
    gate: str = "int8",
) -> FrontierRow:
    return FrontierRow(
        name=name,
        window_ms=Percentiles(1, 1, 1),
        times_faster=times_faster,
        min_cosine={"vision": 1, "audio": cosine},
        exact=exact,
        passed=passed,
        exported=exported,
        gate=gate,
    )


def test_the_default_is_the_fastest_that_passes_and_can_be_exported() -> None:
    rows = [row("a", 2, passed=True), row("b", 3, passed=False), row("c", 4, passed=True, exported=False)]
    assert default_of(rows) == "a"
    assert default_of(rows[1:]) is None
    assert default_of([*rows, row("d", 5, passed=True, exact=False)]) == "a"  # it saturates on this CPU
    assert default_of([*rows, row("e", 5, passed=True, gate="int8-pooled")]) == "a"  # it has to be asked for


def test_among_equally_fast_candidates_the_default_is_the_most_accurate() -> None:
    rows = [row("near", 2.95, passed=True, cosine=0.999), row("far", 3, passed=True, cosine=0.998)]
    assert default_of(rows) == "near"
    assert default_of([*rows, row("faster", 3.2, passed=True, cosine=0.995)]) == "faster"


@pytest.mark.parametrize(("features", "exact"), [((), False), (("avx2",), False), (("avx2", "avx_vnni"), True)])
def test_candidates_that_saturate_on_this_cpu_are_not_exact(
    features: tuple[str, ...], exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ovavel.export.cpu_bench.candidates.cpu_features", lambda: features)
    saturated = {candidate.gate for candidate in CANDIDATES if not candidate.exact}
    assert saturated == (set() if exact else {"int8", "int8-pooled", "int16", "int8-static"})


def test_a_reference_that_cannot_run_is_an_error(tmp_path: Path, tiny_weights: Path) -> None:
    working = next(candidate for candidate in CANDIDATES if candidate.name == "ONNX Runtime fp32")
    broken = replace(working, name="broken", file="broken", write=lambda model, _: model.graph.outputs.clear())
    with pytest.raises(ExportError, match="broken could not be measured"):
        measure_frontier(tiny_weights, tmp_path, config=ImageBindConfig.tiny(), windows=1, candidates=[broken, working])


def test_a_candidate_that_dies_is_dropped() -> None:
    class Steady:
        first_result_s = 1.0

        def run(self, window: object) -> Encoded:
            return Encoded({"vision": np.zeros(1, np.float32), "audio": np.zeros(1, np.float32)}, 1.0, {})

        def memory_mb(self) -> float:
            return 1.0

    class Dying(Steady):
        def run(self, window: object) -> Encoded:
            raise DeviceError("died")

    workers: dict[str, Any] = {"reference": Steady(), "dying": Dying(), "steady": Steady()}
    measured: dict[str, Any] = {}
    problems: dict[str, str] = {}
    cases: Any = {"vision": [0, 1], "audio": [0, 1]}
    _take_turns(workers, cases, measured, problems, progress=no_progress)
    assert problems == {"dying": "died"}
    assert [len(measured[name].window_ms) for name in ("reference", "steady")] == [2, 2]
    with pytest.raises(DeviceError, match="died"):
        _take_turns({"reference": cast("Any", Dying())}, cases, {}, {}, progress=no_progress)


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_the_command_runs_every_candidate(tmp_path: Path, tiny_weights: Path) -> None:
    arguments = ["--weights", str(tiny_weights), "--config", "tiny", "--out", str(tmp_path / "out"), "--windows", "2"]
    assert main(["bench", "cpu", *arguments]) == 0
    rows = json.loads((tmp_path / "out" / "frontier.json").read_text())["rows"]
    assert [row["name"] for row in rows] == [candidate.name for candidate in CANDIDATES]
    assert {row["name"]: row["not_measured"] for row in rows if row["not_measured"]} == {}
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "frontier.html",
        "frontier.json",
        "frontier.md",
    ]
