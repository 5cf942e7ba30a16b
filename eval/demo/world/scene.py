"""Clips of the demo world: a script of what is seen and heard in each second, and its frames and sound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from PIL import ImageFilter

from ovavel.eval.demo.world.actors import FINE, HEIGHT_PX, WIDTH_PX, Actor, draw_stage
from ovavel.eval.demo.world.kinds import Kind
from ovavel.eval.demo.world.sounds import RATE_HZ, background_noise, reverberate, strokes

__all__ = ["Scene", "Script", "write_script"]

# T seconds of a clip, N samples at RATE_HZ


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What happens in a clip, second by second. An event is where the same kind is shown and heard."""

    shown: tuple[Kind | None, ...]
    heard: tuple[Kind | None, ...]

    @property
    def labels(self) -> tuple[int, ...]:
        """1 for each second whose thing is both seen and heard."""
        return tuple(
            int(shown is not None and shown == heard) for shown, heard in zip(self.shown, self.heard, strict=True)
        )


_DISTRACTORS = (
    ("silent", 0.3),
    ("out of sight", 0.25),
    ("nothing", 0.15),
    ("another is heard", 0.15),
    ("another is seen", 0.15),
)
"""What a stretch without an event contains, with probabilities."""
_WHOLE, _NONE = 0.43, 0.24
"""Shares of clips with the event in every second and in none, close to those of OV-AVEBench."""


def write_script(kind: Kind, others: Sequence[Kind], random: Generator, seconds: int = 10) -> Script:
    """Make up a clip about `kind`; distractors are drawn from `others`."""
    draw = random.random()
    if draw < _WHOLE:
        labels = [1] * seconds
    elif draw < _WHOLE + _NONE:
        labels = [0] * seconds
    else:
        labels = _partial(random, seconds)
    shown: list[Kind | None] = []
    heard: list[Kind | None] = []
    for label, run in groupby(labels):
        length = len(list(run))
        parts = [length] if label or length < 4 or random.random() < 0.5 else [length // 2, length - length // 2]
        for part in parts:
            content = (
                "event"
                if label
                else str(random.choice([t for t, _ in _DISTRACTORS], p=[share for _, share in _DISTRACTORS]))
            )
            other = _other(kind, others, random)
            shown += [{"out of sight": None, "nothing": None, "another is seen": other}.get(content, kind)] * part
            heard += [{"silent": None, "nothing": None, "another is heard": other}.get(content, kind)] * part
    return Script(shown=tuple(shown), heard=tuple(heard))


def _partial(random: Generator, seconds: int) -> list[int]:
    """Draw labels with one or two events and at least one second outside them."""
    while True:
        labels = [0] * seconds
        for _ in range(1 + int(random.random() < 0.35)):
            length = int(random.integers(1, seconds - 1))
            start = int(random.integers(0, seconds - length + 1))
            labels[start : start + length] = [1] * length
        if 0 < sum(labels) < seconds:
            return labels


def _other(kind: Kind, others: Sequence[Kind], random: Generator) -> Kind:
    candidates = [other for other in others if other.thing != kind.thing]
    return candidates[int(random.integers(len(candidates)))]


class Scene:
    """A script on a stage. Background, light, position, scale, room and noise are chosen once per clip."""

    def __init__(self, script: Script, random: Generator) -> None:
        self.script = script
        kinds = dict.fromkeys(kind for kind in (*script.shown, *script.heard) if kind)
        self._actors: Mapping[Kind, Actor] = {kind: Actor.of(kind, random) for kind in kinds}
        self._stage = draw_stage(random)
        self._gain = random.uniform(0.65, 1.25)
        self._cast = random.uniform(0.88, 1.12, 3)
        self._grain = random.uniform(0.0, 9.0)
        self._blur = random.uniform(0.4, 1.0) if random.random() < 0.25 else 0.0
        self._seed = int(random.integers(2**32))

    def frame(self, time_s: float) -> NDArray[np.uint8]:
        """Draw the frame at `time_s`: (224, 288, 3) uint8 RGB."""
        picture = self._stage.copy()
        kind = self.script.shown[min(int(time_s), len(self.script.shown) - 1)]
        if kind:
            self._actors[kind].draw(picture, time_s)
        picture = picture.reduce(FINE)
        if self._blur:
            picture = picture.filter(ImageFilter.GaussianBlur(self._blur))
        random = default_rng((self._seed, round(1000 * time_s)))
        light = np.asarray(picture, np.float32) * (self._gain * self._cast).astype(np.float32)
        light += self._grain * random.standard_normal((HEIGHT_PX, WIDTH_PX, 1), dtype=np.float32)
        return light.clip(0, 255).astype(np.uint8)

    def sound(self) -> NDArray[np.float32]:
        """Render the sound of the whole clip: (N,) float32 in [-1, 1]."""
        random = default_rng((self._seed, 0))
        seconds = len(self.script.heard)
        sound = np.zeros(seconds * RATE_HZ, np.float32)
        start = 0
        for kind, run in groupby(self.script.heard):
            length = len(list(run))
            if kind:
                rate_hz = self._actors[kind].rate_hz
                self._mix(sound, strokes(kind, length, rate_hz, random), start, random)
            start += length
        if random.random() < 0.7:
            sound = reverberate(sound, random)
        sound += random.uniform(0.004, 0.03) * background_noise(seconds, random)
        sound *= random.uniform(0.15, 0.9) / max(1.0, float(np.abs(sound).max()))
        return sound.clip(-1, 1)

    def _mix(self, sound: NDArray[np.float32], part: NDArray[np.float32], start: int, random: Generator) -> None:
        """Add `part` at second `start`; ends that lie inside the clip are moved a little inwards."""
        late = int(random.uniform(0, 0.15) * RATE_HZ) if start else 0
        early = int(random.uniform(0, 0.15) * RATE_HZ) if start * RATE_HZ + len(part) < len(sound) else 0
        part = part * np.float32(random.uniform(0.5, 1.0))
        part[:late] = 0
        part[len(part) - early :] = 0
        sound[start * RATE_HZ : start * RATE_HZ + len(part)] += part
