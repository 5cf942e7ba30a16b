"""Runs a session into its sinks until the source ends, a signal comes, or a reader goes away."""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from ovavel.runtime.errors import OutputError
from ovavel.runtime.session import Session
from ovavel.runtime.sinks import Sink
from ovavel.runtime.types import Update

__all__ = ["drive"]


def drive(session: Session, sinks: Sequence[Sink], statuses: deque[str] | None = None) -> None:
    """Feed `sinks` with all that `session` brings; returns when it is over and every open event has ended.

    The first SIGINT or SIGTERM, and a sink whose reader went away (a closed pipe), end the session in good order: the
    sinks still get the last update. A second SIGINT interrupts at once. `statuses` is where the source's listener
    puts its messages.

    Raises:
        OutputError: a sink could not write all it was given; raised after everything else has been closed.
        MediaError, DeviceError: the source failed; raised after the last update.
    """
    listening = list(sinks)
    unwritten: list[OutputError] = []
    try:
        for sink in sinks:
            sink.open(session.info, session.stats)
        with _stop_on_signals(session):
            for update in session.updates():
                messages = [statuses.popleft() for _ in range(len(statuses))] if statuses else []
                for sink in tuple(listening):
                    try:
                        _write(sink, messages, update)
                    except BrokenPipeError:
                        listening.remove(sink)
                        session.stop()
    finally:
        for sink in listening:
            try:
                sink.close()
            except BrokenPipeError:
                pass
            except OutputError as error:
                unwritten.append(error)
    if unwritten:
        raise unwritten[0]


def _write(sink: Sink, messages: Sequence[str], update: Update) -> None:
    for message in messages:
        sink.status(message)
    sink.write(update)


@contextmanager
def _stop_on_signals(session: Session) -> Iterator[None]:
    """The first SIGINT or SIGTERM stops the session. Does nothing outside the main thread, where signals do not go."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature signal asks for
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # Closing takes locks that the interrupted thread may hold, so it is not done in the handler itself.
        threading.Thread(target=session.stop, name="ovavel-stop", daemon=True).start()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
