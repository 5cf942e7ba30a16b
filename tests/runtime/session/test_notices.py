"""What a source or the program reports."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest
from support.runtime.scripted import Clock, InStep, Scripted, Slow

from ovavel.runtime.backends import Backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.errors import MediaError
from ovavel.runtime.run import drive
from ovavel.runtime.session import Session
from ovavel.runtime.sinks.jsonl import JsonlSink
from ovavel.runtime.types import (
    Chunk,
    Frame,
    Notice,
    Update,
)


class Announcing(Scripted):
    """A source that reports something in every second."""

    def chunks(self) -> Iterator[Chunk]:
        for chunk in super().chunks():
            if isinstance(chunk, Frame):
                yield Notice(time_s=chunk.time_s, message=f"second {int(chunk.time_s)}")
            yield chunk


def test_what_a_source_reports_comes_at_the_same_second_every_time(
    bundle: Bundle, backend: Backend, clip: Path, tmp_path: Path
) -> None:
    runs = []
    for delay_s in (0.0, 0.05):
        source = Announcing(8, live=False)
        slow = Slow(backend, functools.partial(time.sleep, delay_s))
        with Session(bundle, source, backend=slow) as session:
            runs.append([(u.window.index if u.window else None, u.notices) for u in session.updates()])
    assert runs[0] == runs[1]
    assert [notice.message for _, notices in runs[0] for notice in notices] == [f"second {i}" for i in range(8)]


@pytest.mark.parametrize("ending", ["the end", "dropped windows", "a failure", "a stop"])
def test_every_notice_comes_out_once_and_in_order(bundle: Bundle, backend: Backend, clock: Clock, ending: str) -> None:
    failure = MediaError("the disk was pulled") if ending == "a failure" else None
    source = Announcing(12, live=ending == "dropped windows", failure=failure)
    turns = InStep(source, 6)
    pictures = itertools.count(1)

    def encode() -> None:
        if ending == "dropped windows":
            turns.picture()
        if ending == "a stop" and next(pictures) == 6:
            session.stop()

    if ending != "dropped windows":
        turns.release()
    updates: list[Update] = []
    with Session(bundle, source, backend=Slow(backend, encode)) as session:
        with pytest.raises(MediaError) if failure else contextlib.nullcontext():
            updates.extend(session.updates())
    messages = [notice.message for update in updates for notice in update.notices]
    assert bool(session.stats.dropped) == (ending in ("dropped windows", "a stop"))
    if ending == "a stop":
        assert messages == [f"second {i}" for i in range(len(messages))]
        assert len(messages) >= session.stats.windows
    else:
        assert messages == [f"second {i}" for i in range(12)]
    assert updates[-1].window is None


class Hesitant(Announcing):
    """Waits after three seconds to be closed, takes its time to end, and reports that it did."""

    def __init__(self) -> None:
        super().__init__(3, live=True)
        self.waits = threading.Event()

    def chunks(self) -> Iterator[Chunk]:
        yield from super().chunks()
        self.waits.set()
        assert self._closed.wait(60)
        yield Notice(time_s=9.0, message="the camera is let go")
        time.sleep(0.2)
        yield Notice(time_s=9.0, message="the camera was let go")


def test_what_a_source_reports_when_it_is_closed_is_in_the_last_update(bundle: Bundle, backend: Backend) -> None:
    source = Hesitant()
    with Session(bundle, source, backend=backend) as session:
        updates = []
        for update in session.updates():
            assert source.waits.wait(60)
            session.stop()
            updates.append(update)
    reported = [notice.message for notice in updates[-1].notices]
    assert reported[-2:] == ["the camera is let go", "the camera was let go"]


class Late(JsonlSink):
    """Reports something when it gets the last update, and when it is closed."""

    def __init__(self, path: Path, messages: SimpleQueue[str]) -> None:
        super().__init__(path)
        self._messages = messages

    def write(self, update: Update) -> None:
        super().write(update)
        if update.window is None:
            self._messages.put("the last second of rtsp://me:secret@cam/ is missing")

    def close(self) -> None:
        super().close()
        self._messages.put("it is closed")


def test_what_the_program_reports_after_the_last_update_is_logged(
    bundle: Bundle, backend: Backend, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    messages: SimpleQueue[str] = SimpleQueue()
    with Session(bundle, Scripted(4, live=False), backend=backend) as session:
        drive(session, [Late(tmp_path / "news", messages)], messages=messages)
    assert caplog.messages == ["the last second of rtsp://cam/ is missing", "it is closed"]


def test_what_the_program_reports_comes_with_the_next_update(bundle: Bundle, backend: Backend, tmp_path: Path) -> None:
    messages: SimpleQueue[str] = SimpleQueue()
    messages.put("before it began, of rtsp://me:secret@cam/")
    source = Scripted(4, live=False)
    news = tmp_path / "news"
    with Session(bundle, source, backend=backend) as session:
        drive(session, [JsonlSink(news)], messages=messages)
    notices = [each for each in map(json.loads, news.read_text().splitlines()) if each["type"] == "notice"]
    assert [(each["time_s"], each["message"]) for each in notices] == [(0.0, "before it began, of rtsp://cam/")]
