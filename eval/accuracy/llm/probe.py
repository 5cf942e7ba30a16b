"""Whether an endpoint hears and sees: some servers take sound or pictures, drop them without a word, and answer.

Four made-up clips are asked about exactly as clips of a dataset are: black pictures with two different sounds, silence
with two different pictures. Whoever does not get the sound cannot distinguish the first two, whoever does not get the
pictures not the others, so a guess that is right once is wrong the other time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.random import default_rng

from ovavel.eval.accuracy.llm.parse import parse
from ovavel.eval.accuracy.llm.prompt import Prompt
from ovavel.eval.datasets.clip_media import CLIP_SAMPLES, SEGMENTS, ClipMedia
from ovavel.runtime.reporting.text import quoted
from ovavel.runtime.types import RATE_HZ

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NAMES", "SHOWN", "Shown", "deaf_or_blind"]

BEEP, NOISE, SQUARE, CIRCLE = "a beeping tone", "hissing noise", "a red square", "a blue circle"
NAMES = (BEEP, NOISE, SQUARE, CIRCLE)
"""The classes that are asked for."""
_SIDE = 384
"""Of a picture, in pixels."""
_MOST = 6
"""Of the ten seconds, in how many a class has to be named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One clip of the probe: what is in it, and for which sense."""

    name: str
    sense: str
    """"seen" or "heard"."""
    media: Callable[[], ClipMedia]

    @property
    def prompt(self) -> Prompt:
        """What is asked about it: the same as about any clip."""
        return Prompt(question="both", names=NAMES, clip=f"probe/{self.name}")

    def named(self, answer: str) -> bool:
        """Whether `answer` names what is there, in most seconds and in the list of its sense."""
        parsed = parse(answer, "both", len(NAMES))
        numbers = parsed.seen if self.sense == "seen" else parsed.heard
        order = self.prompt.order
        return sum(n >= 0 and NAMES[order[n]] == self.name for n in numbers or ()) >= _MOST

    def heard_or_seen(self, answer: str) -> str:
        """What `answer` names for its sense, for a message."""
        parsed = parse(answer, "both", len(NAMES))
        numbers = parsed.seen if self.sense == "seen" else parsed.heard
        if numbers is None:
            return f"what cannot be read: {quoted(answer)}"
        order = self.prompt.order
        return ", ".join(
            dict.fromkeys("nothing" if n < 0 else NAMES[order[n]] for n, _ in Counter(numbers).most_common())
        )


def _clip(frame: NDArray[np.uint8], sound: NDArray[np.float32]) -> ClipMedia:
    return ClipMedia(frames=(frame,) * SEGMENTS, waveform=sound[None].astype(np.float32))


def _black() -> NDArray[np.uint8]:
    return np.zeros((_SIDE, _SIDE, 3), np.uint8)


def _silence() -> NDArray[np.float32]:
    return np.zeros(CLIP_SAMPLES, np.float32)


def _beep() -> NDArray[np.float32]:
    """1 kHz, on for a quarter of a second and off for as long."""
    time_s = np.arange(CLIP_SAMPLES) / RATE_HZ
    tone = 0.4 * np.sin(2 * np.pi * 1000 * time_s) * (time_s % 0.5 < 0.25)
    return tone.astype(np.float32)


def _noise() -> NDArray[np.float32]:
    return default_rng(0).normal(0, 0.15, CLIP_SAMPLES).clip(-1, 1).astype(np.float32)


def _square() -> NDArray[np.uint8]:
    picture = np.full((_SIDE, _SIDE, 3), 255, np.uint8)
    picture[_SIDE // 4 : -_SIDE // 4, _SIDE // 4 : -_SIDE // 4] = (220, 20, 20)
    return picture


def _circle() -> NDArray[np.uint8]:
    picture = np.full((_SIDE, _SIDE, 3), 255, np.uint8)
    y, x = np.ogrid[:_SIDE, :_SIDE]
    picture[(x - _SIDE / 2) ** 2 + (y - _SIDE / 2) ** 2 < (_SIDE / 3) ** 2] = (20, 40, 220)
    return picture


SHOWN = (
    Shown(name=BEEP, sense="heard", media=lambda: _clip(_black(), _beep())),
    Shown(name=NOISE, sense="heard", media=lambda: _clip(_black(), _noise())),
    Shown(name=SQUARE, sense="seen", media=lambda: _clip(_square(), _silence())),
    Shown(name=CIRCLE, sense="seen", media=lambda: _clip(_circle(), _silence())),
)
"""The whole probe."""

_ADVICE: Mapping[str, str] = MappingProxyType(
    {
        "heard": "the server may drop the sound, or the model cannot hear: it has to take input_audio parts",
        "seen": "the server may drop pictures, or the model cannot see: it has to take ten image_url parts",
    }
)


def deaf_or_blind(answers: Mapping[str, str]) -> str:
    """Explain why `answers`, by the name of what was shown, are of no model that hears and sees; empty if they are."""
    wrong: list[str] = []
    for sense, word in (("heard", "does not hear"), ("seen", "does not see")):
        shown = [each for each in SHOWN if each.sense == sense]
        if not all(each.named(answers[each.name]) for each in shown):
            said = " and ".join(f"{each.name} as {each.heard_or_seen(answers[each.name])}" for each in shown)
            wrong.append(f"it {word}: it names {said}; {_ADVICE[sense]}")
    return "; ".join(wrong)
