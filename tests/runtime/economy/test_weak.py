"""Sounds that are too weak for anything the camera has shown: learnt, audited, and taken back."""

from __future__ import annotations

import numpy as np

from ovavel.runtime.bundle.calibration import Rule
from ovavel.runtime.economy.weak import AUDIT_EVERY, LEAST_SEEN, WeakSound
from ovavel.runtime.types import Segment, SegmentScores, SkipCause

NAMES = ("bell", "car", "other")
POSITIVE = Rule(kind="positive")


def scores(index: int, vision: list[float], label: str = "other", skipped: SkipCause | None = None) -> SegmentScores:
    return SegmentScores(
        index=index,
        start_s=float(index),
        label=label,
        score=1.0,
        scores=np.array([0, 0, 1], np.float32),
        vision_similarity=np.array(vision, np.float32),
        audio_similarity=np.zeros(3, np.float32),
        context=10,
        final=True,
        skipped=skipped,
    )


def segment(index: int) -> Segment:
    return Segment(index=index, start_s=float(index), vision=None, audio=np.ones(1), frame=np.ones(1))


def watched(seconds: int) -> WeakSound:
    """A camera that shows a yard: nothing like a bell or a car."""
    weak = WeakSound(POSITIVE, NAMES)
    for index in range(seconds):
        weak.learn([scores(index, [0.05, 0.05, 0.3])])
    return weak


WEAK, LOUD = np.array([[0.03, 0.02, 0.2]], np.float32), np.array([[0.9, 0.02, 0.05]], np.float32)


def test_nothing_is_concluded_before_enough_was_seen() -> None:
    assert not watched(LEAST_SEEN - 1).settled([segment(500)], WEAK)[0]
    assert watched(LEAST_SEEN).settled([segment(500)], WEAK)[0]


def test_a_loud_sound_is_looked_at_whatever_was_seen() -> None:
    assert not watched(LEAST_SEEN).settled([segment(500)], LOUD)[0]


def test_what_was_skipped_teaches_nothing() -> None:
    weak = WeakSound(POSITIVE, NAMES)
    for index in range(2 * LEAST_SEEN):
        weak.learn([scores(index, [np.nan] * 3, skipped=SkipCause.SOUND)])
    assert not weak.settled([segment(500)], WEAK)[0]


def test_one_in_so_many_is_looked_at_all_the_same_however_often_it_is_asked() -> None:
    weak = watched(LEAST_SEEN)
    answers = [[weak.settled([segment(i)], WEAK)[0] for _ in range(3)] for i in range(500, 500 + 2 * AUDIT_EVERY)]
    assert all(len(set(each)) == 1 for each in answers)
    assert [not each[0] for each in answers].count(True) == 2


def test_an_audit_that_finds_an_event_widens_what_is_assumed() -> None:
    weak = watched(LEAST_SEEN)
    sound = np.array([[0.1, 0.02, 0.3]], np.float32)
    asked = [i for i in range(500, 500 + AUDIT_EVERY) if not weak.settled([segment(i)], sound)[0]]
    assert len(asked) == 1
    assert weak.learn([scores(asked[0], [0.9, 0.05, 0.3], label="bell")]) == [False]
    assert not weak.settled([segment(600)], sound)[0]
    assert weak.learn([scores(601, [0.05, 0.05, 0.3])]) == [], "an ordinary second is no audit"


def test_further_texts_of_the_background_have_no_bounds() -> None:
    weak = watched(LEAST_SEEN)
    assert weak.settled([segment(500)], np.concatenate([WEAK, WEAK[:, :1]], axis=1))[0]
