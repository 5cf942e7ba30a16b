"""A day of the demo world before a fixed camera and microphone: a source that makes its seconds as they are asked for.

A second takes a few milliseconds and no disk. The same kind, seed and second always give the same picture and sound;
a shorter day is the beginning of a longer one.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from ovavel.eval.demo.world.camera import Camera
from ovavel.eval.demo.world.kinds import BACKGROUND
from ovavel.eval.demo.world.microphone import Microphone
from ovavel.eval.demo.world.plan import HOUR_S, DayKind, Episode, TrueEvent, plan_hour, true_events
from ovavel.eval.demo.world.sounds import RATE_HZ
from ovavel.eval.demo.world.surroundings import Surroundings
from ovavel.runtime.types import WINDOW_S, Chunk, Frame, Samples, Sense

__all__ = ["Day", "DaySource"]


class Day:
    """What is seen and heard from media time 0 to `seconds`, and its truth."""

    def __init__(self, kind: DayKind, seed: int, seconds: int) -> None:
        self.kind, self.seed, self.seconds = kind, seed, seconds
        hours = -(-seconds // HOUR_S)
        planned = (episode for hour in range(hours) for episode in plan_hour(kind, seed, hour))
        self.episodes: tuple[Episode, ...] = tuple(each for each in planned if each.first_s < seconds)
        """What happens, in order; the last one may go on after the end."""
        self._starts = [episode.first_s for episode in self.episodes]
        self.surroundings = Surroundings(kind, seed, hours)
        self._camera, self._microphone = Camera(self.surroundings, seed), Microphone(self.surroundings, seed)

    def frame(self, time_s: float) -> NDArray[np.uint8]:
        """Draw the frame at `time_s`: (224, 288, 3) uint8 RGB."""
        episodes = self._around(int(time_s), int(time_s) + 1)
        shown = [
            episode.actor(kind)
            for episode in episodes
            if episode.first_s <= time_s < episode.end_s
            and (kind := episode.script.shown[int(time_s) - episode.first_s])
        ]
        return self._camera.frame(time_s, shown)

    def sound(self, second: int) -> NDArray[np.float32]:
        """Make the sound of the second that starts at `second`: (16000,) float32 in [-1, 1]."""
        return self._microphone.second(second, self._around(second - 1, second + 1))

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """What is both seen and heard in each second; the background where nothing is."""
        labels = [BACKGROUND] * self.seconds
        for event in self.events:
            labels[int(event.start_s) : int(event.end_s)] = [event.label] * int(event.end_s - event.start_s)
        return tuple(labels)

    @cached_property
    def events(self) -> tuple[TrueEvent, ...]:
        """Each stretch in which one thing is both seen and heard, in order."""
        return tuple(
            TrueEvent(label=event.label, start_s=event.start_s, end_s=min(event.end_s, float(self.seconds)))
            for event in true_events(self.episodes)
            if event.start_s < self.seconds
        )

    def _around(self, first_s: int, end_s: int) -> tuple[Episode, ...]:
        """Return the episodes that hold a moment between two."""
        last = bisect_right(self._starts, end_s - 1)
        first = last
        while first and self.episodes[first - 1].end_s > first_s:
            first -= 1
        return self.episodes[first:last]


class DaySource:
    """Delivers a day as a recording: one frame, from the middle of each second, and its sound."""

    def __init__(self, day: Day) -> None:
        self.name = f"{day.kind} day of the demo world, seed {day.seed}"
        self.senses: frozenset[Sense] = frozenset(("vision", "audio"))
        self.live = False
        self.recorded = True
        self.duration_s: float | None = day.seconds * WINDOW_S
        self._day = day
        self._stopping = threading.Event()

    def chunks(self) -> Iterator[Chunk]:
        """Yield a frame, drawn when it is looked at, and a block of sound for every second."""
        for second in range(self._day.seconds):
            if self._stopping.is_set():
                return
            time_s = second + WINDOW_S / 2
            now_s = time.monotonic()
            yield Frame(time_s=time_s, captured_s=now_s, image=partial(self._day.frame, time_s))
            sound = self._day.sound(second)[None]
            yield Samples(time_s=float(second), captured_s=now_s, waveform=sound, rate_hz=RATE_HZ)

    def close(self) -> None:
        """End `chunks`, from any thread."""
        self._stopping.set()
