"""What happens in a day before a fixed camera: events, and what may be taken for one; each hour from its own seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np
from numpy.random import Generator, default_rng

from ovavel.eval.demo.world.actors import Actor
from ovavel.eval.demo.world.kinds import KINDS, Kind
from ovavel.eval.demo.world.scene import Script

__all__ = ["DAY_KINDS", "HOUR_S", "Conditions", "DayKind", "Episode", "TrueEvent", "plan_hour", "true_events"]

DayKind: TypeAlias = Literal["sparse", "dense", "worst"]
HOUR_S = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """A kind of day. Counts are per hour."""

    events: int
    """A thing is seen and heard."""
    silent_around: float = 0.5
    """Share of them that are in sight for a while before, and likewise after, without a sound."""
    silent: int
    """A thing moves in sight and makes no sound."""
    out_of_sight: int
    """A thing is heard and not in sight."""
    another: int
    """One thing is in sight while another is heard."""
    exposures: int
    """The camera changes its exposure."""
    moves: int
    """The camera turns to another of its positions."""
    wind: float
    """How strong it blows on average, in [0, 1]: leaves sway and the microphone rumbles."""

    @property
    def episodes(self) -> tuple[str, ...]:
        """What happens in an hour, in no order."""
        return (
            *("event",) * self.events,
            *("silent",) * self.silent,
            *("out of sight",) * self.out_of_sight,
            *("another",) * self.another,
        )


DAY_KINDS: Mapping[DayKind, Conditions] = MappingProxyType(
    {
        "sparse": Conditions(events=20, silent=8, out_of_sight=6, another=3, exposures=4, moves=2, wind=0.25),
        "dense": Conditions(events=120, silent=40, out_of_sight=30, another=20, exposures=8, moves=4, wind=0.4),
        # Without a pause: an hour ends before all of it has happened.
        "worst": Conditions(
            events=700, silent_around=0.0, silent=0, out_of_sight=0, another=200, exposures=60, moves=60, wind=1.0
        ),
    }
)
"""`sparse`: a quiet yard. `dense`: a busy one. `worst`: something moves and sounds in every second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """Something that happens, from one whole second to another."""

    first_s: int
    script: Script
    key: tuple[int, ...]
    """Seed of its things: their place, size, motion and sound."""

    @property
    def end_s(self) -> int:
        """Where it is over."""
        return self.first_s + len(self.script.shown)

    def actor(self, kind: Kind) -> Actor:
        """Return its thing of this kind: the same whether it is seen or heard."""
        kinds = list(dict.fromkeys(each for each in (*self.script.shown, *self.script.heard) if each))
        return Actor.of(kind, default_rng((*self.key, 2, kinds.index(kind))))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrueEvent:
    """A stretch in which one thing is both seen and heard."""

    label: str
    start_s: float
    end_s: float


def plan_hour(day: DayKind, seed: int, hour: int) -> tuple[Episode, ...]:
    """Return the episodes of an hour in order. They never overlap, and none crosses the full hour."""
    key = (seed, tuple(DAY_KINDS).index(day), hour)
    random, conditions = default_rng(key), DAY_KINDS[day]
    scripts = [_script(str(what), conditions.silent_around, random) for what in random.permutation(conditions.episodes)]
    lengths = np.array([len(script.shown) for script in scripts])
    while lengths.sum() > HOUR_S:
        lengths, scripts = lengths[:-1], scripts[:-1]
    # Pauses share what is left of the hour at random; rounding up and down keeps them whole and their sum.
    cuts = np.sort(random.uniform(0, HOUR_S - lengths.sum(), len(scripts))).astype(int)
    starts = hour * HOUR_S + cuts + lengths.cumsum() - lengths
    return tuple(
        Episode(first_s=int(start), script=script, key=(*key, number))
        for number, (start, script) in enumerate(zip(starts, scripts, strict=True))
    )


def true_events(episodes: tuple[Episode, ...]) -> Iterator[TrueEvent]:
    """Yield what is both seen and heard, in order; the same thing in two episodes that touch is one event."""
    held: TrueEvent | None = None
    for episode in episodes:
        second = float(episode.first_s)
        for (shown, heard), run in groupby(zip(episode.script.shown, episode.script.heard, strict=True)):
            length = len(list(run))
            if shown is not None and shown == heard:
                if held and (held.label, held.end_s) == (shown.name, second):
                    held = TrueEvent(label=held.label, start_s=held.start_s, end_s=second + length)
                else:
                    if held:
                        yield held
                    held = TrueEvent(label=shown.name, start_s=second, end_s=second + length)
            second += length
    if held:
        yield held


def _script(what: str, silent_around: float, random: Generator) -> Script:
    kind = _kind(random)
    length = int(random.integers(3, 9))
    seen: tuple[Kind | None, ...] = (kind,) * length
    match what:
        case "event":
            before, after = (int(random.integers(1, 6)) if random.random() < silent_around else 0 for _ in range(2))
            heard = ((None,) * before, (kind,) * length, (None,) * after)
            return Script(shown=(kind,) * (before + length + after), heard=tuple(x for part in heard for x in part))
        case "silent":
            return Script(shown=seen, heard=(None,) * length)
        case "out of sight":
            return Script(shown=(None,) * length, heard=seen)
    other = kind
    while other.thing == kind.thing:
        other = _kind(random)
    return Script(shown=seen, heard=(other,) * length)


def _kind(random: Generator) -> Kind:
    return KINDS[int(random.integers(len(KINDS)))]
