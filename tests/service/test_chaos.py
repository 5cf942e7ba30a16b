"""A bounded part of the faults of `chaos.py`, in an order that its seed gives."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from support.program import program
from support.service_extra import MISSING

if MISSING:
    pytest.skip(f"the service's libraries are not installed: {MISSING}", allow_module_level=True)

from support.chaos.run import ALL_FAULTS, run

ROOT = Path(__file__).parents[2]
BOUNDED = (
    "camera reset",
    "encoder killed",
    "disk full",
    "webhook answers 500",
    "clock an hour behind",
    "service killed at store.before-commit",
    "service ended and started",
)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_each_of_some_faults_is_survived() -> None:
    kinds = list(BOUNDED)
    random.Random(11).shuffle(kinds)
    survived = run(11, kinds=kinds)
    assert survived.wrong == []
    assert survived.events
    assert survived.evidence
    assert all(survived.delivered.values())
    assert survived.losses
    assert survived.recoveries_s.keys() | survived.left_out.keys() >= set(kinds)


def test_what_the_table_names_exists() -> None:
    text = program(Path(__file__).with_name("chaos.py")).__doc__ or ""
    lines = [line for line in text.splitlines() if re.match(r"\|[ \d]+\|", line)]
    assert [int(line.split("|")[1]) for line in lines if line.split("|")[1].strip()] == list(range(1, 31))
    covered = [line.split("|")[3] for line in lines]
    names = [name for each in covered for name in re.findall(r'"(.+?)"', each)]
    assert [each for each in names if not any(fault.startswith(each.rstrip(" …")) for fault in ALL_FAULTS)] == []
    paths = [path for each in covered for path in re.findall(r"`(\S+\.py)`", each)]
    assert [each for each in paths if not (Path(__file__).parent / each).is_file()] == []


def left_behind(folder: Path) -> list[str]:
    """Processes that had `folder` for temporary files, mounts below it, and files there."""
    found = [str(each) for each in folder.iterdir()]
    found += [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(folder) in line]
    for each in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            found += [f"{each.pid} {each.cmdline()}"] * (each.environ().get("TMPDIR") == str(folder))
    return found


def interrupted(folder: Path, number: signal.Signals, after_s: float, *, group: bool) -> None:
    """Faults that stop processes, mount disks and make control groups, until a signal comes, and more of them."""
    kinds = ("encoder stopped", "disk lost", "no threads", "disk missing at the start", "capture stopped", "no memory")
    command = [sys.executable, "-m", "tests.service.chaos", *(word for kind in kinds for word in ("--kind", kind))]
    environment = {**os.environ, "TMPDIR": str(folder)}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    for pause_s in (after_s, 0.1, 0.3, 300):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(pause_s)
            return
        if group:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
    process.kill()
    raise AssertionError("it did not end")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_is_left_behind_by_an_interrupted_run(tmp_path: Path) -> None:
    interrupted(tmp_path, signal.SIGTERM, 5, group=False)
    assert left_behind(tmp_path) == []


@pytest.mark.proof
@pytest.mark.timeout(600)
@pytest.mark.parametrize("group", [True, False])
@pytest.mark.parametrize("after_s", [0.3, 1, 2, 3, 7, 11, 17, 25, 40, 60, 80])
def test_nothing_is_left_behind_whenever_a_run_is_interrupted(tmp_path: Path, after_s: float, group: bool) -> None:
    interrupted(tmp_path, signal.SIGINT if group else signal.SIGTERM, after_s, group=group)
    assert left_behind(tmp_path) == []


@pytest.mark.proof
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", [1, 2])
def test_an_hour_of_faults_by_chance_is_survived(seed: int) -> None:
    assert run(seed, minutes=30).wrong == []


@pytest.mark.proof
@pytest.mark.timeout(7200)
def test_every_fault_is_survived() -> None:
    survived = run(3, kinds=list(ALL_FAULTS))
    assert survived.wrong == []
    assert survived.recoveries_s.keys() | survived.left_out.keys() == ALL_FAULTS.keys()


@pytest.mark.proof
@pytest.mark.timeout(7200)
def test_a_hundred_kills_at_random_moments_are_survived() -> None:
    assert run(4, kinds=["service killed"] * 100).wrong == []
