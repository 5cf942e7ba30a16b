"""Live, economy drops no window that would not be dropped without it, however slow the encoders are.

The clock is made up: encoding moves it, and a window arrives each second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ovavel.runtime.backends import HeadOutput
from ovavel.runtime.bundle.calibration import Rule
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.economy.counts import EconomyCounts
from ovavel.runtime.economy.encoder import EconomicEncoder
from ovavel.runtime.economy.plan import plan_economy
from ovavel.runtime.economy.settings import Economy
from ovavel.runtime.pipeline.fusion import cosine_similarity, fused_score
from ovavel.runtime.pipeline.localizer import Localizer
from ovavel.runtime.pipeline.window_queue import WindowQueue, capacity
from ovavel.runtime.types import LAG, EconomyMode, Segment, Window

WORDS = Vocabulary(names=("dog", "other"), embeddings=TextEmbeddings.shared(np.eye(2, dtype=np.float32)))
AGREEMENT = Rule(kind="agreement")


def head(audio: NDArray[np.float32], vision: NDArray[np.float32], text: TextEmbeddings) -> HeadOutput:
    similarities = cosine_similarity(audio, text.audio), cosine_similarity(vision, text.vision)
    return HeadOutput(*similarities, fused_score(*similarities))


@dataclass
class Watched:
    """One stream, watched live by one encoder."""

    heard: Sequence[bool]
    picture_s: float
    sound_s: float
    mode: EconomyMode
    places: int | None = None
    """Windows that may wait, if not as many as in a session."""
    now_s: float = 0.0
    dropped: list[int] = field(default_factory=list)
    decided_s: dict[int, float] = field(default_factory=dict)
    """When each second was decided for the first time."""
    labels: dict[int, str] = field(default_factory=dict)
    """Its final decision."""

    def __post_init__(self) -> None:
        plan = plan_economy(Economy(mode=self.mode), AGREEMENT, head, WORDS.embeddings)
        assert plan.mode == self.mode
        self._queue = WindowQueue(self.places or capacity(sound_first=plan.sound), live=True)
        self._arrived = 0
        self.counts = EconomyCounts()
        encoder = EconomicEncoder(self._look, list, plan, AGREEMENT, WORDS.names, self.counts)
        localizer = Localizer(head, WORDS, lag=LAG, rule=AGREEMENT, looking=encoder if plan.sound else None)
        for index in range(len(self.heard)):
            self._until(max(self.now_s, index + 1.0))
            (window,) = self._queue.take(1)
            segment = encoder.arrived(self._encoded(window, look=not plan.sound))
            for scores in localizer.push(segment):
                self.decided_s.setdefault(scores.index, self.now_s)
                self.labels[scores.index] = scores.label

    def _until(self, time_s: float) -> None:
        """Let time pass; windows arrive meanwhile."""
        self.now_s = time_s
        while self._arrived < min(len(self.heard), int(time_s)):
            waveform = np.zeros((1, 1), np.float32)
            frame = np.zeros((1, 1, 3), np.uint8)
            index, self._arrived = self._arrived, self._arrived + 1
            arrived = Window(index=index, start_s=float(index), frame=frame, waveform=waveform, captured_s=None)
            self.dropped += [each.index for each in self._queue.put(arrived)]

    def _encoded(self, window: Window, *, look: bool) -> Segment:
        if window.frame is None:
            return Segment(index=window.index, start_s=window.start_s, vision=None, audio=None)
        self._until(self.now_s + self.sound_s)
        audio = WORDS.embeddings.audio[0 if self.heard[window.index] else 1]
        picture = WORDS.embeddings.vision[0]
        segment = Segment(index=window.index, start_s=window.start_s, vision=None, audio=audio, frame=picture)
        return replace(segment, vision=self._look([picture])[0], frame=None) if look else segment

    def _look(self, frames: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        self._until(self.now_s + self.picture_s * len(frames))
        return list(frames)


def quiet_and_loud(quiet_s: int, loud_s: int, times: int) -> list[bool]:
    return ([False] * quiet_s + [True] * loud_s) * times


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20)), min_size=1, max_size=3),
    st.integers(0, 1000),
    st.floats(0, 1),
)
@example([(30, 30)], 1000, 1.0)  # a picture takes the whole second
def test_no_window_is_dropped_that_full_would_keep(spells: list[tuple[int, int]], work_ms: int, share: float) -> None:
    """A second's work takes at most a second: without economy nothing is ever dropped."""
    heard = [each for quiet, loud in spells for each in quiet_and_loud(quiet, loud, 1)]
    picture_s = share * work_ms / 1000
    sides = {
        mode: Watched(heard, picture_s=picture_s, sound_s=work_ms / 1000 - picture_s, mode=mode)
        for mode in ("off", "exact")
    }
    assert sides["off"].dropped == sides["exact"].dropped == []
    assert sides["off"].labels == sides["exact"].labels


def test_a_decision_waits_for_nine_pictures_more_and_the_delay_is_made_up_for() -> None:
    heard = quiet_and_loud(20, 60, 1)
    full, exact = (Watched(heard, picture_s=0.75, sound_s=0.125, mode=mode) for mode in ("off", "exact"))
    late = [exact.decided_s[second] - full.decided_s[second] for second in range(len(heard))]
    assert all(each < 0 for each in late[:20]), "quiet seconds need no picture"
    assert late[20] == max(late) == 9 * 0.75
    assert all(later <= each for each, later in pairwise(late[20:]))
    assert late[-1] == 0
    assert exact.counts.figures.most_at_once == 10


def test_with_less_room_windows_would_be_dropped_when_sound_wakes_vision() -> None:
    """The check above can fail: one place fewer is too few."""
    heard, places = quiet_and_loud(30, 30, 1), capacity(sound_first=True)
    assert Watched(heard, picture_s=1.0, sound_s=0.0, mode="exact", places=5).dropped
    assert not Watched(heard, picture_s=1.0, sound_s=0.0, mode="exact", places=places).dropped


def test_economy_holds_a_stream_that_full_cannot() -> None:
    """Work on a second takes more than a second: one window in five is lost without economy, and none with it."""
    heard = quiet_and_loud(60, 4, 5)
    full, exact = (Watched(heard, picture_s=1.0, sound_s=0.25, mode=mode) for mode in ("off", "exact"))
    assert len(full.dropped) > len(heard) / 6
    assert exact.dropped == []
    loud = [second for second, sounds in enumerate(heard[:-LAG]) if sounds]
    assert all(exact.labels[second] == "dog" for second in loud)
    assert not all(full.labels[second] == "dog" for second in loud)
