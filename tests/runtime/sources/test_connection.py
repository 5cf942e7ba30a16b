"""When a feed is lost, and what is said of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ovavel.runtime.sources.connection import CONNECT_S, FROZEN_S, Connection, Feed


class Scripted(Feed):
    """A feed that ends when asked to."""

    def __init__(self, error: Exception | None = None, *, ended: bool = False) -> None:
        super().__init__("scripted", address="http://me:secret@cam/")
        self.error = error
        if ended:
            self.ended.set()


def test_a_silent_feed_is_lost_unless_the_process_was_stopped() -> None:
    connection = Connection("cam", Scripted(), Scripted, 0.0)
    connection.check(0.25)
    connection.check(100.0)  # the process was stopped
    assert not connection.lost
    for step in range(1, 40):
        connection.check(100.0 + step / 4)
        assert connection.lost == (step / 4 > FROZEN_S)
    notices = [(notice.time_s, notice.message) for notice in connection.notices(7.0)]
    assert notices == [(7.0, f"cam is lost (no data for {FROZEN_S:g} s); trying to open it again")]
    assert list(connection.notices(8.0)) == []


def test_the_newest_reason_is_reported_once() -> None:
    reported: list[str] = []
    reasons = iter(["refused", "refused", "401 Unauthorized: http://me:secret@cam/", None, "refused", "refused"])

    def connect() -> Feed:
        reason = next(reasons)
        return Scripted(None if reason is None else OSError(reason), ended=reason is not None)

    connection = Connection("cam", Scripted(OSError("it broke"), ended=True), connect, 0.0)
    for quarter in range(1, 4 * 80):
        connection.check(quarter / 4)
        reported += [notice.message for notice in connection.notices(quarter / 4)]
        if len(reported) == 5:
            break
    assert reported == [
        f"cam is {what} ({why}); trying to open it again"
        for what, why in [
            ("lost", "it broke"),
            ("still lost", "refused"),
            ("still lost", "401 Unauthorized: http://cam/"),
            ("still lost", f"no data for {CONNECT_S:g} s"),
            ("still lost", "refused"),
        ]
    ]
    connection.arrived(80.0)
    assert [notice.message for notice in connection.notices(80.0)] == ["cam is back"]


@pytest.mark.parametrize("error", [OSError(5, "Input/output error", "http://me:secret@cam/"), ValueError("me:secret")])
def test_why_it_ended_shows_no_secret(error: Exception) -> None:
    assert "secret" not in Scripted(error, ended=True).why


def test_an_error_without_a_text_has_its_name() -> None:
    assert Scripted(MemoryError(), ended=True).why == "MemoryError"


AT_WORK = """
import sys, threading
from ovavel.runtime.cli import program
from ovavel.runtime.sources.connection import Feed

class Reader(Feed):
    def _serve(self):
        if "ends" in sys.argv:
            self.stopping.wait()
            print("ended", flush=True)
        else:
            threading.Event().wait()

Reader("a reader").start()
"""


def test_a_program_waits_for_its_feeds() -> None:
    """A library that asks for the interpreter when that is gone crashes the process."""
    ran = subprocess.run([sys.executable, "-c", AT_WORK, "ends"], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "ended\n", "")


def test_a_feed_that_hangs_does_not_hold_up_the_command() -> None:
    script = AT_WORK + "sys.argv = ['ovavel', 'no-such-command']\nprogram()"
    ran = subprocess.run([sys.executable, "-c", script, "hangs"], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2
    assert len(ran.stderr.splitlines()) == 1
