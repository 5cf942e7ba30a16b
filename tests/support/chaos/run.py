"""Hurt a service again and again, and check after each time what must hold."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ovavel.service.config.read import read_site
from ovavel.service.delivery.deliveries import Deliveries
from ovavel.service.store.care.invariants import violations
from ovavel.service.store.database import Database, rows
from support.chaos.faults import FAULTS, LeftOut
from support.chaos.losses import Losses
from support.chaos.machine import MACHINE_FAULTS, small_disk
from support.chaos.place import CAMERAS, TERM_S, Place
from support.chaos.scratch import scratch
from support.service import check_assets, until

__all__ = ["ALL_FAULTS", "Survived", "run"]

ALL_FAULTS = FAULTS | MACHINE_FAULTS
_DELIVERED_S = 180.0
"""Longer than the longest pause of a receiver that was away."""


@dataclass
class Survived:
    """What a run of faults showed."""

    seed: int
    recoveries_s: dict[str, list[float]] = field(default_factory=dict)
    """Fault → how long until whole seconds of every camera were decided again, each time."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Fault → why it cannot be made on this machine."""
    events: int = 0
    evidence: int = 0
    """Pictures, spectrograms and clips that were there at the end."""
    delivered: dict[str, int] = field(default_factory=dict)
    """Sink → messages about events that arrived."""
    losses: set[tuple[str, str, str]] = field(default_factory=set)
    """Camera, "losses" or a sense, and cause of all that was lost: named on the page, in the metrics and by MQTT."""
    restarts: int = 0
    slowest_end_s: float = 0.0
    wrong: list[str] = field(default_factory=list)
    """What did not hold; empty where all did."""


def run(
    seed: int, *, minutes: float = 0.0, kinds: Sequence[str] = (), report: Callable[[str], object] = print
) -> Survived:
    """Hurt a service for `minutes`, by faults drawn with `seed`; or by each of `kinds` in their order."""
    survived, chance = Survived(seed), random.Random(seed)
    with scratch() as folder, small_disk(folder / "data") as disk:
        place = Place(folder, seed, small_disk=disk)
        losses = Losses(place)
        try:
            place.start()
            if place.recovered() is None:
                survived.wrong.append("it did not begin to watch")
            end_s = time.monotonic() + 60 * minutes
            wanted = list(kinds)
            going_on = not survived.wrong
            while going_on and (wanted if kinds else time.monotonic() < end_s):
                kind = wanted.pop(0) if kinds else chance.choice(sorted(ALL_FAULTS))
                going_on = _hurt(place, losses, kind, chance, survived, report)
            survived.wrong += losses.rest()
            survived.losses = set(losses.first)
            if code := place.end():
                survived.wrong.append(f"it ended with {code}")
            _check_end(place, survived)
        finally:
            place.close()
            if survived.wrong:
                report((folder / "log").read_text()[-6000:])
    return survived


def _hurt(
    place: Place,
    losses: Losses,
    kind: str,
    chance: random.Random,
    survived: Survived,
    report: Callable[[str], object],
) -> bool:
    """Do this to it, and check; whether it can be hurt again."""
    before, hurt, known, restarts = place.without_windows(), None, len(survived.wrong), place.restarts
    try:
        hurt = ALL_FAULTS[kind](place, chance)
    except LeftOut as why:
        survived.left_out[kind] = str(why)
        report(f"{kind}: left out, {why}")
        return True
    except AssertionError as error:
        survived.wrong.append(f"{kind}: {error}")
    took_s = place.recovered()
    if took_s is None:
        survived.wrong.append(f"{kind}: {place.ask('api/v1/cameras')}")
        return False
    survived.recoveries_s.setdefault(kind, []).append(took_s)
    after = place.without_windows()
    survived.wrong += [
        f"{kind} of {hurt} took windows from {camera}: {before[camera]} → {after[camera]}"
        for camera in CAMERAS
        if hurt not in (None, camera) and after[camera] != before[camera]
    ]
    with contextlib.closing(place.reader()) as reader:
        found = violations(reader, place.data)
        if place.restarts != restarts:
            losses.forget()
        try:
            found += losses.check(kind, reader)
        except AssertionError as error:
            found.append(str(error))
        survived.wrong += [f"after {kind}: {each}" for each in found]
    for wrong in survived.wrong[known:]:
        report(f"! {wrong}")
    report(f"{kind}: recovered after {took_s:.1f} s, {len(place.heard)} events")
    return True


def _check_end(place: Place, survived: Survived) -> None:
    """After the end: nothing is open, all that any reader was shown is there, and no receiver misses a last word."""
    with Database.open(place.data, ballast_bytes=0) as store:
        survived.wrong += violations(store.read, store.folder)
        survived.wrong += [
            f"{event} is still open" for (event,) in rows(store.read, "SELECT id FROM event WHERE state = 'open'")
        ]
        kept = dict(rows(store.read, "SELECT id, revision FROM event"))
        survived.wrong += [
            f"event {event} was shown at revision {revision}, and is kept at {kept.get(event)}"
            for event, revision in place.heard.items()
            if kept.get(event, 0) < revision
        ]
        try:
            check_assets(store)
            _deliver_the_rest(place, store)
        except AssertionError as error:
            survived.wrong.append(f"at the end: {error}")
        survived.wrong += place.receivers.wrong(store.read)
        survived.evidence = len(rows(store.read, "SELECT 1 FROM asset WHERE state = 'ready'"))
    survived.events = len(place.heard)
    survived.delivered = {sink: len(news) for sink, news in place.receivers.got.items()}
    survived.restarts, survived.slowest_end_s = place.restarts - 1, place.slowest_end_s


def _deliver_the_rest(place: Place, store: Database) -> None:
    """What an end left in the outbox, as the next service would, but without cameras that bring more."""
    site = read_site(place.site)
    deliveries = Deliveries(site, store, labels=(), cameras=lambda: (), enable=lambda *_: None)
    deliveries.start()
    try:
        until(lambda: not any(each.pending for each in deliveries.states), _DELIVERED_S)
    finally:
        deliveries.stop(TERM_S)
    assert not any(each.pending for each in deliveries.states), deliveries.states
