"""A folder for a program that must leave nothing behind, however it ends: no process, no mount and no file."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil

__all__ = ["GROUPS", "group_name", "scratch"]

GROUPS = Path("/sys/fs/cgroup")
_MARK = "OVAVEL_TEST_SCRATCH"
"""Environment variable of all processes that the program starts, and these start: its folder."""
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_GONE_S = 30.0


@contextlib.contextmanager
def scratch(parent: Path | None = None) -> Iterator[Path]:
    """Make a folder; at the end remove it and all that belongs to it. SIGTERM and SIGHUP interrupt as Ctrl-C does."""
    folder = (parent or Path(tempfile.gettempdir())).resolve() / f"ovavel-{uuid.uuid4().hex}"
    before = os.environ.get(_MARK)
    with _interrupted_once():
        try:
            try:
                folder.mkdir()
                os.environ[_MARK] = str(folder)
                yield folder
            finally:
                _sweep(folder)
        finally:  # the first time may have been interrupted; the second one cannot be
            os.environ.pop(_MARK, None)
            if before is not None:
                os.environ[_MARK] = before
            _sweep(folder)


@contextlib.contextmanager
def _interrupted_once() -> Iterator[None]:
    """Whoever is impatient does not cut short what follows the first interruption."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def group_name() -> str:
    """Of control groups that this process makes."""
    return f"ovavel-test-{os.getpid()}"


def _sweep(folder: Path) -> None:
    while found := _processes(folder):
        for each in found:
            with contextlib.suppress(psutil.Error):
                each.kill()
        psutil.wait_procs(found, _GONE_S)
    for group in GROUPS.glob(f"*/{group_name()}"):
        with contextlib.suppress(OSError):
            group.rmdir()
    for mount in reversed(_mounts(folder)):
        subprocess.run(["umount", "-l", mount], check=False)
    shutil.rmtree(folder, ignore_errors=True)


def _processes(folder: Path) -> list[psutil.Process]:
    """Those that carry the mark, but not those that have ended and were not asked how."""
    found = []
    for each in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if each.environ().get(_MARK) == str(folder) and each.pid != os.getpid():
                found.append(each)
    return found


def _mounts(folder: Path) -> list[str]:
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [path for path in (line.split()[1] for line in lines) if Path(path).is_relative_to(folder)]
