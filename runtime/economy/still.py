"""Pictures and sounds that have not changed since the last one that was encoded keep its embedding (docs/economy.md).

Shapes: C, H, W channels, height and width of a prepared picture; of a log-mel spectrogram, (1, mels, frames) in their
place. D embedding size of the sense.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.pipeline.encoder import Encode

__all__ = ["AUDIT_EVERY", "PATCH", "Embedded", "Still", "Threshold", "difference", "signature"]

PATCH = 14
"""Side of the patches whose change is measured, in pixels: something small, or short, is not averaged away."""

AUDIT_EVERY = 20
"""One in so many that would keep an embedding is encoded all the same, to measure the drift."""

_PAIRS = 500
_AROUND = 10
"""Pairs on either side of a threshold that must all be within the budget."""
_SHARE = 0.01
"""Share of the pairs below a threshold that may be beyond the budget."""
_TIGHTER, _LOOSER = 0.9, 1.02


def signature(frame: NDArray[np.float32]) -> NDArray[np.float32]:
    """(C, H, W) prepared picture or sound → (C, H - 2, W - 2): the mean of 3 × 3 pixels, less noisy than one."""
    rows = frame[:, :-2] + frame[:, 1:-1] + frame[:, 2:]
    blurred: NDArray[np.float32] = (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) / 9
    return blurred


def difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Largest mean absolute difference of two signatures over patches of 14 × 14 pixels of one channel."""
    change = np.abs(one - other)
    _, height, width = change.shape
    down, right = (np.arange(0, side, PATCH) for side in (height, width))
    sums = np.add.reduceat(np.add.reduceat(change, down, axis=1), right, axis=2)
    pixels = np.outer(np.diff(down, append=height), np.diff(right, append=width))
    return float((sums / pixels).max())


class Threshold:
    """The largest difference at which an embedding is kept: learnt from what one camera, or microphone, has given."""

    def __init__(self, budget: float) -> None:
        """Keep the drift, as 1 - cosine, within `budget` at the 99th percentile."""
        self._budget = budget
        self._pairs: deque[tuple[float, float]] = deque(maxlen=_PAIRS)
        self._learnt = 0.0
        self._cap = np.inf

    @property
    def value(self) -> float:
        """Embeddings are kept at a difference of at most this; 0 as long as too little is known."""
        return min(self._learnt, self._cap)

    def learn(self, change: float, drift: float) -> None:
        """Take what two of them differ by, and what their embeddings do."""
        self._pairs.append((change, drift))
        changes, drifts = np.array(sorted(self._pairs)).T
        beyond = np.concatenate([[0], np.cumsum(drifts > self._budget)])
        at = np.arange(_AROUND, len(changes) - _AROUND)
        clean = beyond[at + _AROUND + 1] == beyond[at - _AROUND]
        rare = beyond[at + 1] <= _SHARE * (at + 1)
        good = at[clean & rare]
        self._learnt = float(changes[good[-1]]) if len(good) else 0.0

    def audit(self, change: float, drift: float) -> bool:
        """Take an audit; whether it was within the budget. One that was not tightens the threshold at once."""
        fine = drift <= self._budget
        self._cap = self._cap * _LOOSER if fine else min(self._cap, _TIGHTER * change)
        self.learn(change, drift)
        return fine


class _Step(NamedTuple):
    encode: bool
    audit: bool = False
    change: float | None = None


class Embedded(NamedTuple):
    """What became of one picture or sound."""

    embedding: NDArray[np.float32]
    encoded: bool
    drift: float | None = None
    """What an audit found."""
    within: bool = True
    """Whether that is within the budget."""


class Still:
    """Encodes those pictures of one camera, or sounds of one microphone, that differ from the last one encoded.

    Never from the last one taken: a change that is slow enough would go unnoticed for ever.
    """

    def __init__(self, encode: Encode, budget: float) -> None:
        """Encode with `encode`; see `Threshold` for `budget`."""
        self._encode = encode
        self.threshold = Threshold(budget)
        self._reference: NDArray[np.float32] | None = None  # signature of the last one that was encoded
        self._embedding: NDArray[np.float32] | None = None
        self._kept = 0

    def embed(self, inputs: Sequence[NDArray[np.float32]]) -> list[Embedded]:
        """Embed consecutive pictures or sounds; those that need it are encoded together."""
        steps = [self._step(each) for each in inputs]
        needed = [each for each, step in zip(inputs, steps, strict=True) if step.encode]
        encoded = iter(self._encode(needed) if needed else ())
        return [self._taken(step, next(encoded) if step.encode else None) for step in steps]

    def _step(self, prepared: NDArray[np.float32]) -> _Step:
        now = signature(prepared)
        change = None if self._reference is None else difference(now, self._reference)
        still = change is not None and change <= self.threshold.value
        self._kept += still
        audit = still and self._kept % AUDIT_EVERY == 0
        if still and not audit:
            return _Step(encode=False)
        self._reference = now
        return _Step(encode=True, audit=audit, change=change)

    def _taken(self, step: _Step, new: NDArray[np.float32] | None) -> Embedded:
        if new is None:
            assert self._embedding is not None, "the first one is encoded"
            return Embedded(self._embedding, encoded=False)
        before, self._embedding = self._embedding, new
        if before is None or step.change is None:
            return Embedded(new, encoded=True)
        drift = max(0.0, 1 - float(before @ new))
        if step.audit:
            return Embedded(new, True, drift, self.threshold.audit(step.change, drift))
        self.threshold.learn(step.change, drift)
        return Embedded(new, encoded=True)
