"""Which second of an event shows it best, and what it looked and sounded like. Pure."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass

from ovavel.runtime.types import BUFFER, SegmentScores
from ovavel.service.capture.messages import Captured

__all__ = ["Peak", "Peaks"]

AROUND = 2
"""Seconds of sound on either side of the best one."""
_KEPT = BUFFER + 2 * AROUND + 4
_RUNS = 4


@dataclass(slots=True)
class Peak:
    """The best second of a stretch of one label."""

    first: int
    last: int
    best: int
    """Indices of seconds."""
    margin: float
    picture: bytes | None
    """Of the best second; a WebP."""
    spectra: tuple[tuple[int, bytes | None], ...]
    """Index and spectrogram of the seconds around the best one; None where nothing was heard."""


class Peaks:
    """Follows the decisions on one run of a camera."""

    def __init__(self, bridge: int) -> None:
        """Stretches of one label with a pause of up to `bridge` seconds are one."""
        self._bridge = bridge
        self._windows: deque[tuple[int, bytes | None, bytes | None]] = deque(maxlen=_KEPT)
        self._runs: defaultdict[str, deque[Peak]] = defaultdict(lambda: deque(maxlen=_RUNS))

    def window(self, window: Captured) -> None:
        """Remember what a second looked and sounded like until it is decided on."""
        self._windows.append((window.index, window.picture, window.spectrum))
        for runs in self._runs.values():
            for run in runs:
                if 0 < window.index - run.best <= AROUND and all(index != window.index for index, _ in run.spectra):
                    run.spectra = (*run.spectra, (window.index, window.spectrum))

    def scored(self, scores: Iterable[SegmentScores]) -> None:
        """Take in decisions; only final ones count."""
        for each in scores:
            if each.final and not each.missing:
                self._add(each)

    def take(self, label: str, start_s: float, end_s: float) -> Peak | None:
        """The best second of an event; None where nothing of it is remembered."""
        inside = [run for run in self._runs[label] if start_s <= run.best < end_s]
        return max(inside, key=lambda run: run.margin, default=None)

    def _add(self, scores: SegmentScores) -> None:
        runs, index = self._runs[scores.label], scores.index
        for each in self._runs.values():  # of what is over, the news has come by now
            while each and each[0].last < index - self._bridge - _KEPT:
                each.popleft()
        run = runs[-1] if runs and index - runs[-1].last <= self._bridge + 1 else None
        if run is None:
            runs.append(Peak(index, index, index, scores.margin, *self._at(index)))
        else:
            run.last = index
            if scores.margin > run.margin:
                run.best, run.margin = index, scores.margin
                run.picture, run.spectra = self._at(index)

    def _at(self, index: int) -> tuple[bytes | None, tuple[tuple[int, bytes | None], ...]]:
        picture = next((picture for each, picture, _ in self._windows if each == index), None)
        around = [(each, spectrum) for each, _, spectrum in self._windows if abs(each - index) <= AROUND]
        return picture, tuple(around)
