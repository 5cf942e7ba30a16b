"""The classes of the demo world: things that make a sound, four kinds of each, and which kinds occur in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["BACKGROUND", "KINDS", "THINGS", "Kind"]

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
"""Thing → what it does while it makes its sound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One class: a thing of one size, acting at one speed. Both can be seen and heard; size is heard as pitch."""

    thing: str
    size: Size
    speed: Speed
    seen: bool
    """Whether the temporal head is trained on this class."""

    @property
    def name(self) -> str:
        """The class name, for instance "small bell ringing quickly"."""
        return f"{self.size} {self.thing} {THINGS[self.thing]} {self.speed}"


def _kinds() -> tuple[Kind, ...]:
    """Build every combination. Every third thing has two unseen kinds, which differ in size and speed; others have one.

    So two thirds of the classes are seen, and both sizes and both speeds of each thing.
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
"""All classes except the background, in class order."""
