"""Runs a session into its sinks until the source ends, a signal arrives, or a reader closes its pipe."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from queue import Empty, SimpleQueue

from ovavel.runtime.errors import OutputError
from ovavel.runtime.reporting.redaction import redacted
from ovavel.runtime.session import Session
from ovavel.runtime.sinks import Sink
from ovavel.runtime.system.files import output_error
from ovavel.runtime.system.interrupt import GRACE_S, Overdue, StopSignals
from ovavel.runtime.types import Notice

__all__ = ["drive"]

_log = logging.getLogger(__name__)


def drive(session: Session, sinks: Sequence[Sink], *, messages: SimpleQueue[str] | None = None) -> None:
    """Pass every update of `session` to `sinks`; returns when it is over and every open event has ended.

    `messages` holds what the program around the session reports, from any thread: a log file that cannot be written,
    a C library. The sinks get each as a `Notice` with the next update; what comes after the last one is logged.

    The first SIGINT, SIGTERM or SIGHUP, and a sink whose reader went away (a closed pipe), end the session cleanly: the
    sinks still get the last update. After such a signal a sink that blocks is abandoned after `GRACE_S`. A
    second SIGINT interrupts at once: the sinks are closed without the last update. Ignored signals stay ignored.

    Raises:
        OutputError: a sink could not write everything it received; raised after everything else has been closed.
        MediaError, DeviceError: the source or the backend failed; raised after the last update.
    """
    unwritten: list[OutputError] = []
    signals = StopSignals(session.stop)

    def guarded(sink: Sink, act: Callable[..., None], *arguments: object) -> bool:
        """Whether `act` of `sink` succeeded; a sink that fails must not take the others down."""
        try:
            with signals.bounded():
                act(*arguments)
        except BrokenPipeError:
            return False
        except Overdue:
            unwritten.append(
                OutputError(f"{sink.name} accepted no data for {GRACE_S:g} s; the end of the session is missing there")
            )
            return False
        except OutputError as error:
            unwritten.append(error)
            return False
        except OSError as error:
            unwritten.append(output_error(sink.name, error))
            return False
        return True

    with signals.installed():
        try:
            listening = [sink for sink in sinks if guarded(sink, sink.open, session.info, session.stats)]
            if len(listening) < len(sinks):
                session.stop()
            now_s = 0.0
            for update in session.updates():
                now_s = update.window.start_s if update.window else now_s
                said = tuple(Notice(time_s=now_s, message=redacted(message)) for message in _taken(messages))
                news = replace(update, notices=update.notices + said)
                for sink in tuple(listening):
                    if not guarded(sink, sink.write, news):
                        listening.remove(sink)
                        session.stop()
        finally:
            for sink in sinks:
                guarded(sink, sink.close)
            for message in _taken(messages):  # came with the last update, or later
                _log.warning("%s", redacted(message))
    if unwritten:
        raise unwritten[0]


def _taken(messages: SimpleQueue[str] | None) -> Iterator[str]:
    """All messages that are waiting now."""
    with suppress(Empty):
        while messages is not None:
            yield messages.get_nowait()
