"""Segments → decisions: the temporal head over the last ten seconds, scored again with every second that arrives."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.backends import HeadOutput
from ovavel.runtime.bundle.calibration import Calibration, Rule
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.errors import UsageError
from ovavel.runtime.pipeline.fusion import fused_labels, probabilities
from ovavel.runtime.pipeline.rules.apply import rule_output
from ovavel.runtime.types import BUFFER, Segment, SegmentScores, SkipCause

__all__ = ["BUFFER", "Head", "Localizer", "Looking", "check_lag", "deciding_head", "no_picture"]

# T segments with both senses, D embedding size of a sense, C classes with the background last

Head = Callable[[NDArray[np.float32], NDArray[np.float32], TextEmbeddings], HeadOutput]
"""`Backend.head`: audio (1, T, D), vision (1, T, D) and C texts for each → similarities and scores (1, T, C)."""


def no_picture(seconds: int, size: int) -> NDArray[np.float32]:
    """(1, T, D) unit vectors in the place of vision embeddings, for a head that is asked about sound alone."""
    return np.full((1, seconds, size), size**-0.5, np.float32)


class Looking(Protocol):
    """Encodes pictures where they are needed (`ovavel.runtime.economy`)."""

    def causes(self, segments: Sequence[Segment], heard: NDArray[np.float32]) -> Sequence[SkipCause | None]:
        """Why each segment is background whatever its picture shows; None where the picture may decide.

        `heard`: (T, C + K) similarities of sound as the head makes them, K further texts of the background last.
        """

    def look(self, segments: Sequence[Segment]) -> Sequence[Segment]:
        """The same segments, those with a `frame` with its embedding in place of it."""


def deciding_head(head: Head, rule: Rule, names: Sequence[str] = (), background: TextEmbeddings | None = None) -> Head:
    """Return `head` with the scores of `rule`: the graph in a bundle makes published or learned ones.

    Args:
        head: such as `Backend.head`.
        rule: that decides.
        names: of the C texts it is called with, for a rule with reference statistics.
        background: K further texts of the background.
    """

    def run(audio: NDArray[np.float32], vision: NDArray[np.float32], text: TextEmbeddings) -> HeadOutput:
        texts = text if background is None else TextEmbeddings.joined([text, background])
        return rule_output(rule, head(audio, vision, texts), vision, len(text), names)

    return run


def check_lag(lag: int, buffer: int = BUFFER) -> None:
    """Refuse a lag that a buffer of so many segments cannot serve.

    Raises:
        UsageError: it is out of range.
    """
    if not 0 <= lag < buffer:
        raise UsageError(f"lag must be from 0 to {buffer - 1} segments, not {lag}")


class Localizer:
    """Scores a stream of segments. Pure: the same segments always give the same scores.

    The head sees those of the last `buffer` segments that have both senses. A segment that lacks one cannot hold an
    audio-visual event: it is background and says which sense was missing.
    """

    def __init__(
        self,
        head: Head,
        vocabulary: Vocabulary,
        *,
        buffer: int = BUFFER,
        lag: int = BUFFER - 1,
        calibration: Calibration | None = None,
        rule: Rule | None = None,
        looking: Looking | None = None,
    ) -> None:
        """Score with `head`; a score is final once `lag` later segments are in (0 = at once, at most `buffer` - 1).

        By default a segment gets all the context there can be, as in an offline clip. Sessions wait less (`LAG`).
        With a `calibration` for the names in force the scores carry probabilities; it changes no decision. `rule`
        decides on what the head makes of the buffer; None: the head's own scores do. `looking` encodes pictures that
        segments still hold as a `frame`: those of the whole buffer, once a second that is not final may be an event.

        Many parameters: head and vocabulary are required; the rest have defaults and are independent of each other.

        Raises:
            ValueError: `buffer` is below 1.
            UsageError: `lag` is out of range.
        """
        if buffer < 1:
            raise ValueError(f"a buffer holds at least 1 segment, not {buffer}")
        check_lag(lag, buffer)
        self.vocabulary = vocabulary
        """Names to distinguish. May be replaced while running: seconds that are not final are scored again with it."""
        self.lag = lag
        self._head = head
        self._calibration = calibration
        self._rule = rule or Rule(kind="published")
        self._looking = looking
        self._blind = False
        self._last_heard: NDArray[np.float32] = np.empty((0, 0), np.float32)  # (T, C + K) of the last decision
        self._unsettled: set[int] = set()  # seconds that are not final and that sound did not decide, when last heard
        self._segments: deque[Segment] = deque(maxlen=buffer)
        self._reported = -1  # index of the newest segment that was reported final

    def push(self, segment: Segment) -> list[SegmentScores]:
        """Take the next segment; return the scores of every second that was not final before, oldest first.

        Each second is returned by up to `lag` + 1 pushes and is `final` in the last of them. With lag 9 the first ten
        pushes return one to ten scores, and the tenth equals `score` of the same ten segments bit for bit.

        Raises:
            ValueError: the segment does not follow the one before it.
        """
        if self._segments and segment.index != self._segments[-1].index + 1:
            raise ValueError(
                f"segment {segment.index} does not follow segment {self._segments[-1].index}; push a segment with both "
                "senses None for a second that was lost"
            )
        self._segments.append(segment)
        return self._report(final_to=segment.index - self.lag)

    def flush(self) -> list[SegmentScores]:
        """End of the stream: return what is not final yet as final, and start afresh."""
        if not self._segments:
            return []
        scores = self._report(final_to=self._segments[-1].index)
        self._segments.clear()
        self._unsettled.clear()
        self._reported = -1
        return scores

    def stop_looking(self) -> frozenset[int]:
        """Look at no picture any more: what encodes them has failed. Returns the seconds whose picture still waits.

        Those that sound decides remain background by their sound; the others lack a picture from now on.
        """
        self._blind = True
        self._unsettled.clear()
        return frozenset(s.index for s in self._segments if s.frame is not None)

    def _report(self, *, final_to: int) -> list[SegmentScores]:
        due = [s for s in self._segments if s.index > self._reported]
        complete = [s for s in due if not s.missing]
        awake = any(s.index in self._unsettled for s in complete)
        if awake:  # what is heard comes with the decision: the head need not be asked twice
            self._look()
        unseen = {} if awake else self._decided_by_sound(complete, final_to)
        seen = {}
        if any(s.index not in unseen for s in complete):
            seen = {s.index: s for s in self._scored(self._segments, self._reported + 1, final_to)}
        if awake:  # a picture that could not be encoded is missing now: the head was not asked about its second
            asked = [s for s in self._segments if s.index > self._reported and not s.missing]
            self._settle(self._causes(asked, self._last_heard))
        scores = [
            unseen.get(s.index) or seen.get(s.index) or self._incomplete(s, final=s.index <= final_to) for s in due
        ]
        self._reported = max(self._reported, final_to)  # not before: what fails on the way leaves no second out
        return scores

    @property
    def newest(self) -> Segment | None:
        """The newest segment, with what was looked at in the meantime; None before the first."""
        return self._segments[-1] if self._segments else None

    def needed(self, segments: Sequence[Segment]) -> list[Segment]:
        """Those whose pictures pushing `segments` one by one will look at, of what waits and of `segments`."""
        if self._looking is None:
            return []
        buffer, reported, unsettled = self._segments.copy(), self._reported, self._unsettled
        needed: dict[int, Segment] = {}
        for segment in segments:
            buffer.append(segment)
            complete = [s for s in buffer if not s.missing]
            due = [s for s in complete if s.index > reported]
            waiting = [s for s in complete if s.frame is not None and s.index not in needed]
            awake = any(s.index in unsettled for s in due)
            if awake or waiting:
                causes = self._causes(due, self._heard(complete))
                if awake or None in causes.values():
                    needed |= {s.index: s for s in waiting}
                unsettled = {index for index, cause in causes.items() if cause is None}
            reported = max(reported, segment.index - self.lag)
        return list(needed.values())

    def _decided_by_sound(self, due: Sequence[Segment], final_to: int) -> dict[int, SegmentScores]:
        """Scores of the `due` seconds, by index, if sound alone makes all of them background.

        None at all: pictures count. Then all that the buffer holds are encoded, for the head sees them all.
        """
        complete = [s for s in self._segments if not s.missing]
        if self._looking is None or all(s.frame is None for s in complete):
            return {}
        heard = self._heard(complete)
        causes = self._causes(due, heard)
        if self._blind:
            self._replace({s.index: replace(s, frame=None) for s in complete})
        else:
            self._settle(causes)
            if self._unsettled:
                self._look()
                return {}
        return {
            s.index: replace(
                self._background(s, final=s.index <= final_to),
                vision_similarity=np.full(len(self.vocabulary.names), np.nan, np.float32),
                audio_similarity=row[: len(self.vocabulary.names)].copy(),
                context=len(complete),
                skipped=causes[s.index],
            )
            for s, row in zip(due, heard[len(complete) - len(due) :], strict=True)
            if causes[s.index]
        }

    def _look(self) -> None:
        assert self._looking is not None
        waiting = [s for s in self._segments if not s.missing]
        self._replace({s.index: s for s in self._looking.look(waiting)})

    def _replace(self, by_index: Mapping[int, Segment]) -> None:
        segments = (by_index.get(s.index, s) for s in self._segments)
        self._segments = deque(segments, maxlen=self._segments.maxlen)

    def _causes(self, due: Sequence[Segment], heard: NDArray[np.float32]) -> dict[int, SkipCause | None]:
        """Why the seconds `due`, the last of those in `heard`, are background by their sound, by index."""
        assert self._looking is not None
        causes = self._looking.causes(due, heard[len(heard) - len(due) :]) if due else ()
        return {s.index: cause for s, cause in zip(due, causes, strict=True)}

    def _settle(self, causes: Mapping[int, SkipCause | None]) -> None:
        self._unsettled = {index for index, cause in causes.items() if cause is None}

    def _heard(self, complete: Sequence[Segment]) -> NDArray[np.float32]:
        """(T, C + K) similarities of sound."""
        words, further = self.vocabulary, self.vocabulary.background_embeddings
        texts = words.embeddings if further is None else TextEmbeddings.joined([words.embeddings, further])
        audio = np.stack([s.audio for s in complete if s.audio is not None])[None]
        similarity: NDArray[np.float32] = self._head(
            audio, no_picture(len(complete), texts.sizes[1]), texts
        ).audio_similarity[0]
        return similarity

    def score(self, segments: Sequence[Segment], *, final_to: int | None = None) -> list[SegmentScores]:
        """Score `segments` as one clip, without touching the stream. Final up to index `final_to`, or all of them."""
        return self._scored(segments, -math.inf, math.inf if final_to is None else final_to)

    def _scored(self, segments: Sequence[Segment], first: float, final_to: float) -> list[SegmentScores]:
        """Scores of those `segments` whose index is `first` or later, in the context of all."""
        complete = [s for s in segments if not s.missing]
        output = None
        if complete:
            audio, vision = (np.stack([getattr(s, sense) for s in complete])[None] for sense in ("audio", "vision"))
            words = self.vocabulary
            head = deciding_head(self._ask, self._rule, words.names, words.background_embeddings)
            output = head(audio, vision, words.embeddings)
        row = {s.index: t for t, s in enumerate(complete)}
        return [
            self._complete(s, output, row[s.index], final=s.index <= final_to)
            if output is not None and s.index in row
            else self._incomplete(s, final=s.index <= final_to)
            for s in segments
            if s.index >= first
        ]

    def _ask(self, audio: NDArray[np.float32], vision: NDArray[np.float32], text: TextEmbeddings) -> HeadOutput:
        output = self._head(audio, vision, text)
        self._last_heard = output.audio_similarity[0]
        return output

    def _complete(self, segment: Segment, output: HeadOutput, t: int, *, final: bool) -> SegmentScores:
        # Copies: a row that is kept would keep all that the head returned.
        audio, vision, scores = (rows[0, t].copy() for rows in output)
        best = int(fused_labels(scores))
        calibration = self._calibration if self._calibration and self._calibration.fits(self.vocabulary) else None
        return SegmentScores(
            index=segment.index,
            start_s=segment.start_s,
            label=self.vocabulary.names[best],
            score=float(scores[best]),
            scores=scores,
            vision_similarity=vision,
            audio_similarity=audio,
            context=output.score.shape[1],
            final=final,
            rule=self._rule.name,
            probability=float(probabilities(scores, calibration.temperature)[best]) if calibration else None,
        )

    def _incomplete(self, segment: Segment, *, final: bool) -> SegmentScores:
        skipped = None if segment.frame is None else SkipCause.NO_SOUND
        return replace(self._background(segment, final=final), missing=segment.missing, skipped=skipped)

    def _background(self, segment: Segment, *, final: bool) -> SegmentScores:
        text = self.vocabulary.embeddings
        scores = np.zeros(len(text), np.float32)
        scores[-1] = 1.0
        vision, audio = (
            # The similarities of the other sense are shown unchanged, without context: evidence, not a decision.
            np.full(len(text), np.nan, np.float32) if embedding is None else rows @ embedding
            for embedding, rows in ((segment.vision, text.vision), (segment.audio, text.audio))
        )
        return SegmentScores(
            index=segment.index,
            start_s=segment.start_s,
            label=self.vocabulary.background,
            score=1.0,
            scores=scores,
            vision_similarity=vision,
            audio_similarity=audio,
            context=0,
            final=final,
            rule=self._rule.name,
        )
