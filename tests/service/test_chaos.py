"""A bounded part of the faults of `chaos.py`, in an order that its seed gives."""

from __future__ import annotations

import random
from pathlib import Path
from types import ModuleType

import pytest
from support.program import program

BOUNDED = (
    "camera reset",
    "camera stalled",
    "capture killed",
    "encoder killed",
    "disk full",
    "service killed in a commit",
    "service ended and started",
)


@pytest.fixture(scope="module")
def chaos() -> ModuleType:
    """The module that also runs as a program."""
    return program(Path(__file__).with_name("chaos.py"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_each_of_some_faults_is_survived(chaos: ModuleType) -> None:
    kinds = list(BOUNDED)
    random.Random(11).shuffle(kinds)
    survived = chaos.run(11, kinds=kinds)
    assert survived.wrong == []
    assert survived.events
    assert survived.recoveries_s.keys() >= set(kinds) - set(chaos.ON_A_SMALL_DISK)


@pytest.mark.proof
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", [1, 2])
def test_an_hour_of_faults_by_chance_is_survived(chaos: ModuleType, seed: int) -> None:
    assert chaos.run(seed, minutes=30).wrong == []


@pytest.mark.proof
@pytest.mark.timeout(3600)
def test_every_fault_is_survived(chaos: ModuleType) -> None:
    survived = chaos.run(3, kinds=[*chaos.FAULTS, *chaos.ON_A_SMALL_DISK])
    assert survived.wrong == []
    assert survived.recoveries_s.keys() >= chaos.FAULTS.keys()
