"""Writer of the demo world's pictures and sound as an ordinary video file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ovavel.eval.demo.world.actors import HEIGHT_PX, WIDTH_PX
from ovavel.eval.demo.world.sounds import RATE_HZ
from ovavel.runtime.errors import OutputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FPS", "write_mp4"]

FPS = 12


def write_mp4(path: Path, pictures: Iterable[NDArray[np.uint8]], samples: NDArray[np.float32]) -> None:
    """Write an MP4 of 288 × 224 pixels at 12 frames per second with mono sound; the same bytes from the same input.

    Args:
        path: replaced once the file is complete.
        pictures: (224, 288, 3) uint8 RGB each, of consecutive twelfths of a second.
        samples: (N,) float32 in [-1, 1] at 16 kHz.

    Raises:
        OutputError: the file could not be written.
    """
    temporary = path.with_name(f".{path.name}.part.mp4")
    try:
        _encode(temporary, pictures, samples)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _encode(path: Path, pictures: Iterable[NDArray[np.uint8]], samples: NDArray[np.float32]) -> None:
    import av

    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        # Macroblock trees off: with them, x264's output differs from run to run.
        options = {"crf": "31", "preset": "slow", "x264-params": "mbtree=0"}
        video = container.add_stream("libx264", rate=FPS, options=options)
        video.width, video.height, video.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        video.codec_context.thread_count = 1  # with several threads the bytes differ from run to run
        sound = container.add_stream("aac", rate=RATE_HZ, layout="mono")
        sound.bit_rate = 64_000
        start = 0
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            container.mux(video.encode(frame))
            end = start + RATE_HZ // FPS
            _mux_sound(container, sound, samples[start:end], start)
            start = end
        _mux_sound(container, sound, samples[start:], start)
        container.mux(video.encode(None))
        container.mux(sound.encode(None))


def _mux_sound(container: Any, stream: Any, samples: NDArray[np.float32], start: int) -> None:
    import av

    if not len(samples):
        return
    block = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="fltp", layout="mono")
    block.sample_rate, block.pts = RATE_HZ, start
    container.mux(stream.encode(block))
