"""Capture what C libraries write to standard error while a live view is on the screen."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator

__all__ = ["captured_stderr"]

QUIET_S = 0.5
"""Lines that arrive within this time form one notice."""
LONGEST_S = 3.0
MOST_SEEN = 1000
"""How many different lines are remembered."""


@contextlib.contextmanager
def captured_stderr(listener: Callable[[str], None]) -> Iterator[None]:
    """Capture file descriptor 2 and pass each burst of new lines to `listener` as one sentence.

    PortAudio and ALSA write there from their own threads when a sound server dies, and again at every attempt to open
    it, so repeated lines are dropped. `sys.stderr` still reaches the real standard error.
    """
    try:
        real = os.dup(2)
    except OSError:  # standard error is closed
        yield
        return
    reader, writer = os.pipe()
    os.dup2(writer, 2)
    os.close(writer)
    over = threading.Event()
    thread = threading.Thread(target=_listen, args=(reader, over, listener), name="ovavel-stderr", daemon=True)
    thread.start()
    try:
        with _python_writes_to(real):
            yield
    finally:
        over.set()
        os.dup2(real, 2)
        os.close(real)
        thread.join(1)


@contextlib.contextmanager
def _python_writes_to(fd: int) -> Iterator[None]:
    ours = sys.stderr
    if not isinstance(ours, io.TextIOWrapper) or not _is_on_descriptor_2(ours):
        yield
        return
    ours.flush()
    with open(fd, "w", buffering=1, encoding=ours.encoding, errors=ours.errors, closefd=False) as stream:
        sys.stderr = stream
        try:
            yield
        finally:
            sys.stderr = ours


def _is_on_descriptor_2(stream: io.TextIOWrapper) -> bool:
    try:
        return stream.fileno() == 2
    except (OSError, ValueError):  # it writes to no file, or is closed
        return False


def _listen(reader: int, over: threading.Event, listener: Callable[[str], None]) -> None:
    """Read until the writing ends are closed or `over` is set, and report new lines."""
    seen: set[str] = set()
    new: list[str] = []
    rest = b""
    first_s = newest_s = 0.0
    with open(reader, "rb", buffering=0) as pipe:
        waiting = select.poll()  # unlike `select`, with any number of open files
        waiting.register(pipe, select.POLLIN)
        while True:
            ended = over.is_set()
            ready = bool(waiting.poll(0 if ended else 100))
            data = pipe.read(1 << 16) if ready else b""
            now_s = time.monotonic()
            ended = not data and (ended or ready)
            *lines, rest = (rest + data + (b"\n" if ended else b"")).split(b"\n")
            for line in (raw.decode("utf-8", "replace").strip() for raw in lines):
                newest_s = now_s
                if line and line not in seen and len(seen) < MOST_SEEN:
                    seen.add(line)
                    first_s = first_s if new else now_s
                    new.append(line)
            if new and (ended or now_s - newest_s > QUIET_S or now_s - first_s > LONGEST_S):
                more = f" (and {len(new) - 1} more lines)" if len(new) > 1 else ""
                listener(f"a library reports: {new[0]}{more}")
                new = []
            if ended:
                return
