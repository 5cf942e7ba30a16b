"""Two reports told apart from noise: in simulated noise, and in real runs of the demo's bundle."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ovavel.eval.bench import Settings, run_bench
from ovavel.eval.bench.compare import LEAST_WINDOWS, compare
from ovavel.eval.bench.read import Report, read_report
from ovavel.eval.demo import assets
from ovavel.runtime.backends import Backend, HeadOutput, open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.graphs import Encoders
from ovavel.runtime.cli import main
from ovavel.runtime.errors import InputError
from ovavel.runtime.types import Sense

DEMO = Path(assets.__file__).parent
LEFT_ALONE = 0.25
PLANTED = 0.15


def simulated(
    seed: int, *, slower: float = 0.0, drift: float = 0.0, waits: float = 0.0, n: int = 150
) -> dict[str, Any]:
    """A report of a machine whose speed wanders, in spells and by `drift` over the run, and that others use too."""
    random = np.random.default_rng(seed)
    spells = np.repeat(random.normal(0, 0.15, -(-n // 10)), 10)[:n]
    machine = np.exp(random.normal(0, 0.2) + spells + np.linspace(0, drift, n))
    taken = [1 + waits * random.exponential(0.3, n) * (random.random(n) < 0.3) for _ in range(2)]
    cpu = 10 * (1 + slower) * machine * np.exp(random.normal(0, 0.04, n))
    yardstick_cpu = 8 * machine * np.exp(random.normal(0, 0.04, n))
    return written(cpu * taken[0], cpu, yardstick_cpu * taken[1], yardstick_cpu)


def written(
    window: NDArray[np.float64], cpu: NDArray[np.float64], yardstick: NDArray[np.float64], its_cpu: NDArray[np.float64]
) -> dict[str, Any]:
    single = {
        "stages": {"window": {"p50": float(np.median(window)), "p99": float(np.max(window))}},
        "durations_ms": {"window": window.tolist(), "vision": (window / 2).tolist()},
        "cpu_ms": cpu.tolist(),
        "yardstick_ms": yardstick.tolist(),
        "yardstick_cpu_ms": its_cpu.tolist(),
    }
    backend = {"device": "cpu", "threads": 1, "versions": {}}
    row = {"name": "own", "reference": False, "backend": backend, "single": single}
    machine = {"cpu": "a", "cores": 2, "gpus": [], "versions": {"numpy": "2"}}
    return {"format": 2, "machine": machine, "media": "noise", "rows": [row]}


def verdict(before: dict[str, Any], after: dict[str, Any]) -> str:
    return compare(*(msgspec.convert(report, Report) for report in (before, after))).rows[0].verdict


@given(seed=st.integers(0, 10_000), drift=st.floats(-0.4, 0.4), waits=st.floats(0, 2))
@settings(max_examples=40)
def test_a_repeated_run_is_the_same_whatever_the_machine_does(seed: int, drift: float, waits: float) -> None:
    assert verdict(simulated(seed, waits=waits), simulated(seed + 1, drift=drift, waits=waits)) == "same"


@given(seed=st.integers(0, 10_000), drift=st.floats(-0.4, 0.4))
@settings(max_examples=40)
def test_fifteen_per_cent_are_found_either_way(seed: int, drift: float) -> None:
    slow = simulated(seed + 1, slower=PLANTED, drift=drift, waits=0.5)
    assert verdict(simulated(seed, waits=0.5), slow) == "slower"
    assert verdict(slow, simulated(seed, waits=0.5)) == "faster"


def test_waiting_that_takes_no_processor_time_is_found_by_the_clock() -> None:
    before, after = simulated(1), simulated(2)
    after["rows"][0]["single"]["durations_ms"]["window"] = [
        1.6 * value for value in after["rows"][0]["single"]["durations_ms"]["window"]
    ]
    assert verdict(before, after) == "slower"


def test_without_a_yardstick_the_clock_decides() -> None:
    random = np.random.default_rng(0)
    steady = [2 * np.exp(random.normal(0, 0.02, 200)) for _ in range(3)]
    before, same, slow = (
        written(wall, wall, np.array([]), np.array([])) for wall in (steady[0], steady[1], 1.15 * steady[2])
    )
    assert (verdict(before, same), verdict(before, slow)) == ("same", "slower")


def test_files_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    few, none, old = simulated(1, n=LEAST_WINDOWS - 1), simulated(1), {"format": 1}
    none["rows"][0]["single"] = None
    for name, content in {"good": simulated(1), "few": few, "none": none, "old": old, "text": "x"}.items():
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "deep").write_text('{"more": ' + "[" * 100_000)
    good = read_report(tmp_path / "good")
    for name, said in {"few": "19 windows are too few", "none": "no row was measured in both"}.items():
        with pytest.raises(InputError, match=said):
            compare(good, read_report(tmp_path / name))
    for name, said in {
        "old": "not a report of",
        "text": "not a report of",
        "deep": "not a report of",
        "nowhere": "cannot read",
    }.items():
        with pytest.raises(InputError, match=said):
            read_report(tmp_path / name)
    with pytest.raises(InputError, match="format 3"):
        compare(good, msgspec.structs.replace(good, format=3))


@pytest.mark.parametrize("key", ["window", "cpu_ms", "yardstick_ms", "yardstick_cpu_ms"])
def test_a_report_whose_windows_are_not_whole_is_refused(
    key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, keep in {"missing": 0, "short": -1}.items():
        report = simulated(1)
        single = report["rows"][0]["single"]
        holder = single["durations_ms"] if key == "window" else single
        holder[key] = holder[key][:keep]
        if (key, name) == ("window", "missing"):
            del holder[key]
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(report))
        assert main(["bench", "compare", str(path), str(path)]) == 1
        assert "does not have one duration" in capsys.readouterr().err


def test_a_stage_that_some_windows_lack_is_not_compared() -> None:
    before, after = simulated(1), simulated(2)
    del before["rows"][0]["single"]["durations_ms"]["vision"][3:]
    change = compare(*(msgspec.convert(report, Report) for report in (before, after))).rows[0]
    assert change.stages == {}
    assert change.verdict == "same"


def test_the_command_says_what_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / name for name in ("before.json", "after.json", "out")]
    after = simulated(2, slower=PLANTED)
    after["machine"] |= {"versions": {"numpy": "3"}, "cpu_features": ["avx2"]}
    after["rows"][0]["name"] = "renamed"
    before = simulated(1)
    before["machine"]["cpu_features"] = ["avx2", "avx512_vnni"]
    for path, report in zip(paths, (before, after), strict=False):
        path.write_text(json.dumps(report))
    assert main(["bench", "compare", str(paths[0]), str(paths[1]), "--out", str(paths[2])]) == 1
    said = capsys.readouterr().out
    assert "own → renamed: SLOWER beyond noise" in said
    assert "numpy: 2, then 3" in said
    assert "the processor's features: avx2 avx512_vnni, then avx2" in said
    written = json.loads((paths[2] / "compare.json").read_text())["rows"][0]
    assert written["verdict"] == "slower"
    assert written["clock"]["low"] < written["clock"]["share"] < written["clock"]["high"]
    assert main(["bench", "compare", str(paths[1]), str(paths[0])]) == 0
    reported = capsys.readouterr().out
    assert "faster beyond noise" in reported
    assert "caution: own: 150 windows show only large changes; 200 show more" in reported


def others_busy() -> float:
    """Share of the cores that is in use while this program does nothing."""

    def ticks() -> NDArray[np.int64]:
        return np.array(Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9], np.int64)

    before = ticks()
    time.sleep(0.5)
    spent = ticks() - before
    return float(1 - (spent[3] + spent[4]) / max(spent.sum(), 1))  # idle, and waiting for a disk


class Late:
    """A backend that is busy for longer than it needs to be, by a share of each call's own time."""

    def __init__(self, inner: Backend, share: float) -> None:
        self._inner = inner
        self._share = share
        self.info = inner.info

    def _late(self, call: Callable[..., Any], *inputs: Any) -> Any:
        begin_s = time.perf_counter()
        answer = call(*inputs)
        now_s = time.perf_counter()
        end_s = now_s + self._share * (now_s - begin_s)
        while time.perf_counter() < end_s:
            pass
        return answer

    def vision(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._late(self._inner.vision, frames)

    def audio(self, log_mels: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._late(self._inner.audio, log_mels)

    @property
    def encoders(self) -> Encoders:
        return self._inner.encoders

    def text(self, tokens: NDArray[np.int64], sense: Sense) -> NDArray[np.float32]:
        return self._inner.text(tokens, sense)

    def head(self, *inputs: Any) -> HeadOutput:
        return self._late(self._inner.head, *inputs)

    def warm_up(self) -> None:
        self._inner.warm_up()

    def close(self) -> None:
        self._inner.close()


@pytest.mark.alone
class TestRealRuns:
    """Of the demo's bundle, one after the other, on any machine that is left alone."""

    @pytest.fixture
    def measure(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[float, int], Report]:
        bundle = Bundle.open(DEMO / "bundle")

        def run(share: float, windows: int) -> Report:
            monkeypatch.setattr(
                "ovavel.eval.bench.rows.open_compared",
                lambda *args, **options: Late(open_backend(*args, **options), share),
            )
            found = run_bench(
                bundle,
                device="cpu",
                threads=1,
                media=str(DEMO / "clip.mp4"),
                settings=Settings(windows=windows, warm_up_s=2),
            )
            return msgspec.json.decode(msgspec.json.encode(found), type=Report)

        return run

    def rounds(self, measure: Callable[[float, int], Report], count: int, windows: int) -> tuple[list[str], list[str]]:
        """Verdicts on `count` repeated runs, and on as many that are slower by what is planted."""
        before = measure(0, windows)
        single = before.rows[0].single
        assert single
        within = sum(np.median(single.durations_ms[stage]) for stage in ("vision", "audio", "head"))
        share = (
            PLANTED * np.median(single.durations_ms["window"]) / within
        )  # of the calls, so that the window is 15 % more
        repeated, planted = [], []
        for _ in range(count):
            for expected, late, verdicts in (("same", 0, repeated), ("slower", share, planted)):
                for _ in range(2):  # a hiccup of the machine does not happen twice; a fault does
                    if (busy := others_busy()) > LEFT_ALONE:
                        pytest.skip(f"other programs use {busy:.0%} of the cores")
                    after = measure(late, windows)
                    verdict = compare(before, after).rows[0].verdict
                    if verdict == expected:
                        break
                    before = measure(0, windows)
                verdicts.append(verdict)
        return repeated, planted

    def test_a_planted_slow_down_is_found_and_a_repeated_run_is_not_one(
        self, measure: Callable[[float, int], Report]
    ) -> None:
        assert self.rounds(measure, 1, 150) == (["same"], ["slower"])

    @pytest.mark.slow
    @pytest.mark.proof
    @pytest.mark.timeout(600)
    def test_ten_times_out_of_ten(self, measure: Callable[[float, int], Report]) -> None:
        assert self.rounds(measure, 10, 300) == (["same"] * 10, ["slower"] * 10)
