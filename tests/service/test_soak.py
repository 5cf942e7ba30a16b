"""A bounded part of `soak.py`; what grows with time is found, and nothing of it is missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.program import program
from support.service_extra import MISSING

pytestmark = pytest.mark.skipif(bool(MISSING), reason="the extra `serve` is not installed")


@pytest.fixture(scope="module")
def soak() -> ModuleType:
    """The module that also runs as a program."""
    return program(Path(__file__).with_name("soak.py"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_half_an_hour_of_eight_cameras_leaves_nothing_behind(soak: ModuleType) -> None:
    soaked = soak.run(8, 32)
    assert soaked.wrong == []
    assert soaked.runs > 8, "some of them went away and came back"
    assert soaked.events


@pytest.mark.proof
@pytest.mark.timeout(6 * 3600)
def test_a_day_of_eight_cameras_leaves_nothing_behind(soak: ModuleType) -> None:
    assert soak.run(8, 24 * 60).wrong == []


def samples(soak: ModuleType, **last: Any) -> Any:
    """A day of samples in which nothing grows but what `last` says, hour by hour, over the second half."""
    soaked = soak.Soaked(8)
    for hour in range(1, 25):
        one = soak.Sample(
            hours=float(hour),
            rss=100_000_000,
            descriptors=20,
            threads=5,
            wal=4_000_000,
            files=10,
            rows={"event": 100 * hour, "mute": 0},
            cpu_s=0.0,
        )
        grown = {name: value(hour) for name, value in last.items()} if hour > 12 else {}
        soaked.samples.append(replace(one, **grown))
    return soaked


def test_what_stays_as_it_is_or_grows_with_events_is_no_leak(soak: ModuleType) -> None:
    assert soak.growth(samples(soak)) == []


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("rss", lambda hour: 100_000_000 + 1_000_000 * hour, "memory grew"),
        ("descriptors", lambda hour: 9 + hour, "descriptors grew"),
        ("threads", lambda hour: hour, "threads grew"),
        ("wal", lambda hour: 1_000_000 * hour, "the log of the store grew"),
        ("files", lambda hour: 100 * hour, "files of evidence are kept"),
        ("rows", lambda hour: {"event": hour**3, "mute": 0}, "rows of event grew"),
        ("rows", lambda hour: {"event": 100 * hour, "mute": 10 * hour - 120}, "rows of mute grew"),
    ],
)
def test_what_grows_is_found(soak: ModuleType, name: str, value: Any, said: str) -> None:
    found = soak.growth(samples(soak, **{name: value}))
    assert len(found) == 1
    assert said in found[0]
