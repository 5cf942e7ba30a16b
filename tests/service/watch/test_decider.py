"""What decides for all cameras, when the store or the encoder fails at an awkward moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.service import DEMO, camera_facts

from ovavel.runtime.backends import BackendInfo, HeadOutput
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.errors import OutputError
from ovavel.runtime.pipeline.fusion import cosine_similarity, fused_score
from ovavel.service.capture.feed import Delivery, Ended
from ovavel.service.capture.messages import Captured, Opened
from ovavel.service.config.site import Camera
from ovavel.service.encoding.remote import EncoderLost
from ovavel.service.link import Array
from ovavel.service.store import accounts, cameras
from ovavel.service.store.database import Database, rows
from ovavel.service.watch.decider import Decider
from ovavel.service.watch.queue import FairQueue, Waiting

START_US = 1_700_000_000_000_000
INFO = BackendInfo(name="stub", engine="stub", device="cpu", provider="stub", precision={}, threads=1)


class Encoder:
    """Sees and hears the first name of the vocabulary in every window."""

    ready = SimpleNamespace(info=INFO)

    def __init__(self, bundle: Bundle) -> None:
        self.name = bundle.vocabulary.embeddings.vision[0]
        self.lost = False

    def encode(self, frames: list[Any], sounds: list[Any]) -> tuple[list[Any], list[Any]]:
        return [self.name] * len(frames), [self.name] * len(sounds)

    def head(self, audio: np.ndarray, vision: np.ndarray, text: TextEmbeddings) -> HeadOutput:
        if self.lost:
            raise EncoderLost("it is gone")
        similarities = (cosine_similarity(audio, text.audio), cosine_similarity(vision, text.vision))
        return HeadOutput(*similarities, fused_score(*similarities))


class World:
    """A decider of one camera, "gate", with a store whose writing can be made to fail."""

    def __init__(self, store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self.restarted, self.full = store, 0, False
        bundle = Bundle.open(DEMO / "bundle")
        self.encoder = Encoder(bundle)
        with store.write() as transaction:
            cameras.add_camera(transaction, camera_facts("gate"), now_us=START_US)
        write = store.write

        @contextmanager
        def writing() -> Iterator[Any]:
            if self.full:
                raise OutputError("the disk is full")
            with write() as transaction:
                yield transaction

        monkeypatch.setattr(store, "write", writing)
        self.decider = Decider(
            store,
            bundle,
            self.encoder,  # type: ignore[arg-type]
            FairQueue({"gate": 1}),
            (Camera(id="gate", source="x", lag=0),),
            sinks=(),
            shown=lambda *_: None,
            restart=self._restart,
        )

    def _restart(self, camera: str) -> None:
        assert camera == "gate"
        self.restarted += 1

    def news(self, *news: Delivery) -> None:
        for each in news:
            self.decider.decide([Waiting("gate", each, None)])

    def runs(self) -> list[tuple[Any, ...]]:
        return rows(self.store.read, "SELECT end_cause FROM run ORDER BY started_us")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with Database.open(tmp_path, ballast_bytes=0) as store:
        yield World(store, monkeypatch)


def opened(at_s: int) -> Opened:
    at_us = START_US + at_s * 1_000_000
    return Opened(senses=("audio", "vision"), monotonic_us=at_us, utc_us=at_us)


def window(index: int, at_s: int) -> Captured:
    at_us = START_US + at_s * 1_000_000
    return Captured(
        index=index,
        start_s=float(index),
        frame=Array((1,), b"\0\0\0\0"),
        sound=Array((1,), b"\0\0\0\0"),
        picture=None,
        gaps=(),
        notices=(),
        monotonic_us=at_us,
        utc_us=at_us,
    )


def events(world: World) -> list[tuple[Any, ...]]:
    return rows(world.store.read, "SELECT state, (end_us - start_us) / 1000000 FROM event ORDER BY start_us")


def test_a_run_that_ends_on_a_full_disk_is_kept_until_there_is_room(world: World) -> None:
    world.news(opened(0), window(0, 1), window(1, 2))
    world.full = True
    world.news(window(2, 3), Ended("camera offline", ""))
    assert world.decider.trouble
    assert events(world) == [("open", 2)], "nothing of it is written yet"
    world.news(opened(10), window(0, 11))
    assert world.restarted == 1, "no run can begin meanwhile"
    world.full = False
    world.news(opened(20), window(0, 21), Ended("camera offline", ""))
    assert not world.decider.trouble
    assert world.runs() == [("camera offline",), ("camera offline",)]
    assert events(world) == [("ended", 3), ("ended", 1)], "the three seconds are one event"
    found = accounts.read_accounts(world.store.read, "gate", from_us=0, to_us=2**62)
    assert sum(each.final for each in found) == 4
    assert sum(each.total_us for each in found) == 21_000_000


def test_a_run_that_loses_its_head_on_a_full_disk_hinders_no_later_one(world: World) -> None:
    world.news(opened(0), window(0, 1))
    world.full = world.encoder.lost = True
    world.news(window(1, 2))
    assert world.restarted == 1
    world.full = world.encoder.lost = False
    world.news(Ended("capture died", ""), opened(10), window(0, 11), Ended("stopped", ""))
    assert world.runs() == [("encoder failed",), ("stopped",)]
    assert [state for state, _ in events(world)] == ["ended", "ended"]


def gaps(world: World) -> dict[str, int]:
    """Cause → seconds without windows."""
    found = accounts.read_accounts(world.store.read, "gate", from_us=0, to_us=2**62)
    return {cause: us // 1_000_000 for each in found for cause, us in each.gap_us.items()}


@pytest.mark.parametrize("cause", ["camera offline", "capture died", "end of media", "configuration changed"])
def test_the_time_until_a_camera_is_back_has_the_cause_of_its_end(world: World, cause: str) -> None:
    world.news(opened(0), window(0, 1), Ended(cause, ""), opened(10))
    assert gaps(world) == {cause: 9}


def test_a_capture_process_that_was_made_to_end_is_no_cause(world: World) -> None:
    world.full = True
    world.news(opened(0), Ended("capture died", ""), opened(10), Ended("capture died", ""))
    world.full = False
    world.news(opened(20), window(0, 21))
    assert gaps(world) == {"store failed": 20}
    world.encoder.lost = True
    world.news(window(1, 22), Ended("capture died", ""))
    world.encoder.lost = False
    world.news(opened(30), window(0, 31), Ended("capture died", ""), opened(40))
    assert gaps(world) == {"store failed": 20, "encoder failed": 9, "capture died": 9}


def test_what_a_person_wanted_is_off_whatever_failed_before(world: World) -> None:
    world.full = True
    world.news(opened(0), Ended("switched off", ""))
    world.full = False
    world.news(opened(20))
    assert gaps(world) == {}
