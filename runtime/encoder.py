"""Windows → segments: the frame and the sound of each second become unit-norm embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.backends import Backend
from ovavel.runtime.preprocess import prepare_frame, prepare_waveform
from ovavel.runtime.timing import Timings
from ovavel.runtime.types import Segment, Window

__all__ = ["Encoder"]

# B windows in a batch, D embedding size


class Encoder:
    """Encodes windows with a backend, batched. One encoder serves any number of sources."""

    def __init__(self, backend: Backend, timings: Timings | None = None) -> None:
        """Encode with `backend`; note the stages "preprocess", "vision" and "audio" in `timings`."""
        self._backend = backend
        self._timings = timings or Timings()
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="ovavel-audio") if backend.info.concurrent else None

    def encode(self, windows: Sequence[Window]) -> list[Segment]:
        """One segment per window, in order; a sense that a window lacks stays None.

        Raises:
            UsageError: a frame or a waveform has the wrong shape or type.
        """
        with self._timings.measure("preprocess"):
            frames = {i: prepare_frame(w.frame) for i, w in enumerate(windows) if w.frame is not None}
            log_mels = {i: prepare_waveform(w.waveform) for i, w in enumerate(windows) if w.waveform is not None}
        if self._helper and frames and log_mels:
            later = self._helper.submit(self._run, "audio", self._backend.audio, log_mels)
            vision = self._run("vision", self._backend.vision, frames)
            audio = later.result()
        else:
            vision = self._run("vision", self._backend.vision, frames)
            audio = self._run("audio", self._backend.audio, log_mels)
        return [
            Segment(index=w.index, start_s=w.start_s, vision=vision.get(i), audio=audio.get(i))
            for i, w in enumerate(windows)
        ]

    def _run(
        self,
        stage: str,
        encode: Callable[[NDArray[np.float32]], NDArray[np.float32]],
        inputs: dict[int, NDArray[np.float32]],
    ) -> dict[int, NDArray[np.float32]]:
        if not inputs:
            return {}
        with self._timings.measure(stage):
            embeddings = encode(np.stack(list(inputs.values())))  # (B, D)
        return dict(zip(inputs, embeddings, strict=True))

    def close(self) -> None:
        """End the helper thread, if there is one. The backend stays open: it is its owner's to close."""
        if self._helper:
            self._helper.shutdown()
