"""Encodes clips in batches, and the sound of training clips again with stochastic depth.

Shapes: n clips, B clips in a batch, P passes, T segments of a clip (10), D embedding size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ovavel.eval.datasets.audio_passes import SPLIT
from ovavel.runtime.errors import DeviceError
from ovavel.runtime.types import BUFFER
from ovavel.training.features.decode import Decoded
from ovavel.training.features.encoders import Encoders

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ovavel.eval.datasets.dataset import Clip

__all__ = ["BatchEncoder", "Embeddings", "check_finite", "default_batch"]

_GPU_BATCH = 16


class Embeddings(NamedTuple):
    """Of n clips."""

    clean: NDArray[np.float32]
    """(n, T, D of audio + D of vision)."""
    passes: NDArray[np.float32] | None
    """(n, P, T, D of audio); None where the clips have no passes."""


class BatchEncoder:
    """Collects clips of one split into batches of B and keeps their embeddings until they are taken."""

    def __init__(self, encoders: Encoders, batch: int) -> None:
        """Encode `batch` (B) clips at once."""
        self._encoders = encoders
        shapes = encoders.backend.encoders
        self._frames = np.empty((batch, BUFFER, *shapes.vision.shape), np.float32)
        self._log_mels = np.empty((batch, BUFFER, *shapes.audio.shape), np.float32)
        self._clips: list[Clip] = []
        self._clean: list[NDArray[np.float32]] = []
        self._passes: list[NDArray[np.float32]] = []

    def add(self, decoded: Decoded) -> None:
        """Copy a clip; encode when the batch is full.

        Raises:
            DeviceError: memory ran out, or the embeddings are not finite.
        """
        place = len(self._clips)
        self._frames[place], self._log_mels[place] = decoded.frames, decoded.log_mels
        self._clips.append(decoded.clip)
        if len(self._clips) == len(self._frames):
            self._encode()

    def take(self, split: str) -> Embeddings:
        """Encode the remaining clips; return the embeddings of all since the last call, which are of `split`.

        Raises:
            DeviceError: as `add`.
        """
        self._encode()
        audio, vision = self._encoders.backend.encoders.sizes
        made = self._encoders.passes if split == SPLIT else None
        empty = np.zeros((0, BUFFER, audio + vision), np.float32)
        clean, passes = np.concatenate([empty, *self._clean]), None
        if made:
            passes = np.concatenate([np.zeros((0, made.count, BUFFER, audio), np.float32), *self._passes])
        self._clean.clear()
        self._passes.clear()
        return Embeddings(clean, passes)

    def _encode(self) -> None:
        if not self._clips:
            return
        count, backend = len(self._clips), self._encoders.backend
        frames, log_mels = self._frames[:count], self._log_mels[:count]
        try:
            audio = backend.audio(log_mels.reshape(-1, *log_mels.shape[2:]))
            vision = backend.vision(frames.reshape(-1, *frames.shape[2:]))
            with_passes = self._encoders.passes and self._clips[0].split == SPLIT
            passes = [self._encoders.encode_passes(log_mels, self._clips)] if with_passes else []
        except (DeviceError, MemoryError, RuntimeError) as error:
            raise DeviceError(
                f"encoding {count} clips at once failed ({str(error).partition(chr(10))[0] or 'no memory'}). If "
                "memory ran out, run the command again with a smaller --batch: it resumes where it stopped"
            ) from error
        clean = np.concatenate([audio, vision], axis=1).reshape(count, BUFFER, -1)
        for array in (clean, *passes):
            check_finite(array, self._encoders)
        self._clean.append(clean)
        self._passes += passes
        self._clips.clear()


def default_batch(encoders: Encoders) -> int:
    """How many clips are encoded at once unless their number is given."""
    return 1 if encoders.device == "cpu" else _GPU_BATCH


def check_finite(embeddings: NDArray[np.float32], encoders: Encoders) -> None:
    """Refuse values that are not finite.

    Raises:
        DeviceError: there are some.
    """
    if not np.isfinite(embeddings).all():
        raise DeviceError(
            f"the encoders produced non-finite values in {encoders.precision}; use bf16 or fp32, and check that the "
            "weights are intact"
        )
