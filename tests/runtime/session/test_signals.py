"""Signals while sinks write."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path

import pytest
from support.runtime.scripted import Scripted

from ovavel.runtime.backends import Backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.errors import OutputError
from ovavel.runtime.run import drive
from ovavel.runtime.session import Session
from ovavel.runtime.session_info import SessionInfo
from ovavel.runtime.sinks.jsonl import JsonlSink
from ovavel.runtime.stats import Stats
from ovavel.runtime.types import (
    Update,
)


class Signalled:
    """A sink that gets signals at its third update, and then may never return."""

    name = "a pipe that nobody reads"

    def __init__(self, *numbers: signal.Signals, stuck: bool = False) -> None:
        self._numbers, self._stuck, self._left = numbers, stuck, 3

    def open(self, info: SessionInfo, stats: Stats) -> None:
        pass

    def write(self, update: Update) -> None:
        self._left -= 1
        if self._left == 0:
            for number in self._numbers:
                signal.raise_signal(number)
            if self._stuck:
                threading.Event().wait()

    def close(self) -> None:
        if self._stuck:
            threading.Event().wait()


def jsonl_types(path: Path) -> list[str]:
    return [json.loads(line)["type"] for line in path.read_text().splitlines()]


@pytest.mark.alone  # a signal is for the whole process, whatever other tests have loaded into it
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_sink_that_never_returns_does_not_hold_up_the_end(
    bundle: Bundle, backend: Backend, tmp_path: Path, number: signal.Signals
) -> None:
    news = tmp_path / "news"
    with Session(bundle, Scripted(10_000, live=True, pace_s=0.02), backend=backend) as session:
        with pytest.raises(OutputError, match="a pipe that nobody reads accepted no data for 2 s"):
            drive(session, [Signalled(number, stuck=True), JsonlSink(news)])
    assert jsonl_types(news)[-1] == "summary", "the other sink gets the whole end"


@pytest.mark.alone  # a signal is for the whole process, whatever other tests have loaded into it
def test_a_second_sigint_leaves_no_summary(bundle: Bundle, backend: Backend, tmp_path: Path) -> None:
    news = tmp_path / "news"
    before = signal.getsignal(signal.SIGINT)
    with Session(bundle, Scripted(10_000, live=True, pace_s=0.02), backend=backend) as session:
        with pytest.raises(KeyboardInterrupt):
            drive(session, [Signalled(signal.SIGINT, signal.SIGINT), JsonlSink(news)])
    assert "summary" not in jsonl_types(news)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.alone  # a signal is for the whole process, whatever other tests have loaded into it
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_of_another_kind_changes_nothing(
    bundle: Bundle, backend: Backend, tmp_path: Path, number: signal.Signals
) -> None:
    news = tmp_path / "news"
    with Session(bundle, Scripted(10_000, live=True, pace_s=0.02), backend=backend) as session:
        drive(session, [Signalled(signal.SIGINT, number, number), JsonlSink(news)])
    assert jsonl_types(news)[-1] == "summary"
