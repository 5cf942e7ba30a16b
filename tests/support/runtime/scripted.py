"""Sources, a backend and a clock that do what a test of the session wants, whatever the speed of the machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.backends import Backend, BackendInfo, HeadOutput
from ovavel.runtime.bundle.graphs import Encoders
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.session import Session
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.types import (
    Chunk,
    Event,
    Frame,
    Samples,
    SegmentScores,
    Sense,
    Update,
)
from support.media_factory import COLOURS


def textured(time_s: float) -> NDArray[np.uint8]:
    """A different picture every two seconds, with enough in it to distinguish them."""
    rng = np.random.default_rng(int(time_s) // 2)
    blocks = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.kron(blocks, np.ones((20, 20, 1), np.uint8))


def changing_sound(duration_s: int, rate_hz: int = 16_000) -> NDArray[np.float32]:
    rng = np.random.default_rng(1)
    t = np.arange(rate_hz) / rate_hz
    tones = [sum(np.sin(2 * np.pi * f * t) for f in rng.integers(100, 6000, 3)) / 8 for _ in range(duration_s)]
    return np.concatenate(tones)[None].astype(np.float32)


def final_scores(updates: list[Update]) -> list[SegmentScores]:
    return [s for update in updates for s in update.scores if s.final]


def assert_every_start_ends(events: list[Event]) -> None:
    open_ids: set[int] = set()
    for event in events:
        assert (event.id in open_ids) == (event.state != "start"), event
        (open_ids.add if event.state in ("start", "update") else open_ids.remove)(event.id)
    assert not open_ids


def play_as_decided(source: MediaSource, session: Session) -> None:
    """Not by the clock: `source` plays on when all of it so far is decided on, so that no machine is too slow."""

    def next_moment(when_s: float) -> bool:
        while session.stats.windows < session.counts.windows and not source._stopping.is_set():
            time.sleep(0.001)
        return not source._stopping.is_set()

    source._sleep_until = next_moment  # type: ignore[method-assign]


class Slow:
    """A backend that does something else first, for every picture."""

    def __init__(self, backend: Backend, first: Callable[[], object]) -> None:
        self._backend, self._first = backend, first

    @property
    def info(self) -> BackendInfo:
        return self._backend.info

    def vision(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        self._first()
        return self._backend.vision(frames)

    def audio(self, log_mels: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._backend.audio(log_mels)

    @property
    def encoders(self) -> Encoders:
        return self._backend.encoders

    def text(self, tokens: NDArray[np.int64], sense: Sense) -> NDArray[np.float32]:
        return self._backend.text(tokens, sense)

    def head(self, audio: NDArray[np.float32], vision: NDArray[np.float32], text: TextEmbeddings) -> HeadOutput:
        return self._backend.head(audio, vision, text)

    def warm_up(self) -> None:
        pass

    def close(self) -> None:
        raise AssertionError("a backend that was given is not the session's to close")


class Scripted:
    """A source that hands out seconds of picture and sound at its own pace, and may fail."""

    name = "scripted"
    senses: frozenset[Sense] = frozenset({"vision", "audio"})
    recorded = True
    duration_s = None

    def __init__(self, seconds: int, *, live: bool, pace_s: float = 0.0, failure: Exception | None = None) -> None:
        self.live = live
        self.seconds, self._pace_s, self._failure = seconds, pace_s, failure
        self._closed = threading.Event()
        self.on_second: Callable[[int], object] = lambda second: None

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def chunks(self) -> Iterator[Chunk]:
        for second in range(self.seconds):
            if self._closed.wait(self._pace_s):
                return
            now_s = time.monotonic()
            self.on_second(second)
            image = np.full((8, 8, 3), COLOURS[second % len(COLOURS)], np.uint8)
            yield Frame(time_s=second + 0.4, captured_s=now_s, image=lambda image=image: image)
            waveform = np.random.default_rng(second).standard_normal((1, 16_000)).astype(np.float32) / 8
            yield Samples(time_s=float(second), captured_s=now_s, waveform=waveform, rate_hz=16_000)
        if self._failure:
            raise self._failure

    def close(self) -> None:
        self._closed.set()


class InStep:
    """Lets a source run ahead of the encoder by so many seconds a picture, however busy the machine is."""

    def __init__(self, source: Scripted, seconds: int) -> None:
        self._seconds, self._last = seconds, source.seconds - 1
        self._allowed, self._at = 3, 0  # the source may not continue to a later second than `_allowed`
        self._turn = threading.Condition()
        source.on_second = self._hand_out

    def _hand_out(self, second: int) -> None:
        with self._turn:
            self._at = second
            self._turn.notify_all()
            assert self._turn.wait_for(lambda: second <= self._allowed, 60)

    def picture(self) -> None:
        """Wait until the source has run ahead and waits for the next picture, or is in its last second."""
        with self._turn:
            self._allowed += self._seconds
            self._turn.notify_all()
            assert self._turn.wait_for(lambda: self._at >= min(self._allowed + 1, self._last), 60)

    def release(self) -> None:
        """Let the source continue."""
        with self._turn:
            self._allowed = self._last
            self._turn.notify_all()


class Clock:
    """Stands still unless it is moved."""

    def __init__(self) -> None:
        self.now_s = time.monotonic()

    def monotonic(self) -> float:
        return self.now_s

    perf_counter = monotonic

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
