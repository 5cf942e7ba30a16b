"""What other settings would have changed on days of the archive; runs in the child."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from ovavel.runtime.archive.changes import DayChanges, Setting, changes
from ovavel.runtime.archive.folders import DayGoneError
from ovavel.runtime.archive.layout import WRITTEN, model_of
from ovavel.runtime.archive.reader import Archive, Day, Listing
from ovavel.runtime.archive.relabel import in_chunks
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.errors import InputError
from ovavel.runtime.pipeline.rules.apply import live_rule
from ovavel.service.archive.messages import Compared, Trying

__all__ = ["tried"]

_NOTHING = "the archive has nothing of these cameras at that time"


def tried(trying: Trying) -> Iterator[Compared]:
    """Compare both settings on each day of each camera, the newest day first.

    Raises:
        InputError: the archive has nothing of the cameras at that time, or a day cannot be read.
        UsageError: the settings do not fit together, or the rule cannot decide on single seconds.
    """
    archive, bundle = Archive(Path(trying.archive)), Bundle.open(Path(trying.bundle))
    fusion, names = bundle.manifest.fusion, bundle.vocabulary.names
    own, other = (
        live_rule(fusion.decides, fusion.decision, name, names, len(bundle.vocabulary.background_texts))
        for name in (None, trying.fusion)
    )
    known = [camera for camera in archive.cameras() if camera in trying.cameras]
    if not known:
        raise InputError(_NOTHING)
    model = model_of(bundle, pooled=trying.pooled).id
    listing = archive.listing(known, model=model, from_s=trying.from_s, to_s=trying.to_s)
    if not listing.days:
        raise InputError(f"{_NOTHING}: {listing.left_out}" if listing.left_out else _NOTHING)
    of_cameras = [
        changes(
            [day for day in listing.days if day.camera == camera],
            bundle,
            Setting(rule=own, rules=before.rules),
            Setting(rule=other, rules=after.rules),
            from_s=trying.from_s,
            to_s=trying.to_s,
        )
        for camera, (before, after) in trying.cameras.items()
    ]
    other_model = sum(_written(day, trying) for day in listing.others)
    for done, each in enumerate(heapq.merge(*of_cameras, key=lambda each: -each.day.start_s), 1):
        yield _compared(each, done, listing, other_model)


def _compared(found: DayChanges, done: int, listing: Listing, other_model: int) -> Compared:
    return Compared(
        done=done,
        days=len(listing.days),
        camera=found.day.camera,
        from_s=found.from_s,
        to_s=found.to_s,
        seconds=found.seconds,
        other_model=other_model,
        unreadable=len(listing.unreadable),
        unsure=found.unsure,
        differences=found.differences,
    )


def _written(day: Day, trying: Trying) -> int:
    """Seconds of the span that are there."""
    with suppress(DayGoneError), day.open() as files:
        flags = files.flags()
        return sum(int(np.count_nonzero(flags[rows] & WRITTEN)) for rows in in_chunks(day, trying.from_s, trying.to_s))
    return 0
