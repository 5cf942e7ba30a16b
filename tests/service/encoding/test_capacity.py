"""For how many cameras the encoder is enough."""

from __future__ import annotations

import pytest

from ovavel.runtime.types import EconomyMode
from ovavel.service.encoding.capacity import CameraWork, Fits, Speeds, cameras_that_fit, load

SPEEDS = Speeds(window_s=0.10, sound_s=0.01, picture_s=0.09, lone_sound_s=0.03, lone_picture_s=0.19)


def camera(mode: EconomyMode, looked: float, every_s: int = 1) -> CameraWork:
    return CameraWork(mode=mode, every_s=every_s, looked=looked)


@pytest.mark.parametrize(
    ("cameras", "share", "fits"),
    [
        ([camera("off", 1.0)], 0.1, Fits(at_present=9, worst=9)),
        ([camera("off", 1.0, every_s=2)], 0.05, Fits(at_present=18, worst=18)),
        ([camera("exact", 1.0)], 0.1, Fits(at_present=9, worst=9)),
        ([camera("exact", 0.0)], 0.01, Fits(at_present=90, worst=9)),
        ([camera("exact", 0.0), camera("off", 1.0)], 0.11, Fits(at_present=16, worst=9)),
        ([camera("auto", 0.0)], 0.03, Fits(at_present=30, worst=4)),
    ],
)
def test_the_worst_case_does_not_count_on_what_is_saved(cameras: list[CameraWork], share: float, fits: Fits) -> None:
    assert load(SPEEDS, cameras) == pytest.approx(share)
    assert cameras_that_fit(SPEEDS, cameras) == fits


def test_the_worst_case_is_never_better_than_the_present_one() -> None:
    alone = Speeds(window_s=0.10, sound_s=0.05, picture_s=0.10, lone_sound_s=0.05, lone_picture_s=0.10)
    assert cameras_that_fit(alone, [camera("exact", 1.0)]) == Fits(at_present=6, worst=6)
    noisy = Speeds(window_s=0.10, sound_s=0.02, picture_s=0.05, lone_sound_s=0.02, lone_picture_s=0.05)
    assert cameras_that_fit(noisy, [camera("exact", 1.0)]) == Fits(at_present=9, worst=9)
