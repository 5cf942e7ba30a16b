"""What a camera's economy saved over the last hour."""

from __future__ import annotations

import pytest

from ovavel.runtime.economy.work import Work
from ovavel.runtime.types import SkipCause
from ovavel.service.watch.economy.counts import CameraCounts


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_the_last_hour_forgets_what_was_before() -> None:
    clock = Clock()
    counts = CameraCounts(Work(vision_gflop=9.0, audio_gflop=1.0), clock)

    def seconds(count: int, *, looked: bool) -> None:
        for _ in range(count):
            clock.now_s += 1
            counts.second(picture=True, sound=True)
            if looked:
                counts.looked(encoded=1)
            else:
                counts.skipped(SkipCause.SOUND)

    seconds(300, looked=True)
    counts.audited(0.5, failed=True)
    seconds(300, looked=True)
    assert counts.last_hour == counts.figures, "it is the first hour"
    assert counts.figures.saved == 0
    seconds(3600, looked=False)
    hour = counts.last_hour
    assert 3600 <= hour.pictures <= 3660, "to the minute"
    assert hour.encoded == hour.pictures - 3600
    assert hour.skipped == {"background sound": 3600}
    assert (hour.audited, hour.audits_failed, hour.drift_p99) == (0, 0, None)
    assert hour.saved == pytest.approx(0.9, abs=0.02)
    assert (counts.figures.pictures, counts.figures.encoded, counts.figures.drift_p99) == (4200, 600, 0.5)
    clock.now_s += 1800  # offline
    assert 1800 <= counts.last_hour.pictures <= 1860
    clock.now_s += 7200
    assert counts.last_hour.pictures == 0
    assert counts.last_hour.saved is None


def test_a_picture_that_was_lost_is_no_saving() -> None:
    counts = CameraCounts(Work(vision_gflop=9.0, audio_gflop=1.0))
    for _ in range(4):
        counts.second(picture=True, sound=True)
    counts.looked(encoded=2)
    counts.lost(1)
    assert counts.figures.saved == pytest.approx(9 / 31)
