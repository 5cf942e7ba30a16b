"""An archivist of one camera, and what it is given."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from ovavel.runtime.archive.layout import model_of
from ovavel.runtime.archive.reader import Archive, Day
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.types import Segment
from ovavel.service.archive.archivist import Archivist
from ovavel.service.config.site import Camera, Keep
from ovavel.service.encoding.remote import RemoteEncoder
from ovavel.service.evidence.retention import Retention
from ovavel.service.store.database import Database
from support.service import CLIP, DEMO, site

BUNDLE = Bundle.open(DEMO / "bundle")
GATE = Camera(id="gate", source=CLIP)
START_US = 1_795_910_400_000_000
DAY_US = 86_400_000_000


def segments(count: int) -> list[Segment]:
    random = np.random.default_rng(0)
    audio_size, vision_size = BUNDLE.manifest.encoders.sizes

    def unit(size: int) -> np.ndarray:
        vector = random.standard_normal(size).astype(np.float32)
        return vector / np.linalg.norm(vector)

    return [
        Segment(index=index, start_s=float(index), vision=unit(vision_size), audio=unit(audio_size))
        for index in range(count)
    ]


def failing_at(
    number: int, error: Exception, contexts: Callable[..., tuple[np.ndarray, np.ndarray]]
) -> Callable[..., object]:
    """`contexts`, whose call of this number fails."""
    calls = itertools.count(1)

    def failing(*parts: np.ndarray) -> object:
        if next(calls) == number:
            raise error
        return contexts(*parts)

    return failing


def of_nothing(first: int, count: int) -> list[Segment]:
    """The seconds of a camera that is away."""
    return [
        Segment(index=index, start_s=float(index), vision=None, audio=None) for index in range(first, first + count)
    ]


class Archived:
    """An archivist of one camera whose clock begins at `START_US`."""

    def __init__(self, store: Database, encoder: RemoteEncoder, **keep: float) -> None:
        self.store = store
        watched = site(store.folder, GATE, keep=Keep(min_free_gb=0, **keep))
        self.retention = Retention(store, watched.keep)
        self.archivist = Archivist(store, BUNDLE, encoder, watched, self.retention)

    def take(self, given: list[Segment], *, start_us: int = START_US) -> None:
        self.archivist.begin(GATE, lambda media_us: start_us + media_us)
        for each in given:
            self.archivist.second(GATE.id, each)
        self.archivist.end(GATE.id)

    def watch(self, given: list[Segment], *, start_us: int = START_US) -> None:
        """Bring the first or the next seconds of a run that goes on, and do what the thread would."""
        if given[0].index == 0:
            self.archivist.begin(GATE, lambda media_us: start_us + media_us)
        for each in given:
            self.archivist.second(GATE.id, each)
        self.work()

    def work(self) -> None:
        """Do what waits, where the thread was not started."""
        while not self.archivist._jobs.empty():
            job = self.archivist._jobs.get()
            assert job
            self.archivist._do(*job)

    def close(self) -> None:
        self.archivist.close(280)
        assert not self.archivist._thread.is_alive()

    @property
    def seconds(self) -> list[int]:
        """Unix times of what is in it."""
        days = Archive(self.store.folder).days([GATE.id], model=model_of(BUNDLE).id)
        return sorted(day.start_s + int(row) for day in days for row in _rows(day))


def _rows(day: Day) -> np.ndarray:
    with day.open() as files:
        return np.flatnonzero(files.flags() & 1)
