"""Signals: SIGTERM is heard as Ctrl-C, what was ignored stays ignored, and nothing holds up the end."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from ovavel.runtime.system.interrupt import Overdue, StopSignals, terminated_as_interrupted

pytestmark = pytest.mark.alone  # a signal is for the whole process, whatever other tests have loaded into it


def test_sigterm_raises_as_ctrl_c_does_and_only_inside() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), terminated_as_interrupted():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_in_another_thread_it_changes_nothing() -> None:
    seen = []

    def work() -> None:
        with terminated_as_interrupted():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def ignored(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    before = signal.signal(request.param, signal.SIG_IGN)
    yield request.param
    signal.signal(request.param, before)


def test_a_signal_that_was_ignored_stays_ignored(ignored: signal.Signals) -> None:
    stopped = threading.Event()
    with StopSignals(stopped.set).installed(), terminated_as_interrupted():
        assert signal.getsignal(ignored) is signal.SIG_IGN
        signal.raise_signal(ignored)
        assert not stopped.is_set()
        if ignored is not signal.SIGTERM:
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(ignored) is signal.SIG_IGN


def test_a_call_is_bounded_only_once_the_end_was_asked_for() -> None:
    stopped = threading.Event()
    signals = StopSignals(stopped.set)
    with signals.installed():
        with signals.bounded():
            signal.raise_signal(signal.SIGTERM)
            assert stopped.wait(30)
        threading.Event().wait(2.5)  # outside of `bounded` nothing is interrupted
        for _ in range(2):
            with pytest.raises(Overdue), signals.bounded():
                threading.Event().wait()


def test_a_write_into_a_full_pipe_is_interrupted() -> None:
    reader, writer = os.pipe()
    signals = StopSignals(lambda: None)
    with signals.installed():
        signal.raise_signal(signal.SIGHUP)
        with pytest.raises(Overdue), signals.bounded():
            os.write(writer, bytes(1 << 20))
    os.close(reader)
    os.close(writer)
