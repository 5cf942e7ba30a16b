"""Which pictures and sounds of one source are encoded: what a session's economy does, second by second.

Shapes: T seconds, C classes with the background last, K further texts of the background.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.bundle.calibration import Rule
from ovavel.runtime.economy.audits import SoundAudits
from ovavel.runtime.economy.counts import EconomyCounts
from ovavel.runtime.economy.quiet import NoiseFloor, band_levels
from ovavel.runtime.economy.settings import EconomyPlan
from ovavel.runtime.economy.sound import is_background
from ovavel.runtime.economy.still import Embedded, Still
from ovavel.runtime.economy.weak import WeakSound
from ovavel.runtime.pipeline.encoder import Encode
from ovavel.runtime.types import Notice, Segment, SegmentScores, SkipCause

__all__ = ["EconomicEncoder"]

_QUIET_S = 600.0
"""Media time between two notices of the same kind."""


class EconomicEncoder:
    """Encodes the pictures and sounds of one source that are needed. The same segments always give the same work.

    A `Localizer` asks it (`Looking`) before it decides.
    """

    def __init__(
        self,
        look: Encode,
        listen: Encode,
        plan: EconomyPlan,
        rule: Rule,
        names: Sequence[str],
        counts: EconomyCounts,
    ) -> None:
        """Encode with `look` and `listen` what `plan` leaves to encode, and count; `rule` decides on `names`."""
        self._look, self._listen, self._plan, self._counts = look, listen, plan, counts
        self._rule, self._names = rule, tuple(names)
        self._still_pictures = Still(look, plan.budget) if plan.still else None
        self._still_sounds = Still(listen, plan.budget) if plan.still else None
        self._drifted: float | None = None  # of a sound, beyond the budget, and not reported so far
        self._foreseen: dict[int, NDArray[np.float32]] = {}  # embeddings of pictures that were not asked for so far
        self._kept: deque[bool] = deque()  # of sounds that did not arrive so far, whether they kept an embedding
        self._channel: int | None = None
        self._assumed = _Assumed(rule, names) if plan.still and plan.sound else None
        self._notices: list[Notice] = []
        self._reported_s: dict[str, float] = {}

    def listen(self, log_mels: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Embed prepared sounds, the next seconds of the source, a (D,) embedding each."""
        if self._still_sounds is None:
            return list(self._listen(log_mels))
        # One by one: which of them are encoded does not depend on how many come at once.
        found = [self._still_sounds.embed([each])[0] for each in log_mels]
        for each in found:
            self._kept.append(not each.encoded)
            if not self._audited(each):
                self._drifted = each.drift
        return [each.embedding for each in found]

    def arrived(
        self, segment: Segment, waveform: NDArray[np.float32] | None = None, channel: int | None = None
    ) -> Segment:
        """Take a second before it is decided: look at once where sound does not decide alone.

        `waveform`: (channels, n) what was heard, `Window.waveform`; `channel` of the source is its first, as
        `Window.channel`.
        """
        if self._plan.mode == "off":
            return segment
        self._counts.second(picture=segment.frame is not None, sound=segment.audio is not None)
        if self._drifted is not None:
            self._report(segment.start_s, "sound drift", _DRIFTED.format("sound", self._drifted, self._plan.budget))
            self._drifted = None
        if self._kept and segment.audio is not None:
            self._counts.heard(reused=self._kept.popleft())
        if self._assumed and waveform is not None:
            if channel != self._channel:  # another microphone, with a noise of its own
                self._channel = channel
                self._assumed.forget_noise()
            self._assumed.hear(segment.index, waveform)
        return segment if self._plan.sound else self.look([segment])[0]

    def causes(self, segments: Sequence[Segment], heard: NDArray[np.float32]) -> list[SkipCause | None]:
        """See `Looking`."""
        settled = is_background(self._rule, heard, self._names)
        causes = self._assumed.causes(segments, heard, settled) if self._assumed else [None] * len(settled)
        return [SkipCause.SOUND if by_rule else cause for by_rule, cause in zip(settled, causes, strict=True)]

    def foresee(self, segments: Sequence[Segment]) -> None:
        """Encode at once the pictures that `look` will be asked for second by second, in the mode "exact".

        Larger batches may be faster. It changes no decision, and `look` counts each picture where it is needed.
        """
        frames = {s.index: s.frame for s in segments if s.frame is not None}
        if frames:
            self._foreseen |= zip(frames, self._look(list(frames.values())), strict=True)

    def look(self, segments: Sequence[Segment]) -> list[Segment]:
        """See `Looking`."""
        waiting = [s for s in segments if s.frame is not None]
        if not waiting:
            return list(segments)
        frames = [s.frame for s in waiting if s.frame is not None]
        if self._still_pictures is None:
            self.foresee([s for s in waiting if s.index not in self._foreseen])
            embeddings = [self._foreseen.pop(s.index) for s in waiting]
            self._counts.looked(encoded=len(embeddings))
        else:
            found = self._still_pictures.embed(frames)
            embeddings = [each.embedding for each in found]
            encoded = sum(each.encoded for each in found)
            self._counts.looked(encoded=encoded, reused=len(found) - encoded)
            for segment, each in zip(waiting, found, strict=True):
                if not self._audited(each):
                    drifted = _DRIFTED.format("picture", each.drift, self._plan.budget)
                    self._report(segment.start_s, "drift", drifted)
        by_index = {s.index: embedding for s, embedding in zip(waiting, embeddings, strict=True)}
        return [s if s.frame is None else replace(s, vision=by_index[s.index], frame=None) for s in segments]

    def decided(self, scores: Sequence[SegmentScores]) -> None:
        """Take what was decided: learn from it, and count what is final without its picture."""
        for each in scores:
            if each.final and each.skipped:
                self._counts.skipped(each.skipped)
        for background in self._assumed.learn(scores) if self._assumed else ():
            self._counts.audited(None, failed=not background)
            if not background:
                self._report(scores[-1].start_s, "sound", _WAS_EVENT)

    def notices(self) -> tuple[Notice, ...]:
        """What there is to report since the last call."""
        news, self._notices = tuple(self._notices), []
        return news

    def _audited(self, each: Embedded) -> bool:
        """Count an audit, if it was one; whether the drift is within the budget."""
        if each.drift is not None:
            self._counts.audited(each.drift, failed=not each.within)
        return each.within

    def _report(self, time_s: float, kind: str, message: str) -> None:
        if time_s - self._reported_s.get(kind, -_QUIET_S) >= _QUIET_S:
            self._reported_s[kind] = time_s
            self._notices.append(Notice(time_s=time_s, message=message))


