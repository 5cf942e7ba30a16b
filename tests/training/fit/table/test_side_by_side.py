"""Runs of a table trained several at once: the same files, whatever ends the command in between."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.feature_cache_factory import write_cache
from support.ovavebench_factory import make_bench
from support.service import until

from ovavel.eval.datasets.feature_cache import FeatureCache
from ovavel.eval.datasets.ovavebench import OVAVEBench
from ovavel.runtime.errors import DeviceError, MissingExtraError, UsageError
from ovavel.runtime.system.progress import Progress, no_progress
from ovavel.training.fit.recipes import RECIPES, Recipe
from ovavel.training.fit.table.jobs import table_jobs
from ovavel.training.fit.table.results import Results
from ovavel.training.fit.table.run import Plan, run_table
from ovavel.training.fit.table.side_by_side import _portable
from ovavel.training.fit.table.suites import table_rows

SMALL = {"hidden": 8, "ffn": 8, "epochs": 2, "learning_rate": 1e-3}
PLAN = [
    replace(RECIPES["paper"], **SMALL),
    replace(RECIPES["ratio-50"], **SMALL),
    replace(RECIPES["ave"], epochs=2),
    replace(RECIPES["complex"], epochs=2),
]
SEEDS = [1, 2]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("side-by-side")
    make_bench(place / "data", clips=4, media=False)
    write_cache(place / "features" / "cache", OVAVEBench.open(place / "data"), {"train": 1})
    return place


def table(
    place: Path, out: Path, *, processes: int, progress: Progress = no_progress, plan: list[Recipe] = PLAN
) -> Results:
    bench, cache = OVAVEBench.open(place / "data"), FeatureCache.open(place / "features")
    rows = Plan(rows=table_rows(None, plan), seeds=SEEDS)
    return run_table(bench, cache, rows, out, device="cpu", processes=processes, progress=progress)


def files(out: Path) -> dict[str, bytes]:
    kept = (file for file in out.rglob("*") if file.is_file() and file.name != "times.json")
    return {str(file.relative_to(out)): file.read_bytes() for file in kept}


@pytest.fixture(scope="module")
def alone(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone")
    assert not any("side by side" in remark for remark in table(place, out, processes=1).remarks)
    return out


@pytest.mark.proof
@pytest.mark.timeout(300)
def test_side_by_side_gives_the_same_files_even_if_interrupted(place: Path, alone: Path, tmp_path: Path) -> None:
    seen: list[tuple[float, float | None]] = []

    def cut(what: str, done: float | None = None, total: float | None = 1.0, note: str = "") -> None:
        seen.append((done or 0.0, total))
        if len(seen) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        table(place, tmp_path, processes=2, progress=cut)
    assert not multiprocessing.active_children()
    assert not list(tmp_path.glob("*/seed-*/.*.copy"))
    whole: list[tuple[float, float | None]] = []

    def note(what: str, done: float | None = None, total: float | None = 1.0, note: str = "") -> None:
        if what == "training":
            whole.append((done or 0.0, total))

    results = table(place, tmp_path, processes=2, progress=note)
    assert not multiprocessing.active_children()
    assert files(tmp_path) == files(alone)
    assert len({total for _, total in whole}) == 1
    assert all(done <= (total or 0) + 1e-9 for done, total in whole)
    assert any("up to 2 runs side by side" in remark for remark in results.remarks)
    lent = (alone / "paper" / "seed-2" / "head.safetensors").read_bytes()
    assert (tmp_path / "complex" / "seed-2" / "trunk" / "head.safetensors").read_bytes() == lent


@pytest.mark.timeout(300)
def test_the_error_of_a_run_ends_the_command_and_all_processes(place: Path, tmp_path: Path) -> None:
    table(place, tmp_path, processes=1, plan=[replace(PLAN[0], epochs=1)])
    with pytest.raises(UsageError, match=r"paper/seed-\d holds a head of another recipe"):
        table(place, tmp_path, processes=2, plan=PLAN[:2])
    assert not multiprocessing.active_children()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_killed_process_is_reported(place: Path, tmp_path: Path) -> None:
    def kill(*_: object) -> None:
        for process in multiprocessing.active_children():
            process.kill()

    with pytest.raises(DeviceError, match=r"was killed.*fewer --processes: it resumes"):
        table(place, tmp_path, processes=2, progress=kill)
    assert not multiprocessing.active_children()


@pytest.mark.timeout(300)
def test_sigterm_ends_all_processes_and_the_runs_resume(place: Path, tmp_path: Path) -> None:
    words = ["--recipes", "paper", "ave", "--seeds", "1", "--epochs", "100000", "--device", "cpu", "--processes", "2"]
    folders = ["--data", place / "data", "--features", place / "features", "--out", tmp_path]
    command = [Path(sys.executable).with_name("ovavel"), "train", "table", *folders, *words]
    runs = [tmp_path / name / "seed-1" for name in ("paper", "ave")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            until(lambda: process.poll() is not None or all((run / "state.safetensors").exists() for run in runs))
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=90)  # until no process holds its standard error
        finally:
            process.kill()
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert not any((run / "result.json").exists() for run in runs)


def test_what_is_a_trunk_comes_first_and_long_runs_before_short_ones(tmp_path: Path) -> None:
    jobs = table_jobs(table_rows("all", []), [1, 2], tmp_path)
    order = [job.recipe.name for job in jobs]
    assert order[:4] == ["paper", "paper", "complex", "complex"]
    ratios = [job.recipe.train_ratio for job in jobs]
    assert ratios == sorted(ratios, reverse=True)
    assert all((job.trunk is not None) == (job.recipe.name == "complex") for job in jobs)


def test_an_error_is_sent_with_its_kind_and_message() -> None:
    usage = _portable(UsageError("no such thing"))
    assert isinstance(usage, UsageError)
    missing = _portable(MissingExtraError("torch", "train", need="Training"))  # cannot be unpickled
    assert "Training needs torch" in str(missing)
    assert getattr(missing, "exit_code", None) == 1
    odd = _portable(ValueError("a mistake"))
    assert isinstance(odd, ValueError)
    assert "In a training process" in odd.__notes__[0]
