"""The demo clip: forty seconds of the demo world as an ordinary video file, with the ground truth of each second."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.random import default_rng

from ovavel.eval.demo.world.kinds import KINDS, Kind
from ovavel.eval.demo.world.mp4 import FPS, write_mp4
from ovavel.eval.demo.world.scene import Scene, Script
from ovavel.runtime.system.files import atomic_write

__all__ = ["write_film"]


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
    random = default_rng(seed)
    scenes = [Scene(script, random) for script in _SCRIPTS]
    pictures = (
        scene.frame((number + 0.5) / FPS) for scene in scenes for number in range(len(scene.script.shown) * FPS)
    )
    write_mp4(path, pictures, np.concatenate([scene.sound() for scene in scenes]))
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
