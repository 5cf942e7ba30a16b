"""Which second stands for an event."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovavel.runtime.pipeline.tracker import EventRules, EventTracker
from ovavel.runtime.types import SegmentScores
from ovavel.service.capture.messages import Captured
from ovavel.service.evidence.peaks import AROUND, Peaks

LABELS = ("dog", "bell", "other")
LAG = 2


def window(index: int) -> Captured:
    return Captured(
        index=index,
        start_s=float(index),
        frame=None,
        sound=None,
        picture=b"picture %d" % index,
        spectrum=b"sound %d" % index,
        gaps=(),
        notices=(),
        monotonic_us=0,
        utc_us=0,
    )


def scored(index: int, label: str, margin: float) -> SegmentScores:
    scores = np.zeros(3, np.float32)
    scores[LABELS.index(label)], scores[2] = 1, 1 - margin
    nothing = np.zeros(3, np.float32)
    return SegmentScores(
        index=index,
        start_s=float(index),
        label=label,
        score=1.0,
        scores=scores,
        vision_similarity=nothing,
        audio_similarity=nothing,
        context=1,
        final=True,
    )


@given(
    st.lists(st.tuples(st.sampled_from(LABELS), st.integers(1, 10)), min_size=1, max_size=60),
    st.integers(0, 3),
    st.sampled_from([(0.0, 0.0), (0.5, 0.2)]),
)
def test_the_second_furthest_above_the_background(
    seconds: list[tuple[str, int]], bridge: int, margins: tuple[float, float]
) -> None:
    rules = EventRules(start_margin=margins[0], keep_margin=margins[1], bridge_s=bridge)
    tracker, peaks = EventTracker("other", rules), Peaks(bridge)
    margin_of: dict[int, float] = {}
    ended = []
    for index in range(len(seconds) + LAG):
        if index < len(seconds):
            peaks.window(window(index))
        if index < LAG:
            continue
        label, tenths = seconds[index - LAG]
        scores = [scored(index - LAG, label, 0.0 if label == "other" else tenths / 10)]
        margin_of[index - LAG] = scores[0].margin
        peaks.scored(scores)
        ended += [
            (event, peaks.take(event.label, event.start_s, event.end_s))
            for event in tracker.push(scores)
            if event.state == "end"
        ]
    ended += [
        (event, peaks.take(event.label, event.start_s, event.end_s))
        for event in tracker.close()
        if event.state == "end"
    ]
    for event, peak in ended:
        if event.peak_margin == 0:
            continue
        assert peak is not None
        assert margin_of[peak.index] == pytest.approx(event.peak_margin)
        assert peak.picture == b"picture %d" % peak.index
        around = [index for index, _ in peak.spectra]
        first, last = max(0, peak.index - AROUND), min(len(seconds) - 1, peak.index + AROUND)
        assert around == list(range(first, last + 1))
        assert all(spectrum == b"sound %d" % index for index, spectrum in peak.spectra)


def test_what_is_over_is_forgotten() -> None:
    peaks = Peaks(0)
    for index in range(200):
        peaks.window(window(index))
        peaks.scored([scored(index, "dog" if index < 5 else "bell", 0.5 - index / 1000)])
    assert peaks.take("dog", 0, 10) is None
    best = peaks.take("bell", 0, 200)
    assert best is not None
    assert best.index == 5
