"""Runs a session into its sinks until the source ends, a signal comes, or a reader goes away."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from ovavel.runtime.errors import OutputError
from ovavel.runtime.files import output_error
from ovavel.runtime.session import Session
from ovavel.runtime.sinks import Sink
from ovavel.runtime.types import Update

__all__ = ["drive"]


def drive(session: Session, sinks: Sequence[Sink]) -> None:
    """Feed `sinks` with all that `session` brings; returns when it is over and every open event has ended.

    The first SIGINT, SIGTERM or SIGHUP, and a sink whose reader went away (a closed pipe), end the session in good
    order: the sinks still get the last update. A second SIGINT interrupts at once.

    Raises:
        OutputError: a sink could not write all it was given; raised after everything else has been closed.
        MediaError, DeviceError: the source or the backend failed; raised after the last update.
    """
    unwritten: list[OutputError] = []

    def guarded(sink: Sink, act: Callable[..., None], *arguments: object) -> bool:
        """Whether `act` of `sink` went well; a sink that fails must not take the others down."""
        try:
            act(*arguments)
        except BrokenPipeError:
            return False
        except OutputError as error:
            unwritten.append(error)
            return False
        except OSError as error:
            unwritten.append(output_error(sink.name, error))
            return False
        return True

    try:
        listening = [sink for sink in sinks if guarded(sink, sink.open, session.info, session.stats)]
        with _stop_on_signals(session):
            if len(listening) < len(sinks):
                session.stop()
            for update in session.updates():
                for sink in tuple(listening):
                    if not guarded(sink, _write, sink, update):
                        listening.remove(sink)
                        session.stop()
    finally:
        for sink in sinks:
            guarded(sink, sink.close)
    if unwritten:
        raise unwritten[0]


def _write(sink: Sink, update: Update) -> None:
    for message in update.statuses:
        sink.status(message)
    sink.write(update)


@contextmanager
def _stop_on_signals(session: Session) -> Iterator[None]:
    """The first signal stops the session. Does nothing outside the main thread, where signals do not go."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature signal asks for
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # Closing takes locks that the interrupted thread may hold, so it is not done in the handler itself.
        threading.Thread(target=session.stop, name="ovavel-stop", daemon=True).start()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
