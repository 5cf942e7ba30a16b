"""Ends what a test process has started and left running, however that process ends: by itself, interrupted or killed.

What it starts carries a folder of its own in its environment, by which it is known. A program, too, so that it imports
nothing: `survivors.py PID VARIABLE FOLDER`.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["end_with_this_process"]

_WITHIN_S = 60.0
"""One that hangs in the kernel cannot be ended."""


def end_with_this_process(variable: str) -> None:
    """When this process ends, kill all whose environment has `variable` as it is here, and remove the folder it names.

    Linux alone has what this takes; elsewhere nothing is done.
    """
    if not hasattr(os, "pidfd_open"):
        return
    folder = os.environ[variable]
    command = [sys.executable, "-I", "-S", __file__, str(os.getpid()), variable, folder]
    environment = {name: value for name, value in os.environ.items() if name != variable}
    subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=True)


def _wait(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        select.select([process], [], [])


def _kill_all(mark: bytes) -> bool:
    """Whether there was any."""
    found = False
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has gone, or is another user's
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                os.kill(int(folder.name), signal.SIGKILL)
                found = True
    return found


def _main(pid: int, variable: str, folder: str) -> None:
    if os.fork():
        return  # whoever waits for this one does not wait for the other
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for descriptor in (1, 2):
        os.dup2(0, descriptor)  # nobody waits for the end of its output
    _wait(pid)
    end_s = time.monotonic() + _WITHIN_S
    while _kill_all(f"{variable}={folder}".encode()) and time.monotonic() < end_s:
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _main(int(sys.argv[1]), *sys.argv[2:])
