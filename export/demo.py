"""The whole way on a small scale: an untrained model, a made-up clip, a bundle, and what it localizes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ovavel.export.bundle import need_libraries, write_bundle
from ovavel.runtime.errors import OutputError
from ovavel.runtime.files import output_error

__all__ = ["NAMES", "run_demo", "write_clip", "write_random_weights"]

NAMES = ("dog barking", "engine running", "bird singing", "church bell ringing")
RANDOM_LICENCE = "random weights, made by ovavel: no licence binds them"

_SEED = 30
"""A draw that tells the scenes of the clip apart: most random encoders see one thing in everything."""

_WIDTH, _HEIGHT, _FPS = 320, 180, 10
_RATE_HZ = 44_100


class _Scene(NamedTuple):
    """A stretch of the clip: a disc of one colour that goes round, and a tone."""

    duration_s: int
    colour: tuple[int, int, int]
    tone_hz: float
    """0 is silence."""


_SCENES = (
    _Scene(5, (220, 60, 40), 440.0),
    _Scene(3, (0, 0, 0), 0.0),
    _Scene(5, (60, 200, 80), 880.0),
    _Scene(3, (60, 90, 230), 0.0),
    _Scene(4, (240, 210, 60), 220.0),
)


def run_demo(out: Path) -> int:
    """Write an untrained tiny bundle and a clip into `out`, localize the clip there, and return the exit code."""
    from ovavel.runtime.commands.localize import Localize
    from ovavel.runtime.console import OutputConsole

    need_libraries()
    from ovavel.training.imagebind import ImageBindConfig

    console = OutputConsole(highlight=False, soft_wrap=True)
    weights, bundle, clip = out / "random.safetensors", out / "bundle", out / "clip.mp4"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(out, error) from error
    config = ImageBindConfig.tiny()
    with console.status("making an untrained model and a clip"):
        write_random_weights(weights, config, _SEED)
        write_clip(clip)
    with console.status("exporting") as status:
        write_bundle(
            weights,
            bundle,
            NAMES,
            config=config,
            licence=RANDOM_LICENCE,
            overwrite=bundle.exists(),
            progress=lambda stage, _share: status.update(f"exporting: {stage}"),
        )
    console.print(
        f"{bundle}: an untrained model, compared with PyTorch and ready to run\n{clip}: 20 s of made-up media"
    )
    code = Localize(files=(clip,), bundle=bundle, out=out, overwrite=True).run()
    console.print("This model is random and has learnt nothing: the labels above mean nothing. The steps and files are")
    console.print(
        "those of a real one; for that, see 'ovavel export weights --help' and 'ovavel export bundle --help'."
    )
    return code


def write_random_weights(path: Path, config: Any, seed: int = 0) -> None:
    """Write an untrained ImageBind: each matrix scaled to its inputs, as training would begin with.

    Raises:
        OutputError: it could not be written.
    """
    import torch

    from ovavel.training.checkpoint import write_checkpoint
    from ovavel.training.imagebind import published_entries

    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in published_entries(config).items():
        if name.endswith(".mask"):
            continue  # causal, so it is known
        if len(shape) < 2:
            tensors[name] = torch.full(shape, float(name.endswith("weight")))  # 1 for gains, 0 for biases
        else:
            tensors[name] = torch.randn(shape, generator=random) / math.sqrt(math.prod(shape[1:]))
    write_checkpoint(path, tensors, {})


def write_clip(path: Path) -> None:
    """Write 20 s of coloured discs with tones and silence, 320 × 180 at 10 frames a second with sound.

    Raises:
        OutputError: it could not be written.
    """
    import av

    try:
        with av.open(str(path), "w") as container:
            video = container.add_stream("mpeg4", rate=_FPS)
            video.width, video.height, video.pix_fmt, video.bit_rate = _WIDTH, _HEIGHT, "yuv420p", 400_000
            audio = container.add_stream("aac", rate=_RATE_HZ, layout="mono")
            sound = _sound()
            for number, picture in enumerate(_pictures()):
                container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                start = number * _RATE_HZ // _FPS
                block = sound[None, start : start + _RATE_HZ // _FPS]
                samples = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
                samples.sample_rate, samples.pts = _RATE_HZ, start
                container.mux(audio.encode(samples))
            container.mux(video.encode(None))
            container.mux(audio.encode(None))
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error}") from error


def _pictures() -> Iterator[NDArray[np.uint8]]:
    rows, columns = np.mgrid[0:_HEIGHT, 0:_WIDTH]
    number = 0
    for scene in _SCENES:
        for _ in range(scene.duration_s * _FPS):
            angle = number / _FPS
            row, column = _HEIGHT / 2 + 40 * math.sin(angle), _WIDTH / 2 + 90 * math.cos(angle)
            inside = (rows - row) ** 2 + (columns - column) ** 2 < 45**2
            picture = np.full((_HEIGHT, _WIDTH, 3), 24, np.uint8)
            picture[inside] = scene.colour
            yield picture
            number += 1


def _sound() -> NDArray[np.float32]:
    parts = []
    for scene in _SCENES:
        time_s = np.arange(scene.duration_s * _RATE_HZ) / _RATE_HZ
        pulse = 0.5 - 0.5 * np.cos(2 * np.pi * 4 * time_s)
        parts.append(0.4 * pulse * np.sin(2 * np.pi * scene.tone_hz * time_s))
    return np.concatenate(parts).astype(np.float32)
