"""A source, a backend or a sink that fails."""

from __future__ import annotations

import errno
import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.runtime.scripted import Scripted, Slow, assert_every_start_ends

from ovavel.runtime.backends import Backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.errors import DeviceError, MediaError, OutputError, UsageError
from ovavel.runtime.run import drive
from ovavel.runtime.session import Session
from ovavel.runtime.session_info import SessionInfo
from ovavel.runtime.sinks.jsonl import JsonlSink
from ovavel.runtime.stats import Stats
from ovavel.runtime.types import (
    Chunk,
    Event,
    Frame,
    Update,
)


def test_a_source_that_fails_is_reported_after_everything_open_has_ended(bundle: Bundle, backend: Backend) -> None:
    source = Scripted(12, live=False, failure=MediaError("the disk was pulled"))
    events: list[Event] = []
    with Session(bundle, source, backend=backend) as session:
        with pytest.raises(MediaError, match="the disk was pulled"):
            events.extend(session.events())
    assert session.stats.windows == 12
    assert_every_start_ends(events)


class Unconvertible(Scripted):
    """Pictures of a format that cannot be converted, as FFmpeg reports it."""

    def chunks(self) -> Iterator[Chunk]:
        def image() -> NDArray[np.uint8]:
            raise MediaError("a frame cannot be converted to RGB")

        for chunk in super().chunks():
            yield replace(chunk, image=image) if isinstance(chunk, Frame) else chunk


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_pictures_that_cannot_be_converted_are_one_error_and_no_traceback(bundle: Bundle, backend: Backend) -> None:
    with Session(bundle, Unconvertible(3, live=False), backend=backend) as session:
        with pytest.raises(MediaError, match="cannot be converted"):
            list(session.events())


def test_a_backend_that_fails_is_reported_after_everything_open_has_ended(bundle: Bundle, backend: Backend) -> None:
    events: list[Event] = []
    pictures = itertools.count(1)

    def encode() -> None:
        if next(pictures) > 6:
            raise DeviceError("the GPU fell off the bus")

    with Session(bundle, Scripted(12, live=False), backend=Slow(backend, encode)) as session:
        with pytest.raises(DeviceError, match="fell off the bus"):
            events.extend(session.events())
    assert any(event.state == "end" for event in events)
    assert_every_start_ends(events)
    assert session.stats.windows == 6
    assert session.stats.windows + sum(session.stats.dropped.values()) == session.counts.windows


class Broken:
    """A sink whose disk is full."""

    name = "a full disk"

    def open(self, info: SessionInfo, stats: Stats) -> None:
        pass

    def write(self, update: Update) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_sink_that_fails_does_not_stop_the_others(
    bundle: Bundle, backend: Backend, clip: Path, tmp_path: Path
) -> None:
    with Session(bundle, clip, backend=backend) as session:
        with pytest.raises(OutputError, match="a full disk"):
            drive(session, [Broken(), JsonlSink(tmp_path / "news")])
    records = [json.loads(line) for line in (tmp_path / "news").read_text().splitlines()]
    assert records[-1]["type"] == "summary"


def test_a_session_that_cannot_be_opened_closes_its_source(bundle: Bundle, clip: Path) -> None:
    source = Scripted(1, live=False)
    with pytest.raises(UsageError, match="lag"):
        Session(bundle, source, device="cpu", lag=20)
    assert source.closed
