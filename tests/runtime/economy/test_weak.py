"""Sounds that are too weak for anything the camera has shown: learnt, audited, and taken back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.bundle.calibration import Rule
from ovavel.runtime.economy.audits import AUDIT_EVERY, SoundAudits
from ovavel.runtime.economy.counts import EconomyCounts
from ovavel.runtime.economy.encoder import EconomicEncoder
from ovavel.runtime.economy.settings import EconomyPlan
from ovavel.runtime.economy.weak import LEAST_SEEN, WeakSound
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
    return Segment(
        index=index, start_s=float(index), vision=None, audio=np.ones(1, np.float32), frame=np.ones(1, np.float32)
    )


def watched(seconds: int) -> WeakSound:
    """A camera that shows a yard: nothing like a bell or a car."""
    weak = WeakSound(POSITIVE, NAMES)
    for index in range(seconds):
        weak.learn([scores(index, [0.05, 0.05, 0.3])])
    return weak


WEAK, LOUD = np.array([[0.03, 0.02, 0.2]], np.float32), np.array([[0.9, 0.02, 0.05]], np.float32)


def test_nothing_is_concluded_before_enough_was_seen() -> None:
    assert not watched(LEAST_SEEN - 1).settled(WEAK)[0]
    assert watched(LEAST_SEEN).settled(WEAK)[0]


def test_a_loud_sound_is_looked_at_whatever_was_seen() -> None:
    assert not watched(LEAST_SEEN).settled(LOUD)[0]


def test_what_was_skipped_teaches_nothing() -> None:
    weak = WeakSound(POSITIVE, NAMES)
    for index in range(2 * LEAST_SEEN):
        weak.learn([scores(index, [np.nan] * 3, skipped=SkipCause.SOUND)])
    assert not weak.settled(WEAK)[0]


def test_an_event_among_them_widens_what_is_assumed() -> None:
    weak = watched(LEAST_SEEN)
    sound = np.array([[0.1, 0.02, 0.3]], np.float32)
    assert weak.settled(sound)[0]
    weak.distrust()
    weak.learn([scores(200, [0.9, 0.05, 0.3], label="bell")])
    assert not weak.settled(sound)[0]


def test_further_texts_of_the_background_have_no_bounds() -> None:
    weak = watched(LEAST_SEEN)
    assert weak.settled(np.concatenate([WEAK, WEAK[:, :1]], axis=1))[0]


def test_one_in_so_many_is_looked_at_all_the_same_however_often_it_is_asked() -> None:
    audits = SoundAudits()
    answers = [[audits.chooses(i, skips=True) for _ in range(3)] for i in range(2 * AUDIT_EVERY)]
    assert all(len(set(each)) == 1 for each in answers)
    chosen = [i for i, each in enumerate(answers) if each[0]]
    assert len(chosen) == 2
    assert audits.over([scores(chosen[0], [0.1] * 3), scores(chosen[0] + 1, [0.1] * 3)], "other") == [True]
    assert audits.over([scores(chosen[1], [0.1] * 3, label="bell")], "other") == [False]
    assert audits.over([scores(chosen[1], [0.1] * 3, label="bell")], "other") == [], "once"
    assert not any(audits.chooses(i, skips=False) for i in range(100, 100 + 5 * AUDIT_EVERY))


def test_all_of_it_together_finds_the_event_that_was_assumed_away() -> None:
    """A camera with a steady noise: the rule leaves it open, what was assumed settles it, an audit takes it back."""
    counts = EconomyCounts()
    plan = EconomyPlan(asked="auto", mode="auto", sound=True, still=True)
    encoder = EconomicEncoder(list, list, plan, POSITIVE, NAMES, counts)
    rng = np.random.default_rng(0)
    causes: list[SkipCause | None] = []
    for index in range(400):
        waveform = rng.standard_normal((1, 16_000)).astype(np.float32) / 100
        second = encoder.arrived(segment(index), waveform)
        causes += encoder.causes([second], WEAK)
        audited = index > 300 and causes[-1] is None
        seen = [0.05, 0.05, 0.3] if causes[-1] is None else [np.nan] * 3
        encoder.decided([scores(index, seen, "bell" if audited else "other", skipped=causes[-1])])
    assert causes[:LEAST_SEEN] == [None] * LEAST_SEEN
    assert SkipCause.NOTHING_TO_HEAR in causes
    assert SkipCause.WEAK_SOUND in causes or causes.count(SkipCause.NOTHING_TO_HEAR) > 100
    figures = counts.figures
    assert figures.audited > 10
    assert 0 < figures.audits_failed < figures.audited
    assert sum(figures.skipped.values()) == sum(cause is not None for cause in causes)
    assert [n.message for n in encoder.notices()] and not encoder.notices()


def test_a_sound_that_was_taken_for_unchanged_and_is_not_is_counted_and_reported() -> None:
    """What the encoder makes of the same sound changes without a sign in the sound itself."""
    counts, angle = EconomyCounts(), 0.0

    def listen(sounds: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        return [np.array([np.cos(angle), np.sin(angle)], np.float32) for _ in sounds]

    plan = EconomyPlan(asked="auto", mode="auto", sound=True, still=True)
    encoder = EconomicEncoder(list, listen, plan, POSITIVE, NAMES, counts)
    rng = np.random.default_rng(0)
    for index in range(120):
        if index <= 60:
            sound = rng.standard_normal((1, 56, 56)).astype(np.float32)
        angle = 0.5 * (index > 65)
        encoder.listen([sound])
        encoder.arrived(segment(index))
    assert counts.figures.sounds_reused > 60
    assert counts.figures.audits_failed == 1
    (notice,) = encoder.notices()
    assert "a sound that was taken for unchanged drifted by 0.12" in notice.message
    assert notice.time_s > 60


def test_which_sounds_are_encoded_does_not_depend_on_how_many_come_at_once() -> None:
    rng = np.random.default_rng(0)
    sounds = [rng.standard_normal((1, 56, 56)).astype(np.float32) for _ in range(100)]
    kept = []

    def listen(many: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        return [np.ones(1, np.float32)] * len(many)

    for size in (1, 7, 100):
        counts = EconomyCounts()
        plan = EconomyPlan(asked="auto", mode="auto", sound=True, still=True)
        encoder = EconomicEncoder(list, listen, plan, POSITIVE, NAMES, counts)
        for at in range(0, 100, size):
            for index, _ in enumerate(encoder.listen(sounds[at : at + size]), start=at):
                encoder.arrived(segment(index))
        kept.append(counts.figures.sounds_reused)
    assert kept[0] > 0
    assert len(set(kept)) == 1
