"""Segments → context vectors: what the head makes of a second in its surroundings, before any text (docs/archive.md).

Shapes: T segments with both senses, D embedding size of a sense.
"""

from __future__ import annotations

import functools
from collections import deque
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.pipeline.localizer import Head, check_lag
from ovavel.runtime.types import BUFFER, Segment

__all__ = ["Context", "ContextVectors", "identity_texts"]


class Context(NamedTuple):
    """A second whose surroundings are known."""

    segment: int
    """Its index."""
    vision: NDArray[np.float32] | None
    """(D,) unit norm; where nothing was heard, the embedding itself; None: nothing was seen."""
    audio: NDArray[np.float32] | None


@functools.cache
def identity_texts(audio_size: int, vision_size: int) -> TextEmbeddings:
    """Return texts whose similarities are the components of a vector: the identity matrix of each sense.

    Below it are rows of zeros where the other sense has more components.
    """
    rows = max(audio_size, vision_size)
    audio = np.eye(rows, audio_size, dtype=np.float32)
    return (
        TextEmbeddings.shared(audio)
        if audio_size == vision_size
        else TextEmbeddings(audio, np.eye(rows, vision_size, dtype=np.float32))
    )


class ContextVectors:
    """Follows a stream beside a `Localizer`. Pure: the same segments always give the same vectors.

    The products of a second's vectors with texts are the similarities that the localizer decides on when that second
    becomes final, but for rounding: the head sees the same buffer.
    """

    def __init__(self, head: Head, sizes: tuple[int, int], *, lag: int, buffer: int = BUFFER) -> None:
        """Ask `head`, such as `Backend.head`, for embeddings of `sizes` D of audio and of vision.

        Raises:
            UsageError: `lag` is out of range.
        """
        check_lag(lag, buffer)
        self._head, self._lag, self._sizes = head, lag, sizes
        self._texts = identity_texts(*sizes)
        self._segments: deque[Segment] = deque(maxlen=buffer)
        self._reported = -1

    def push(self, segment: Segment) -> list[Context]:
        """Take the next segment; return the seconds that are final now, oldest first."""
        self._segments.append(segment)
        return self._report(segment.index - self._lag)

    def flush(self) -> list[Context]:
        """End of the stream: return the seconds that are left, and start over."""
        left = self._report(self._segments[-1].index) if self._segments else []
        self._segments.clear()
        self._reported = -1
        return left

    def _report(self, final_to: int) -> list[Context]:
        due = [each for each in self._segments if self._reported < each.index <= final_to]
        self._reported = max(self._reported, final_to)
        complete = [each for each in self._segments if not each.missing]
        row = {each.index: t for t, each in enumerate(complete)}
        if not any(each.index in row for each in due):
            return [Context(each.index, each.vision, each.audio) for each in due]
        audio, vision = (np.stack([getattr(each, sense) for each in complete])[None] for sense in ("audio", "vision"))
        output = self._head(audio, vision, self._texts)
        audio_size, vision_size = self._sizes
        return [
            Context(
                each.index,
                output.vision_similarity[0, row[each.index], :vision_size].copy(),
                output.audio_similarity[0, row[each.index], :audio_size].copy(),
            )
            if each.index in row
            else Context(each.index, each.vision, each.audio)
            for each in due
        ]
