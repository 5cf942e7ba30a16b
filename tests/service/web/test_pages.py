"""What the pages say of the service itself."""

from __future__ import annotations

import html
import time
from pathlib import Path

import pytest
from support.served import served
from support.web import ask

from ovavel.runtime.errors import OutputError
from ovavel.service.store import accounts
from ovavel.service.store.database import rows

pytestmark = pytest.mark.timeout(300)

DAY_US = 86_400_000_000
NOW_US = 20_600 * DAY_US


def text(port: int, path: str) -> str:
    status, _, body = ask(port, path)
    assert status == 200
    return html.unescape(body.decode())


def test_health_shows_what_is_kept_and_what_goes_once_a_clock_that_was_set_ahead_is_believed(tmp_path: Path) -> None:
    with served(tmp_path, users=False) as here:
        retention = here.service.keeper.retention
        with here.service.store.write() as transaction:
            transaction.execute("UPDATE event SET start_us = ?, end_us = ?, state = 'ended'", (NOW_US, NOW_US))
        retention.apply(now_us=NOW_US, monotonic_us=0)
        assert "hours, unless" not in text(here.port, "/health")
        retention.apply(now_us=NOW_US + 1000 * DAY_US, monotonic_us=DAY_US // 24)
        page = text(here.port, "/health")
        assert "Nothing is removed for its age for 24.0 more hours" in page
        assert "<td>clip</td><td>2026-05-27</td><td>0.0 MB</td>" in page, "its next deletions"
        assert rows(here.service.store.read, "SELECT state FROM asset") == [("ready",)]


def test_health_shows_why_the_archive_is_not_written_or_not_kept_within_its_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> int:
        raise OutputError("cannot remove a day")

    with served(tmp_path, users=False) as here:
        archivist = here.service.archivist
        monkeypatch.setattr(archivist.retention, "apply_now", fail)
        archivist._retain()
        archivist._fail("one", "the disk is away")
        page = text(here.port, "/health")
    assert "<li>The archive is not kept within its limits: cannot remove a day</li>" in page
    assert "<li>The archive of Front gate is not written: the disk is away</li>" in page


def test_health_shows_accounts_that_a_clock_ahead_has_left(tmp_path: Path) -> None:
    with served(tmp_path, users=False) as here:
        now_us = time.time_ns() // 1000
        with here.service.store.write() as transaction:
            accounts.advance(transaction, "one", to_us=now_us + 3 * accounts.HOUR_US, outcome="gap", cause="clock step")
            cause = "encoder too slow"
            accounts.advance(transaction, "one", to_us=now_us, outcome="dropped", cause=cause, windows=7)
        assert "encoder too slow 7" in text(here.port, "/health")
