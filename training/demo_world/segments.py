"""Single seconds of the demo world, on which its encoders are trained."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.random import default_rng
from PIL import Image

from ovavel.eval.demo.world.kinds import KINDS
from ovavel.eval.demo.world.scene import Scene, Script
from ovavel.runtime.errors import DeviceError
from ovavel.runtime.pipeline.preprocess import crop_frame, prepare_waveform
from ovavel.runtime.system.files import atomic_write, output_error
from ovavel.runtime.system.parallel import Crashed, run_each
from ovavel.runtime.system.progress import Progress, no_progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Segments", "make_segments"]

# N segments

NOTHING = len(KINDS)
"""Index used in place of a kind: nothing to see, and nothing to hear but noise."""

_BLOCK = 250
"""Segments per task."""
_NOTHING_SHARE = 0.06


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """Seconds of the world, each with a frame and a sound of the same kind."""

    frames: NDArray[np.uint8]
    """(N, 224, 224, 3) RGB."""
    log_mels: NDArray[np.float16]
    """(N, 1, 128, 204)."""
    kinds: NDArray[np.int64]
    """(N,) indices in `KINDS`, or `NOTHING`."""


def make_segments(folder: Path, count: int, seed: int, *, workers: int, progress: Progress = no_progress) -> Segments:
    """Render `count` segments into `folder` and memory-map them. An interrupted run resumes; seeds are reproducible.

    Raises:
        OutputError: a file could not be written.
        DeviceError: a worker process was killed.
    """
    shapes: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
        "frames": (np.dtype(np.uint8), (count, 224, 224, 3)),
        "log_mels": (np.dtype(np.float16), (count, 1, 128, 204)),
        "kinds": (np.dtype(np.int64), (count,)),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        started = folder / f"{count}-of-seed-{seed}"
        done = int(started.read_text()) if started.is_file() else 0
        segments = Segments(
            **{name: _mapped(folder / f"{name}.npy", *shape, exists=done > 0) for name, shape in shapes.items()}
        )
        progress("drawing seconds of the world", done, count)
        finished: set[int] = set()
        for start, block in run_each(partial(_block, seed, count), range(done, count, _BLOCK), workers=workers):
            if isinstance(block, Crashed):
                raise DeviceError("a process that renders segments was killed; run the command again to resume")
            rows = slice(start, start + len(block.kinds))
            segments.frames[rows], segments.log_mels[rows] = block.frames, block.log_mels
            segments.kinds[rows] = block.kinds
            finished.add(start)
            while done in finished:  # every block before `done` is finished
                done = min(done + _BLOCK, count)
            atomic_write(started, str(done).encode())
            progress("drawing seconds of the world", done, count)
    except OSError as error:
        raise output_error(folder, error) from error
    return segments


def _mapped(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], *, exists: bool) -> NDArray[Any]:
    if exists:
        return np.lib.format.open_memmap(path, "r+")
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    with path.open("r+b") as file:  # allocated now: a mapping on a full disk would kill the process
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _block(seed: int, total: int, start: int) -> Segments:
    random = default_rng((seed, start))
    count = min(_BLOCK, total - start)
    frames = np.empty((count, 224, 224, 3), np.uint8)
    log_mels = np.empty((count, 1, 128, 204), np.float16)
    kinds = np.empty(count, np.int64)
    for row in range(count):
        kinds[row] = NOTHING if random.random() < _NOTHING_SHARE else random.integers(len(KINDS))
        kind = None if kinds[row] == NOTHING else KINDS[kinds[row]]
        scene = Scene(Script(shown=(kind,), heard=(kind,)), random)
        frames[row] = crop_frame(_compressed(scene.frame(random.uniform(0, 1)), int(random.integers(50, 96))))
        log_mels[row] = prepare_waveform(scene.sound()[None])
    return Segments(frames=frames, log_mels=log_mels, kinds=kinds)


def _compressed(frame: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Add the compression artefacts that a file or a stream would have."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))
