"""What a test may change in its process and must leave as it was: the next test would run with it."""

from __future__ import annotations

import faulthandler
import gc
import locale
import logging
import os
import resource
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["ENDS_WITHIN_S", "ProcessState"]

_OTHERS = {"PYTEST_CURRENT_TEST", "LD_LIBRARY_PATH"}
"""Variables that pytest and OpenCV change."""
_READ = ("OVAVEL", "PYTHON", "XDG_", "LC_", "LANG", "TZ", "TMP", "http", "NO_COLOR", "STATE_", "NOTIFY_")
"""A new variable counts where it is one of these: libraries set others for themselves when they are imported."""
_STATUS = Path("/proc/self/status")
_LIMITS = {name: each for name, each in vars(resource).items() if name[:7] == "RLIMIT_" and name != "RLIMIT_OFILE"}
ENDS_WITHIN_S = 60.0
"""So long may a thread that was asked to end take on a busy machine."""


class ProcessState:
    """What is the case when this is made."""

    def __init__(self) -> None:
        self._variables, self._threads = frozenset(os.environ), _threads()
        self._before = dict(_facts(self._variables))

    def changes(self) -> list[str]:
        """What is different now, a line each. Threads that are about to end are waited for."""
        before, after = self._before, dict(_facts(self._variables))
        found = [
            f"{name}: {before.get(name)!r} before, {after.get(name)!r} after"
            for name in before.keys() | after.keys()
            if before.get(name) != after.get(name)
        ]
        end_s = time.monotonic() + ENDS_WITHIN_S
        for thread in _threads() - self._threads:
            thread.join(max(0, end_s - time.monotonic()))
            if thread.is_alive():
                frame = sys._current_frames().get(thread.ident or 0)
                stack = "".join(traceback.format_stack(frame)) if frame else ""
                found.append(f"a thread still runs: {thread.name}\n{stack}")
        return sorted(found)


def _threads() -> set[threading.Thread]:
    """Those that Python waits for at its end; of whoever uses others, it is known that they end with the process."""
    # Once it has compiled something, PyTorch keeps a pool, whose threads have no name of their own.
    kept = "ThreadPoolExecutor-" if "torch._inductor" in sys.modules else None
    return {each for each in threading.enumerate() if not (each.daemon or (kept and each.name.startswith(kept)))}


def _facts(variables: frozenset[str]) -> Iterator[tuple[str, Any]]:
    for name, value in os.environ.items():
        if (name in variables or name.startswith(_READ)) and name not in _OTHERS:
            yield f"environment variable {name}", value
    yield "working directory", Path.cwd()
    if _STATUS.exists():  # to ask the system for it would be to change it
        yield "umask", [line for line in _STATUS.read_text().splitlines() if line.startswith("Umask")]
    signals = signal.valid_signals() - {signal.SIGALRM}  # of pytest-timeout
    yield from ((f"handler of {number!r}", signal.getsignal(number)) for number in signals)
    yield "blocked signals", signal.pthread_sigmask(signal.SIG_BLOCK, ()) - {signal.SIGPIPE}  # of PortAudio
    yield from ((name, resource.getrlimit(number)) for name, number in _LIMITS.items())
    yield "priority", os.getpriority(os.PRIO_PROCESS, 0)
    if hasattr(os, "sched_getaffinity"):
        yield "cores", os.sched_getaffinity(0)
    yield from _logs()
    yield "locale", locale.setlocale(locale.LC_ALL)
    yield "sys.path", [each for each in sys.path if not each.endswith("_vendor")]  # setuptools adds it once
    yield "sys.argv", [*sys.argv]
    yield "sys.excepthook", sys.excepthook
    yield "threading.excepthook", threading.excepthook
    yield "recursion limit", sys.getrecursionlimit()
    yield "switch interval", sys.getswitchinterval()
    yield "fault handler", faulthandler.is_enabled()
    yield "garbage collection", (gc.isenabled(), gc.get_threshold())
    yield "timeout of sockets", socket.getdefaulttimeout()
    yield "folder of temporary files", tempfile.gettempdir()


def _logs() -> Iterator[tuple[str, Any]]:
    """The root of all logs and ours; libraries that are imported make more of them."""
    yield "logging.disable", logging.root.manager.disable
    as_made = (logging.NOTSET, [], True, False)
    for name, log in {"root": logging.root, **logging.root.manager.loggerDict}.items():
        if isinstance(log, logging.Logger) and name.partition(".")[0] in ("root", "ovavel"):
            found = (log.level, [*log.handlers], log.propagate, log.disabled)
            if found != as_made:
                yield f"log {name}", found
