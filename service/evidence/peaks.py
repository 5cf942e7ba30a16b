"""Which second of an event shows it best, and what it looked and sounded like. Pure."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass

from ovavel.runtime.types import BUFFER, SegmentScores
from ovavel.service.capture.messages import Captured

__all__ = ["AROUND", "Peak", "Peaks"]

AROUND = 2
"""Seconds of sound on either side of the best one."""
_RECENT = BUFFER + 2 * AROUND + 4
"""Seconds that are remembered whatever they are: until they are decided on, and the news of that has come."""
_MOST = 16
"""Seconds of one label that are remembered beyond that."""


@dataclass(slots=True)
class Peak:
    """A second that may be the best one of an event."""

    index: int
    margin: float
    picture: bytes | None
    """A WebP."""
    spectra: tuple[tuple[int, bytes | None], ...]
    """Index and spectrogram of the seconds around it; None where nothing was heard."""


class Peaks:
    """Follows the decisions on one run of a camera."""

    def __init__(self, bridge: int) -> None:
        """An event may have a pause of up to `bridge` seconds."""
        self._bridge = bridge
        self._windows: deque[tuple[int, bytes | None, bytes | None]] = deque(maxlen=_RECENT)
        self._seconds: defaultdict[str, list[Peak]] = defaultdict(list)

    def window(self, window: Captured) -> None:
        """Remember what a second looked and sounded like until it is decided on."""
        self._windows.append((window.index, window.picture, window.spectrum))
        for seconds in self._seconds.values():
            for each in seconds:
                if 0 < window.index - each.index <= AROUND and each.spectra[-1][0] < window.index:
                    each.spectra = (*each.spectra, (window.index, window.spectrum))

    def scored(self, scores: Iterable[SegmentScores]) -> None:
        """Take in decisions; only final ones count."""
        for each in scores:
            if each.final and not each.missing and each.margin > 0:
                picture = next((picture for index, picture, _ in self._windows if index == each.index), None)
                around = [(index, one) for index, _, one in self._windows if abs(index - each.index) <= AROUND]
                self._seconds[each.label].append(
                    Peak(each.index, each.margin, picture, tuple(around) or ((each.index, None),))
                )
                self._forget(each.label, each.index)

    def take(self, label: str, start_s: float, end_s: float) -> Peak | None:
        """The best second of an event; None where nothing of it is remembered."""
        inside = [each for each in self._seconds.get(label, ()) if start_s <= each.index < end_s]
        return max(inside, key=lambda each: each.margin, default=None)

    def _forget(self, label: str, now: int) -> None:
        """Forget labels that are over, and seconds of `label` that a later one of the same surpasses."""
        for name in [name for name, each in self._seconds.items() if each[-1].index < now - self._bridge - _RECENT]:
            del self._seconds[name]
        recent, old, best = [], [], -1.0
        for each in reversed(self._seconds[label]):
            if each.index >= now - _RECENT:
                recent.append(each)
            elif each.margin > best:
                old.append(each)
            best = max(best, each.margin)
        old.reverse()
        while len(old) > _MOST:  # they fall from one to the next: that goes which is nearest to the one before it
            del old[min(range(1, len(old)), key=lambda index: old[index - 1].margin - old[index].margin)]
        self._seconds[label] = [*old, *recent[::-1]]
