"""Handling of SIGINT, SIGTERM and SIGHUP in long work and in sessions.

A signal that was ignored when the program started stays ignored: SIGHUP under `nohup`, SIGINT of a background job.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

__all__ = ["GRACE_S", "Overdue", "StopSignals", "interrupted_after", "terminated_as_interrupted"]

GRACE_S = 2.0
"""After a signal, a call that may block (into a sink) is interrupted once it takes longer than this."""
_POLL_S = 0.1


@contextlib.contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Raise `KeyboardInterrupt` on SIGTERM too. Does nothing outside the main thread, which alone gets signals."""
    with _handled((signal.SIGTERM,), signal.default_int_handler):
        yield


@contextlib.contextmanager
def interrupted_after(act: Callable[[], None]) -> Iterator[None]:
    """On SIGINT and SIGTERM, call `act`, then raise `KeyboardInterrupt`. Does nothing outside the main thread."""

    def hear(number: int, frame: FrameType | None) -> None:
        act()
        signal.default_int_handler(number, frame)

    with _handled((signal.SIGINT, signal.SIGTERM), hear):
        yield


class Overdue(BaseException):
    """A call took longer than `GRACE_S` after a signal requested the end."""


class StopSignals:
    """Ends a session on the first SIGINT, SIGTERM or SIGHUP even if a sink blocks; a second SIGINT interrupts at once.

    Python runs a handler in the main thread, and a blocked write resumes when the handler returns. So each call that
    may block is made inside `bounded`: if the end was requested and the call takes too long, the main thread gets the
    signal again, and this time the handler raises `Overdue` inside the call.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        """Call `stop` once, in a separate thread, on the first signal."""
        self._stop = stop
        self._main = threading.get_ident()
        self._call_s: float | None = None  # start of the current call that may block
        self._requested = False
        self._overdue = False  # the next signal was sent by us
        self._over = threading.Event()
        self._sending = threading.Lock()  # we send no signal once the handlers are being restored

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the signals. Does nothing outside the main thread, which alone gets signals."""
        with _handled((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), self._hear):
            try:
                yield
            finally:
                with self._sending:
                    self._over.set()

    @contextlib.contextmanager
    def bounded(self) -> Iterator[None]:
        """Run a call that may block.

        Raises:
            Overdue: it was interrupted because the end was requested and it took too long.
        """
        self._call_s = time.monotonic()
        try:
            yield
        except Overdue:
            _leave_stuck_streams()
            raise
        finally:
            self._call_s = None

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._overdue:
            self._overdue = False
            if self._call_s is not None:
                raise Overdue
        elif not self._requested:
            self._requested = True
            # Closing takes locks that the interrupted thread may hold, so it must not happen in the handler.
            for act in (self._stop, lambda: self._watch(number)):
                threading.Thread(target=act, name="ovavel-stop", daemon=True).start()
        elif number == signal.SIGINT:
            signal.default_int_handler(number, frame)

    def _watch(self, number: int) -> None:
        """From now on, interrupt each call that takes too long."""
        since_s = time.monotonic()
        while not self._over.wait(_POLL_S):
            with self._sending:
                now_s, call_s = time.monotonic(), self._call_s
                late = call_s is not None and now_s - max(call_s, since_s) > GRACE_S
                if late and not self._over.is_set():
                    since_s = now_s
                    self._overdue = True
                    signal.pthread_kill(self._main, number)


@contextlib.contextmanager
def _handled(numbers: tuple[signal.Signals, ...], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Install `handler` for those signals of `numbers` that are not ignored, and restore the old ones at the end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # None stands for a handler that Python did not install and could not restore.
    heard = [number for number in numbers if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _stderr() -> int:
    """Return the descriptor of Python's standard error: not 2 while the output of libraries is captured."""
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        return 2


def _leave_stuck_streams() -> None:
    """Redirect standard output and error to nothing if nobody reads them: flushing at exit would block again."""
    for fd in {1, 2, _stderr()}:
        with contextlib.suppress(OSError):
            stream = select.poll()  # unlike `select`, with any number of open files
            stream.register(fd, select.POLLOUT)
            if not stream.poll(0):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, fd)
                os.close(nowhere)