class _Assumed:
    """What is assumed of pictures and of noise, as far as audits bear it out."""

    def __init__(self, rule: Rule, names: Sequence[str]) -> None:
        self._background = names[-1]
        self._weak, self._floor, self._audits = WeakSound(rule, names), NoiseFloor(), SoundAudits()
        self._levels: dict[int, NDArray[np.float32]] = {}  # of seconds that are not final
        self._quiet: set[int] = set()

    def hear(self, index: int, waveform: NDArray[np.float32]) -> None:
        """Take the sound of a second."""
        self._levels[index] = levels = band_levels(waveform)
        if self._floor.is_quiet(levels):
            self._quiet.add(index)

    def forget_noise(self) -> None:
        """Begin with nothing known of the noise."""
        self._floor = NoiseFloor()
        self._levels.clear()
        self._quiet.clear()

    def causes(
        self, segments: Sequence[Segment], heard: NDArray[np.float32], settled: NDArray[np.bool_]
    ) -> list[SkipCause | None]:
        """Causes to skip seconds that are not `settled` by the rule: none for those to audit."""
        found: list[SkipCause | None] = []
        for segment, weak, by_rule in zip(segments, self._weak.settled(heard), settled, strict=True):
            quiet = segment.index in self._quiet
            cause = SkipCause.NOTHING_TO_HEAR if quiet else SkipCause.WEAK_SOUND if weak else None
            chosen = self._audits.chooses(segment.index, skips=cause is not None and not by_rule)
            found.append(None if chosen else cause)
        return found

    def learn(self, scores: Sequence[SegmentScores]) -> list[bool]:
        """Take decisions; for each audit that is over, whether its second was background indeed."""
        self._weak.learn(scores)
        for each in scores:
            if each.final:
                levels = self._levels.pop(each.index, None)
                self._quiet.discard(each.index)
                if levels is not None and each.label == self._background:
                    self._floor.learn(levels)
        audits = self._audits.over(scores, self._background)
        if not all(audits):
            self._weak.distrust()
            self._floor.distrust()
        return audits


_DRIFTED = (
    "economy: a {} that was taken for unchanged drifted by {:.4f}, and the budget is {:g}; they must be more alike now "
    "to keep an embedding"
)
_WAS_EVENT = (
    "economy: a second whose sound was taken for too weak, or for noise, is an event; fewer seconds are now decided by "
    "sound"
)
