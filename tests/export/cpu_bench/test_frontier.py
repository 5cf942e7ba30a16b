"""The frontier on a tiny model: every candidate runs, and its figures are plausible."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from ovavel.export.cpu_bench.candidates import CANDIDATES, REFERENCE
from ovavel.export.cpu_bench.frontier import Frontier, FrontierRow, _take_turns, default_of, measure_frontier
from ovavel.export.cpu_bench.report import html, markdown
from ovavel.runtime.cli import main
from ovavel.runtime.errors import DeviceError, ExportError
from ovavel.runtime.system.progress import no_progress
from ovavel.runtime.system.timing import Percentiles
from ovavel.training.models.imagebind.model import ImageBindConfig

pytestmark = pytest.mark.slow

CHOSEN = (REFERENCE, "ONNX Runtime fp32", "ONNX Runtime int8, plain dynamic", "… + outlier migration")


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
    assert reference.times_faster == 1
    cosines = [min(row.min_cosine.values()) for row in (exact, plain, migrated) if row.min_cosine]
    assert cosines[0] > 1 - 1e-9
    assert cosines[1] < cosines[2] < cosines[0]
    assert found.default == exact.name  # among those that a bundle can contain


def test_reports_contain_every_row(found: Frontier) -> None:
    assert markdown(found).splitlines()[0].endswith(", ".join(found.machine.cpu_features) or "hidden ones")
    for row in found.rows:
        assert row.name in markdown(found)
        assert row.name.encode() in html(found)
    assert "<svg" in html(found).decode()
    assert msgspec.json.decode(msgspec.json.encode(found), type=Frontier) == found


def row(
    name: str, times_faster: float, *, passed: bool, exported: bool = True, exact: bool = True, cosine: float = 1
) -> FrontierRow:
    return FrontierRow(
        name=name,
        window_ms=Percentiles(1, 1, 1),
        times_faster=times_faster,
        min_cosine={"vision": 1, "audio": cosine},
        exact=exact,
        passed=passed,
        exported=exported,
    )


def test_the_default_is_the_fastest_that_passes_and_can_be_exported() -> None:
    rows = [row("a", 2, passed=True), row("b", 3, passed=False), row("c", 4, passed=True, exported=False)]
    assert default_of(rows) == "a"
    assert default_of(rows[1:]) is None
    assert default_of([*rows, row("d", 5, passed=True, exact=False)]) == "a"  # it saturates on this CPU


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
    assert saturated == (set() if exact else {"int8", "int16", "int8-static"})


def test_a_reference_that_cannot_run_is_an_error(tmp_path: Path, tiny_weights: Path) -> None:
    working = next(candidate for candidate in CANDIDATES if candidate.name == "ONNX Runtime fp32")
    broken = replace(working, name="broken", file="broken", write=lambda model, _: model.graph.outputs.clear())
    with pytest.raises(ExportError, match="broken could not be measured"):
        measure_frontier(tiny_weights, tmp_path, config=ImageBindConfig.tiny(), windows=1, candidates=[broken, working])


def test_a_candidate_that_dies_is_dropped() -> None:
    class Steady:
        def run(self, window: object) -> tuple[dict[str, object], float]:
            return {"vision": 0, "audio": 0}, 1.0

        def memory_mb(self) -> float:
            return 1.0

    class Dying(Steady):
        def run(self, window: object) -> tuple[dict[str, object], float]:
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
