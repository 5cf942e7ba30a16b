"""The demo clip: forty seconds of the demo world as an ordinary video file, with the ground truth of each second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ovavel.eval.demo.world.actors import HEIGHT_PX, WIDTH_PX
from ovavel.eval.demo.world.kinds import KINDS, Kind
from ovavel.eval.demo.world.scene import Scene, Script
from ovavel.eval.demo.world.sounds import RATE_HZ
from ovavel.runtime.errors import OutputError
from ovavel.runtime.system.files import atomic_write

__all__ = ["write_film"]

FPS = 12


def _kind(name: str) -> Kind:
    return next(kind for kind in KINDS if kind.name == name)


def _script(*parts: tuple[int, str, str]) -> Script:
    """Build a script from (seconds, shown, heard); an empty name stands for nothing."""
    shown = [_kind(name) if name else None for seconds, name, _ in parts for _ in range(seconds)]
    heard = [_kind(name) if name else None for seconds, _, name in parts for _ in range(seconds)]
    return Script(shown=tuple(shown), heard=tuple(heard))


_BELL, _DOG, _DRUM = "small bell ringing quickly", "large dog barking slowly", "large drum beating quickly"
_BIRD, _SIREN, _FROG = "small bird singing slowly", "large siren wailing slowly", "large frog croaking quickly"

_SCRIPTS = (
    # A bell that rings, falls silent in full view, and rings again.
    _script((4, _BELL, _BELL), (3, _BELL, ""), (3, _BELL, _BELL)),
    # A dog that is heard before it comes into view.
    _script((3, "", _DOG), (6, _DOG, _DOG)),
    # A bird in view while a siren wails off screen: two things, no event.
    _script((5, _BIRD, _SIREN), (5, _BIRD, _BIRD)),
    _script((6, _DRUM, _DRUM), (2, "", "")),
    _script((3, _FROG, _FROG)),
)
"""The scenes in order. Some of the kinds occur in training and some do not; the clip itself does not."""


def write_film(path: Path, truth: Path, seed: int) -> None:
    """Write the clip to `path` (MP4, 288 × 224 at 12 frames per second, mono sound) and its truth as JSON to `truth`.

    Raises:
        OutputError: a file could not be written.
    """
    random = np.random.default_rng(seed)
    scenes = [Scene(script, random) for script in _SCRIPTS]
    temporary = path.with_name(f".{path.name}.part.mp4")
    try:
        _encode(temporary, scenes)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    seconds = [pair for script in _SCRIPTS for pair in zip(script.shown, script.heard, strict=True)]
    content = {
        "names": [kind.name for kind in KINDS],
        "duration_s": len(seconds),
        "labels": [shown.name if shown and shown == heard else "" for shown, heard in seconds],
        "notes": [_note(shown, heard) for shown, heard in seconds],
    }
    atomic_write(truth, json.dumps(content, indent=2).encode() + b"\n")


def _note(shown: Kind | None, heard: Kind | None) -> str:
    if shown == heard:
        return "" if shown is None or shown.seen else "not among the classes the head was trained on"
    if shown is None:
        return f"{heard.thing if heard else 'nothing'} heard, but out of sight"
    return (
        f"{shown.thing} in sight, but silent"
        if heard is None
        else f"{shown.thing} in sight while a {heard.thing} is heard"
    )


def _encode(path: Path, scenes: list[Scene]) -> None:
    import av

    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        # Macroblock trees off: with them, x264's output differs from run to run.
        options = {"crf": "31", "preset": "slow", "x264-params": "mbtree=0"}
        video = container.add_stream("libx264", rate=FPS, options=options)
        video.width, video.height, video.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        video.codec_context.thread_count = 1  # with several threads the bytes differ from run to run
        sound = container.add_stream("aac", rate=RATE_HZ, layout="mono")
        sound.bit_rate = 64_000
        samples = np.concatenate([scene.sound() for scene in scenes])
        start = pictures = 0
        for scene in scenes:
            for number in range(len(scene.script.shown) * FPS):
                picture = scene.frame((number + 0.5) / FPS)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, pictures = pictures, pictures + 1
                container.mux(video.encode(frame))
                end = start + RATE_HZ // FPS
                _mux_sound(container, sound, samples[start:end], start)
                start = end
        _mux_sound(container, sound, samples[start:], start)
        container.mux(video.encode(None))
        container.mux(sound.encode(None))


def _mux_sound(container: Any, stream: Any, samples: Any, start: int) -> None:
    import av

    if not len(samples):
        return
    block = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="fltp", layout="mono")
    block.sample_rate, block.pts = RATE_HZ, start
    container.mux(stream.encode(block))
