"""A bounded part of the faults of `chaos.py`, in an order that its seed gives."""

from __future__ import annotations

import random

import pytest
from support.service_extra import MISSING

if MISSING:
    pytest.skip(f"the service's libraries are not installed: {MISSING}", allow_module_level=True)

from support.chaos.run import ALL_FAULTS, run

BOUNDED = (
    "camera reset",
    "stream: another size and rate",
    "capture killed",
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
    assert survived.recoveries_s.keys() | survived.left_out.keys() >= set(kinds)


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
