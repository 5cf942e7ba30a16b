"""What speaks for the decision on one second, packed to be kept with its event."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.types import SegmentScores
from ovavel.service.store.seconds import Packed

__all__ = ["BEST", "best", "pack"]

BEST = 5
"""Classes that are shown of each sense."""


def best(values: NDArray[np.float32]) -> tuple[tuple[int, float], ...]:
    """(C+1,) values → the places of the highest ones and their values, highest first; nothing of what is NaN."""
    if not np.isfinite(values).all():
        return ()
    order = np.argsort(-values, kind="stable")[:BEST]
    return tuple((int(c), round(float(values[c]), 4)) for c in order)


def pack(scores: SegmentScores, names: Sequence[str]) -> bytes:
    """One second for `keep_seconds`; `names` has the background last."""
    return msgspec.msgpack.encode(
        Packed(
            label=names.index(scores.label),
            margin=round(scores.margin, 4),
            missing=tuple(scores.missing),
            seen=best(scores.vision_similarity),
            heard=best(scores.audio_similarity),
            fused=() if scores.missing or scores.skipped else best(scores.scores),
            skipped=scores.skipped or "",
        )
    )
