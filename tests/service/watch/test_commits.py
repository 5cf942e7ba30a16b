"""A slow disk: many cameras share a transaction, so that none waits for the others' and nothing is dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.service import DEMO, Everything, camera_facts

from ovavel.runtime.backends import BackendInfo, HeadOutput
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.errors import OutputError
from ovavel.runtime.pipeline.fusion import cosine_similarity, fused_score
from ovavel.service.capture.feed import Delivery, Ended
from ovavel.service.capture.messages import Captured, Opened
from ovavel.service.config.site import Camera
from ovavel.service.link import Array
from ovavel.service.store import accounts, cameras
from ovavel.service.store.care.invariants import violations
from ovavel.service.store.database import Database, rows
from ovavel.service.watch import commits, decider
from ovavel.service.watch.decider import Decider
from ovavel.service.watch.queue import FairQueue, Waiting
from ovavel.service.watch.runs import camera_watch
from ovavel.service.watch.runs.camera_watch import Seen

START_US = 1_700_000_000_000_000
INFO = BackendInfo(name="stub", engine="stub", device="cpu", provider="stub", precision={}, threads=1)
ENCODE_S = 0.005
SETTLED = 5
"""The first seconds wait until every run is open, each with a transaction of its own."""


class SlowDisk:
    """Cameras that bring a window a second each, on a clock that only encoding, commits and waiting move."""

    def __init__(self, store: Database, number: int, seconds: int, *, commit_s: float) -> None:
        self.store, self.now_s, self.commit_s = store, 0.0, commit_s
        self.commits, self.slowest_s = 0, 0.0
        self.full = False
        ids = [f"camera-{each:02}" for each in range(number)]
        with store.write() as transaction:
            for each in ids:
                cameras.add_camera(transaction, camera_facts(each), now_us=START_US)
        store.committed = self._committed
        bundle = Bundle.open(DEMO / "bundle")
        self._names = bundle.vocabulary.embeddings.vision
        self._due: list[tuple[float, str, Delivery]] = []
        for place, each in enumerate(ids):
            begin_s = place / number
            self._due.append((begin_s, each, opened(begin_s)))
            self._due += [
                (begin_s + index + 1, each, window(index, begin_s + index + 1, kind=0 if index % 6 < 3 else -1))
                for index in range(seconds)
            ]
            self._due.append((begin_s + seconds + 1, each, Ended("end of media", "")))
        self._due.sort(key=lambda each: each[0])
        self.queue = Arriving(ids, self)
        self.released: list[str] = []
        self.decider = Decider(
            store,
            bundle,
            self,  # type: ignore[arg-type]
            self.queue,
            [Camera(id=each, source="x", lag=0) for each in ids],
            sinks=(Everything("log"),),
            shown=self._shown,
            restart=lambda _: None,
            release=lambda camera, _: self.released.append(camera),
        )

    # What the decider asks of the encoder.

    ready = SimpleNamespace(info=INFO)

    def encode(self, frames: Sequence[Any], sounds: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        self.pass_s(ENCODE_S)
        return [self._names[int(each[0])] for each in frames], [self._names[int(each[0])] for each in sounds]

    def head(self, audio: np.ndarray, vision: np.ndarray, text: TextEmbeddings) -> HeadOutput:
        similarities = (cosine_similarity(audio, text.audio), cosine_similarity(vision, text.vision))
        return HeadOutput(*similarities, fused_score(*similarities))

    # The clock.

    def monotonic(self) -> float:
        return self.now_s

    def monotonic_ns(self) -> int:
        return round(self.now_s * 1e9)

    def time_ns(self) -> int:
        return START_US * 1000 + self.monotonic_ns()

    def pass_s(self, seconds: float) -> None:
        """What comes meanwhile finds its place in the queue, or pushes older windows out."""
        self.now_s += seconds
        while self._due and self._due[0][0] <= self.now_s:
            _, camera, news = self._due.pop(0)
            self.queue.put(camera, news)

    def wait(self) -> None:
        if self._due:
            self.now_s = max(self.now_s, self._due[0][0])
            self.pass_s(0.0)
        else:
            self.queue.close()

    def _committed(self, _: float) -> None:
        self.commits += 1
        self.pass_s(self.commit_s)

    def _shown(self, camera: str, captured: Captured | None, seen: Seen) -> None:
        if captured and captured.index >= SETTLED:
            self.slowest_s = max(self.slowest_s, self.now_s - (captured.monotonic_us - START_US) / 1e6)


class Arriving(FairQueue):
    def __init__(self, ids: Sequence[str], world: SlowDisk) -> None:
        super().__init__(dict.fromkeys(ids, 1))
        self._world = world

    def take(self, most: int, timeout_s: float | None = None) -> list[Waiting]:
        if not self.has_news:
            self._world.wait()
        return super().take(most, 0)


def opened(at_s: float) -> Opened:
    at_us = START_US + round(at_s * 1e6)
    return Opened(senses=("audio", "vision"), monotonic_us=at_us, utc_us=at_us)


def window(index: int, at_s: float, *, kind: int) -> Captured:
    at_us = START_US + round(at_s * 1e6)
    media = Array.of(np.array([kind], np.float32))
    return Captured(
        index=index,
        start_s=float(index),
        frame=media,
        sound=media,
        picture=None,
        gaps=(),
        notices=(),
        monotonic_us=at_us,
        utc_us=at_us,
    )


@pytest.fixture
def slow_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, int, float], SlowDisk]]:
    with Database.open(tmp_path, ballast_bytes=0) as store:

        def made(number: int, seconds: int, commit_s: float) -> SlowDisk:
            world = SlowDisk(store, number, seconds, commit_s=commit_s)
            for module in (camera_watch, commits, decider):
                monkeypatch.setattr(module, "time", world)
            return world

        yield made


def check(world: SlowDisk, number: int, seconds: int) -> None:
    """Every second was decided on, and all that began has ended."""
    for camera in world.decider._cameras:
        (found,) = accounts.read_accounts(world.store.read, camera, from_us=0, to_us=2**62)
        assert (found.final, found.dropped) == (seconds, {})
    assert violations(world.store.read) == []
    events = -(-seconds // 6)
    assert rows(world.store.read, "SELECT state, count(*) FROM event GROUP BY state") == [("ended", events * number)]
    assert rows(world.store.read, "SELECT (SELECT count(*) FROM outbox) - count(*) FROM event_log") == [(0,)]
    assert sorted(world.released) == sorted(world.decider._cameras)


def test_forty_cameras_keep_up_with_a_disk_that_takes_50_ms_a_transaction(
    slow_disk: Callable[[int, int, float], SlowDisk],
) -> None:
    world = slow_disk(40, 12, 0.05)
    world.decider.run()
    check(world, 40, 12)
    assert world.slowest_s < 0.25, "from the end of a window to its decisions"


def test_on_a_fast_disk_nobody_waits_for_others(slow_disk: Callable[[int, int, float], SlowDisk]) -> None:
    world = slow_disk(4, 12, 0.001)
    world.decider.run()
    check(world, 4, 12)
    assert world.slowest_s < 0.02
    assert world.commits >= 4 * 12


def test_what_a_full_disk_did_not_take_of_several_cameras_is_committed_later(
    slow_disk: Callable[[int, int, float], SlowDisk], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = slow_disk(5, 12, 0.01)
    write, took = world.store.write, 0

    def sometimes_full() -> Any:
        nonlocal took
        took += 1
        if 20 <= took < 60:
            world.pass_s(0.01)
            raise OutputError("the disk is full")
        return write()

    monkeypatch.setattr(world.store, "write", sometimes_full)
    world.decider.run()
    assert took > 60
    check(world, 5, 12)
    assert not world.decider.trouble
