"""How long the archive is kept, and what a day that cannot be read or removed costs."""

from __future__ import annotations

import itertools
import logging
import time

import numpy as np
import pytest
from support.archived import DAY_US, GATE, START_US, Archived, of_nothing, segments
from support.archives import DAY, made_up_model, unit, write_seconds

from ovavel.runtime.archive.layout import DAY_S, ContextSecond
from ovavel.runtime.archive.reader import Archive
from ovavel.runtime.archive.writer import locked_day
from ovavel.service.archive.retention import ArchiveRetention, plan
from ovavel.service.config.site import Keep
from ovavel.service.encoding.remote import RemoteEncoder
from ovavel.service.evidence.retention import Retention
from ovavel.service.store.database import Database

pytestmark = pytest.mark.timeout(300)


def test_days_go_by_age_and_the_present_one_stays(store: Database, encoder: RemoteEncoder) -> None:
    archived = Archived(store, encoder, archive_days=2)
    archived.archivist.start()
    today_us = time.time_ns() // 1000 // DAY_US * DAY_US
    for ago in range(5):
        archived.take(segments(3), start_us=today_us - ago * DAY_US)
    archived.close()
    assert archived.archivist.retention.apply_now() == 2
    assert {each // 86_400 for each in archived.seconds} == {today_us // DAY_US - ago for ago in range(3)}


def test_the_oldest_days_go_where_they_take_too_much_space(store: Database, encoder: RemoteEncoder) -> None:
    archived = Archived(store, encoder)
    archived.archivist.start()
    for ago in range(4):
        archived.take(segments(3), start_us=START_US - ago * DAY_US)
    archived.close()
    days = [(day, 1_000_000_000) for day in Archive(store.folder).days()]
    now_us = START_US + 3_600_000_000

    def left(**limits: float) -> list[str]:
        going = plan(days, Keep(**limits), now_us=now_us)
        return sorted(each.day.isoformat() for each, _ in days if each not in going)

    assert left(archive_gb=2.5) == ["2026-11-28", "2026-11-29"]
    assert left(archive_gb=0.5) == ["2026-11-29"]
    assert [each.day.isoformat() for each in plan(days, Keep(), now_us=now_us, lacking_bytes=1)] == ["2026-11-26"]


def test_a_day_of_a_camera_that_stays_away_can_be_removed_and_another_one_begins(
    store: Database, encoder: RemoteEncoder
) -> None:
    archived = Archived(store, encoder, archive_days=2)
    today_us = time.time_ns() // 1000 // DAY_US * DAY_US
    given = segments(60)
    archived.watch([*given[:5], *of_nothing(5, 25)], start_us=today_us - 5 * DAY_US)
    assert archived.archivist.retention.apply_now() == 1
    archived.watch(given[30:])
    archived.archivist.end(GATE.id)
    archived.work()
    assert archived.seconds == [(today_us - 5 * DAY_US) // 1_000_000 + index for index in range(30, 60)]
    assert not archived.archivist.lost


@pytest.mark.parametrize("days", [2, 30])
def test_a_day_that_cannot_be_removed_keeps_neither_others_nor_what_is_written(
    store: Database, encoder: RemoteEncoder, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    archived = Archived(store, encoder, archive_days=days)
    archivist = archived.archivist
    today_us = time.time_ns() // 1000 // DAY_US * DAY_US
    for ago in (5, 4, 0):
        archived.take(segments(3), start_us=today_us - ago * DAY_US)
    archived.work()
    if days == 30:  # one of them would make enough room
        min_free = archived.retention.min_free_bytes
        free = itertools.chain([min_free - 1], itertools.repeat(min_free))
        monkeypatch.setattr(archivist.retention, "_free_bytes", lambda: next(free))
    _, _, oldest = Archive(store.folder).days()
    with locked_day(oldest.folder):
        archivist._look_after(retain=True)
    assert str(oldest.folder) in archivist.overdue
    assert not archivist.trouble
    assert {each * 1_000_000 // DAY_US for each in archived.seconds} == {
        (today_us - 5 * DAY_US) // DAY_US,
        today_us // DAY_US,
    }
    (kept,) = archivist.retention.kept
    assert kept.files == 2
    archivist._look_after(retain=True)
    assert not archivist.overdue


def test_a_day_that_cannot_be_read_stays_and_the_others_go(store: Database, caplog: pytest.LogCaptureFixture) -> None:
    vector = unit(np.ones(64))
    for day in range(4):
        second = ContextSecond(utc_s=DAY + day * DAY_S, vision=vector, audio=vector)
        write_seconds(store.folder, "gate", made_up_model(), [second])
    damaged = Archive(store.folder).days()[-1].folder
    (damaged / "header.json").write_bytes(b"")
    retention = ArchiveRetention(store, Retention(store, Keep(archive_days=1, min_free_gb=0)))
    now_us = (DAY + 3 * DAY_S + 3600) * 1_000_000
    with caplog.at_level(logging.WARNING):
        assert [retention.apply(now_us=now_us, monotonic_us=each) for each in (0, 60_000_000)] == [1, 0]
    assert [str(day.day) for day in Archive(store.folder).days()] == ["2026-12-01", "2026-11-30"]
    assert damaged.is_dir()
    assert [each.getMessage().count("gate/2026-11-28") for each in caplog.records] == [1], "said once"
