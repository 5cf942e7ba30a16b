"""What there is in the demo world: things that sound, each in four kinds, and which of those are seen in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["BACKGROUND", "KINDS", "THINGS", "Kind", "Size", "Speed"]

Size = Literal["small", "large"]
Speed = Literal["slowly", "quickly"]

BACKGROUND = "other"

THINGS = {
    "bell": "ringing",
    "drum": "beating",
    "siren": "wailing",
    "bird": "singing",
    "frog": "croaking",
    "clock": "ticking",
    "engine": "running",
    "kettle": "whistling",
    "ball": "bouncing",
    "guitar": "strumming",
    "tap": "dripping",
    "boot": "walking",
    "dog": "barking",
    "saw": "sawing",
    "horn": "honking",
}
"""Thing → what it does when it sounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One class: a thing of one size that acts at one speed. Size is seen, and heard as pitch; speed is both too."""

    thing: str
    size: Size
    speed: Speed
    seen: bool
    """Among the classes the temporal head is trained on."""

    @property
    def name(self) -> str:
        """The class name, for instance "small bell ringing quickly"."""
        return f"{self.size} {self.thing} {THINGS[self.thing]} {self.speed}"


def _kinds() -> tuple[Kind, ...]:
    """Every combination. Of each third thing two kinds are unseen, a pair without a word in common, of the others one.

    So two of three classes are seen, and of each thing both sizes and both speeds.
    """
    variants: tuple[tuple[Size, Speed], ...] = (
        ("small", "slowly"),
        ("large", "quickly"),
        ("small", "quickly"),
        ("large", "slowly"),
    )
    kinds = []
    for number, thing in enumerate(THINGS):
        first = 2 * (number // 3 % 2)
        unseen = {first, first + 1} if number % 3 == 0 else {number % 4}
        kinds += [
            Kind(thing=thing, size=size, speed=speed, seen=index not in unseen)
            for index, (size, speed) in enumerate(variants)
        ]
    return tuple(sorted(kinds, key=lambda kind: kind.name))


KINDS = _kinds()
"""Every class but the background, in class order."""
