"""Times as people write them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from ovavel.runtime.archive.times import camera_at, parse_time, shown_time
from ovavel.runtime.errors import UsageError


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-11-29", datetime(2026, 11, 28, 23, tzinfo=UTC)),
        ("2026-07-01T14:30", datetime(2026, 7, 1, 12, 30, tzinfo=UTC)),
        ("2026-07-01T14:30:05Z", datetime(2026, 7, 1, 14, 30, 5, tzinfo=UTC)),
        (" 2026-07-01T14:30:05-05:00 ", datetime(2026, 7, 1, 19, 30, 5, tzinfo=UTC)),
    ],
)
def test_times(text: str, utc: datetime) -> None:
    assert parse_time(text, "--from") == utc
    assert parse_time(shown_time(utc.timestamp()), "--from") == utc


@pytest.mark.parametrize("text", ["", "noon", "2026-13-01", "0001-01-01T00:00:00+23:59", "14:30"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError, match="--start takes a date"):
        parse_time(text, "--start")


def test_camera_at_a_time() -> None:
    utc_s = int(datetime(2026, 7, 1, 12, 30, 5, tzinfo=UTC).timestamp())
    assert camera_at("yard@2026-07-01T14:30:05.9", "--like") == ("yard", utc_s)
    assert camera_at("me@home@2026-07-01T14:30:05", "--like") == ("me@home", utc_s)


def test_a_time_that_no_calendar_has() -> None:
    assert shown_time(1e18) == "1000000000000000000 s after 1970"
