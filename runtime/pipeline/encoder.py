"""Windows → segments: the frame and the sound of each second become unit-norm embeddings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.backends import Backend
from ovavel.runtime.pipeline.preprocess import preparations
from ovavel.runtime.system.timing import Timings
from ovavel.runtime.types import Segment, Sense, Window

__all__ = ["Encode", "Encoder"]

# B windows in a batch, D embedding size

Encode: TypeAlias = Callable[[Sequence[NDArray[np.float32]]], Sequence[NDArray[np.float32]]]
"""Prepared pictures or sounds → (D,) embeddings: `Encoder.look` or `Encoder.listen`."""

_Prepared: TypeAlias = tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]
_MANY = 16
"""Windows of a batch from which they are prepared on several threads: below, starting these takes longer."""
_PREPARERS = min(8, os.cpu_count() or 1)
"""Threads that prepare: Pillow and numpy let others run meanwhile, up to about so many."""


class Encoder:
    """Encodes windows with a backend, batched. One encoder serves any number of sources."""

    def __init__(self, backend: Backend, timings: Timings | None = None) -> None:
        """Encode with `backend`; note the stages "preprocess", "vision" and "audio" in `timings`.

        Raises:
            BundleError: its encoders need a preprocessing that this ovavel lacks.
        """
        self._preparations = preparations(backend.encoders)
        self._backend = backend
        self._timings = timings or Timings()
        self._preparers: ThreadPoolExecutor | None = None
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="ovavel-audio") if backend.info.concurrent else None

    def encode(self, windows: Sequence[Window], *, look: bool = True, listen: Encode | None = None) -> list[Segment]:
        """One segment per window, in order; a sense that a window lacks stays None.

        With `look` False, pictures are prepared and not encoded; `look` encodes those that are needed after all. The
        sounds are then embedded by `listen`, which may do without encoding some of them.

        Raises:
            UsageError: a frame or a waveform has the wrong shape or type.
        """
        with self._timings.measure("preprocess"):
            frames, log_mels = self._prepare(windows)
        if not look:
            audio = dict(zip(log_mels, (listen or self.listen)(list(log_mels.values())), strict=True))
            return [
                Segment(index=w.index, start_s=w.start_s, vision=None, audio=audio.get(i), frame=frames.get(i))
                for i, w in enumerate(windows)
            ]
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

    def look(self, frames: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Encode prepared pictures, see `EncoderSpec.shape`: a (D,) embedding each.

        At most `BackendInfo.batch` are encoded at once, as when every picture is encoded: so the embeddings are the
        same, and larger batches would be no faster.
        """
        most = self._backend.info.batch
        batches = [dict(enumerate(frames[at : at + most])) for at in range(0, len(frames), most)]
        return [each for batch in batches for each in self._run("vision", self._backend.vision, batch).values()]

    def listen(self, log_mels: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Encode prepared sounds, see `EncoderSpec.shape`, at once: a (D,) embedding each."""
        return list(self._run("audio", self._backend.audio, dict(enumerate(log_mels))).values())

    def _prepare(
        self, windows: Sequence[Window]
    ) -> tuple[dict[int, NDArray[np.float32]], dict[int, NDArray[np.float32]]]:
        """Frames and log-mels by the place of their window; the same on one thread and on several."""
        if len(windows) < _MANY or _PREPARERS == 1:
            prepared: Iterator[_Prepared] = map(self._prepared, windows)
        else:
            if self._preparers is None:
                self._preparers = ThreadPoolExecutor(_PREPARERS, thread_name_prefix="ovavel-prepare")
            prepared = self._preparers.map(self._prepared, windows)
        frames, log_mels = {}, {}
        for i, (frame, log_mel) in enumerate(prepared):
            if frame is not None:
                frames[i] = frame
            if log_mel is not None:
                log_mels[i] = log_mel
        return frames, log_mels

    def _prepared(self, window: Window) -> _Prepared:
        return self._prepare_one("vision", window.frame), self._prepare_one("audio", window.waveform)

    def _prepare_one(self, sense: Sense, raw: NDArray[Any] | None) -> NDArray[np.float32] | None:
        return None if raw is None else self._preparations[sense].prepare(raw)

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
        """End the helper threads, if there are any. The backend stays open: it is its owner's to close."""
        for pool in (self._helper, self._preparers):
            if pool:
                pool.shutdown()
