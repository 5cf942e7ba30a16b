"""What keeps one test from changing the next, and a test that was killed from leaving processes behind."""

from __future__ import annotations

import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.process_state import ProcessState

SOFT, HARD = resource.getrlimit(resource.RLIMIT_NOFILE)

CHANGES: dict[str, Callable[[pytest.MonkeyPatch], object]] = {
    "environment variable OVAVEL_X": lambda patch: patch.setenv("OVAVEL_X", "1"),
    "working directory": lambda patch: patch.chdir("/"),
    "sys.path": lambda patch: patch.syspath_prepend("/none"),
    "log ovavel": lambda patch: patch.setattr(logging.getLogger("ovavel"), "level", logging.DEBUG),
    "log root": lambda patch: patch.setattr(logging.getLogger(), "handlers", []),
    "folder of temporary files": lambda patch: patch.setattr("tempfile.tempdir", "/none"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_test_changes_is_named(name: str) -> None:
    before = ProcessState()
    with pytest.MonkeyPatch.context() as patch:
        CHANGES[name](patch)
        (found,) = before.changes()
        assert found.startswith(f"{name}: ")
    assert before.changes() == []


# Each returns what undoes it.
CALLS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "umask": (partial(os.umask, 0o7), os.umask),
    "handler of <Signals.SIGUSR1": (
        partial(signal.signal, signal.SIGUSR1, signal.SIG_IGN),
        partial(signal.signal, signal.SIGUSR1),
    ),
    "timeout of sockets": (partial(socket.setdefaulttimeout, 5), socket.setdefaulttimeout),
    "RLIMIT_NOFILE": (
        partial(resource.prlimit, 0, resource.RLIMIT_NOFILE, (SOFT - 1, HARD)),
        partial(resource.prlimit, 0, resource.RLIMIT_NOFILE),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_a_test_changes_in_the_system_is_named(name: str) -> None:
    before, (change, undo) = ProcessState(), CALLS[name]
    undone = change()
    try:
        found = before.changes()
    finally:
        undo(undone)
    assert before.changes() == []
    if name == "umask" and not Path("/proc/self/status").exists():
        return
    assert [each.startswith(name) for each in found] == [True]


def test_a_thread_that_stays_is_named_and_one_that_is_about_to_end_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    before = ProcessState()
    threading.Thread(target=over.wait, name="stays").start()
    monkeypatch.setattr("support.process_state.ENDS_WITHIN_S", 0.0)
    try:
        (changed,) = before.changes()
        assert changed.startswith("a thread still runs: stays\n")
    finally:
        over.set()
    monkeypatch.undo()
    assert before.changes() == []


CHILD = """
import os, subprocess, sys
sys.path.insert(0, sys.argv[1])
from support.survivors import end_with_this_process
end_with_this_process("OVAVEL_MARK")
sleeps = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
child = subprocess.Popen(sleeps, stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, 0])
def test_whatever_ends_a_process_what_it_started_ends_with_it(tmp_path: Path, end: int) -> None:
    mark = tmp_path / "mark"
    mark.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(Path(__file__).parent)],
        env={**os.environ, "OVAVEL_MARK": str(mark)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdin
        started = psutil.Process(int(process.stdout.readline()))
        if end:
            process.send_signal(end)
        else:
            process.stdin.close()
        process.wait(60)
    started.wait(60)
