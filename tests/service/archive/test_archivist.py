"""The archive of a site that is watched: what is in it, and what it lacks and why."""

from __future__ import annotations

import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.archived import BUNDLE, GATE, START_US, Archived, failing_at, of_nothing, segments
from support.service import CLIP, site, until

from ovavel.runtime.archive.contexts import ContextVectors
from ovavel.runtime.archive.layout import ContextSecond
from ovavel.runtime.archive.reader import Archive
from ovavel.runtime.archive.search.phrases import embed_phrases
from ovavel.runtime.archive.search.query import Question, Search
from ovavel.runtime.archive.writer import DayFiles, locked_day
from ovavel.runtime.types import Segment
from ovavel.service.archive.archivist import (
    BUSY,
    ENCODER_FAILED,
    NEARLY_FULL,
    UNFORESEEN,
    UNWRITABLE,
    is_archived,
)
from ovavel.service.config.site import Camera, Keep
from ovavel.service.encoding.remote import EncoderLost, RemoteEncoder
from ovavel.service.store.database import Database, rows
from ovavel.service.watch.service import Service

pytestmark = pytest.mark.timeout(300)


def test_what_live_watching_decides_is_found_by_its_own_words(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with Service(site(tmp_path, Camera(id="one", source=CLIP, loop=True))) as service:
        service.start()
        until(lambda: rows(service.store.read, "SELECT 1 FROM event WHERE state = 'ended'"))
        until(lambda: service.archivist.written["one"] >= 10)
        ((label, start_us, end_us),) = rows(
            service.store.read, "SELECT label, start_us, end_us FROM event WHERE state = 'ended' ORDER BY id LIMIT 1"
        )
    assert not service.archivist.lost
    question = Question(texts=embed_phrases(BUNDLE, [label]), limit=20)
    *_, last = Search(Archive(folder), BUNDLE, question).answers()
    events = [hit for hit in last.hits if hit.event]
    assert any(hit.start_s < end_us / 1e6 and start_us / 1e6 < hit.end_s for hit in events)


@pytest.mark.parametrize("late_us", [0, 300_000, 999_999])
def test_every_second_is_written_once_at_the_second_in_which_it_begins(
    store: Database, encoder: RemoteEncoder, late_us: int
) -> None:
    archived = Archived(store, encoder)
    archived.archivist.start()
    archived.take(segments(25), start_us=START_US + late_us)
    archived.close()
    assert archived.seconds == list(range(START_US // 1_000_000, START_US // 1_000_000 + 25))
    assert archived.archivist.written == {"gate": 25}
    assert not archived.archivist.lost


def test_cameras_that_begin_together_are_not_committed_in_one_second(
    store: Database, encoder: RemoteEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits: list[tuple[str, int]] = []
    write = DayFiles.write

    def recorded(self: DayFiles, seconds: dict[int, ContextSecond]) -> None:
        commits.append((self.folder.parent.name, max(seconds)))
        write(self, seconds)

    monkeypatch.setattr(DayFiles, "write", recorded)
    archived = Archived(store, encoder)
    archived.archivist.start()
    cameras = [Camera(id=f"camera-{number}", source=CLIP) for number in range(20)]
    for camera in cameras:
        archived.archivist.begin(camera, lambda media_us: START_US + media_us)
    for segment in segments(22):
        for camera in cameras:
            archived.archivist.second(camera.id, segment)
    archived.close()
    assert archived.archivist.written == {camera.id: 22 for camera in cameras}
    at_once = Counter(row for _, row in commits)
    last = max(at_once)  # when all end
    assert max(count for row, count in at_once.items() if row != last) <= 6
    assert max(Counter(name for name, _ in commits).values()) <= 4, "no more often than every ten seconds"


def test_a_second_whose_window_was_dropped_is_not_there(store: Database, encoder: RemoteEncoder) -> None:
    given = segments(12)
    given[4] = Segment(index=4, start_s=4.0, vision=None, audio=None)
    archived = Archived(store, encoder)
    archived.archivist.start()
    archived.take(given)
    archived.close()
    start_s = START_US // 1_000_000
    assert archived.seconds == [start_s + index for index in range(12) if index != 4]


def test_an_encoder_that_is_lost_costs_the_seconds_that_were_due(
    store: Database, encoder: RemoteEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "contexts", failing_at(5, EncoderLost("it is gone"), encoder.contexts))
    archived = Archived(store, encoder)
    archived.archivist.start()
    archived.take(segments(20))
    archived.close()
    assert archived.archivist.lost == {("gate", ENCODER_FAILED): 1}
    assert archived.archivist.written == {"gate": 19}
    assert len(archived.seconds) == 19


@pytest.mark.parametrize("missing", [0, 1])
def test_an_encoder_that_is_lost_at_the_end_of_a_run_costs_what_was_not_final(
    store: Database, encoder: RemoteEncoder, monkeypatch: pytest.MonkeyPatch, missing: int
) -> None:
    last = 20 - GATE.lag + 1
    monkeypatch.setattr(encoder, "contexts", failing_at(last, EncoderLost("it is gone"), encoder.contexts))
    archived = Archived(store, encoder)
    archived.watch([*segments(20 - missing), *of_nothing(20 - missing, missing)])
    archived.archivist.end(GATE.id)
    archived.work()
    assert archived.archivist.lost == {("gate", ENCODER_FAILED): GATE.lag - missing}
    assert archived.archivist.written == {"gate": 20 - GATE.lag}


def test_the_last_seconds_before_a_camera_is_away_are_committed_while_it_is(
    store: Database, encoder: RemoteEncoder
) -> None:
    archived = Archived(store, encoder)
    after = next(at for at in range(10) if (START_US // 1_000_000 + at + zlib.crc32(b"gate")) % 10 == 1)
    archived.watch([*segments(7), *of_nothing(7, 10)], start_us=START_US + after * 1_000_000)
    assert len(archived.seconds) == archived.archivist.written["gate"] == 7
    assert not archived.archivist.lost


def test_a_camera_whose_day_cannot_be_written_costs_the_others_nothing(store: Database, encoder: RemoteEncoder) -> None:
    archived = Archived(store, encoder)
    yard = Camera(id="yard", source=CLIP)
    folder = store.folder / "context" / "gate" / "2026-11-29"
    folder.parent.mkdir(parents=True)
    given = segments(40)
    archived.archivist.begin(yard, lambda media_us: START_US + media_us)
    with locked_day(folder):
        archived.archivist.begin(GATE, lambda media_us: START_US + media_us)
        for each in given[:20]:
            archived.archivist.second(GATE.id, each)
            archived.archivist.second(yard.id, each)
        archived.work()
        assert str(folder) in archived.archivist.failing["gate"]
    for each in given[20:]:
        archived.archivist.second(GATE.id, each)
        archived.archivist.second(yard.id, each)
    archived.work()
    assert not archived.archivist.failing
    for camera in ("gate", "yard"):
        archived.archivist.end(camera)
    archived.work()
    assert archived.archivist.lost == {("gate", UNWRITABLE): 20 - GATE.lag}
    assert archived.archivist.written == {"gate": 20 + GATE.lag, "yard": 40}


def test_a_run_whose_archive_could_not_be_begun_is_archived_once_it_can_be(
    store: Database, encoder: RemoteEncoder
) -> None:
    archived = Archived(store, encoder)
    blocking = store.folder / "context"
    blocking.write_text("a file where a folder should be")
    given = segments(30)
    archived.watch(given[:5])
    assert str(blocking) in archived.archivist.failing["gate"]
    blocking.unlink()
    archived.watch(given[5:])
    assert not archived.archivist.failing
    archived.archivist.end(GATE.id)
    archived.work()
    assert archived.archivist.lost == {("gate", UNWRITABLE): 5}
    assert archived.archivist.written == {"gate": 25}


def test_a_disk_that_is_nearly_full_is_left_alone_and_the_loss_is_counted(
    store: Database, encoder: RemoteEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    archived = Archived(store, encoder)
    monkeypatch.setattr(archived.archivist.retention, "may_grow", lambda: False)
    archived.archivist.start()
    archived.take(segments(5))
    archived.close()
    assert archived.archivist.trouble == NEARLY_FULL
    assert archived.archivist.lost == {("gate", NEARLY_FULL): 5}
    assert not (store.folder / "context").exists()


def test_what_cannot_be_written_is_counted(
    store: Database, encoder: RemoteEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store.folder / "context").write_text("a file where a folder should be")
    archived = Archived(store, encoder)
    monkeypatch.setattr(archived.archivist.retention, "apply_now", lambda: 0)
    archived.archivist.start()
    archived.take(segments(5))
    archived.close()
    assert archived.archivist.lost == {("gate", UNWRITABLE): 5}


def test_an_unforeseen_fault_costs_the_seconds_that_waited_and_no_later_ones(
    store: Database, encoder: RemoteEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "contexts", failing_at(6, ZeroDivisionError(), encoder.contexts))
    archived = Archived(store, encoder)
    archived.archivist.start()
    archived.take(segments(30))
    archived.close()
    lost = archived.archivist.lost
    assert lost.keys() == {("gate", UNFORESEEN)}
    assert 1 <= lost["gate", UNFORESEEN] <= 6
    assert archived.archivist.written["gate"] == len(archived.seconds) == 30 - lost.total()


@pytest.mark.parametrize("failing", [("write",), ("close",), ("write", "close"), ("open", "close")])
def test_an_unforeseen_fault_of_the_writer_is_counted_to_the_second(
    store: Database, encoder: RemoteEncoder, monkeypatch: pytest.MonkeyPatch, failing: tuple[str, ...]
) -> None:
    fails = set(failing)

    def once(name: str, whole: Callable[..., Any]) -> Callable[..., Any]:
        def fail(*arguments: Any) -> Any:
            if name == "write" and "write" in fails:
                fails.discard(name)
                raise ZeroDivisionError
            found = whole(*arguments)
            if name in fails:
                fails.discard(name)
                if name == "open":
                    found.close()
                raise ZeroDivisionError
            return found

        return fail

    for name in ("open", "write", "close"):
        whole = once(name, getattr(DayFiles, name))
        monkeypatch.setattr(DayFiles, name, staticmethod(whole) if name == "open" else whole)
    archived = Archived(store, encoder)
    archived.archivist.start()
    archived.take(segments(30))
    archived.close()
    assert not fails
    lost = archived.archivist.lost
    assert lost.keys() <= {("gate", UNFORESEEN)}
    assert archived.archivist.written["gate"] == len(archived.seconds) == 30 - lost.total()


def test_an_unforeseen_fault_at_the_end_of_a_run_loses_nothing_uncounted(
    store: Database, encoder: RemoteEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flush(self: ContextVectors) -> object:
        raise ZeroDivisionError

    monkeypatch.setattr(ContextVectors, "flush", flush)
    archived = Archived(store, encoder)
    archived.archivist.start()
    archived.take(segments(30))
    archived.close()
    lost = archived.archivist.lost
    assert lost == {("gate", UNFORESEEN): GATE.lag}
    assert archived.archivist.written["gate"] == len(archived.seconds) == 30 - GATE.lag


def test_what_waits_is_bounded(store: Database, encoder: RemoteEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ovavel.service.archive.archivist._MOST_WAITING", 3)
    archived = Archived(store, encoder)  # its thread is not started yet
    archived.take(segments(10))
    assert archived.archivist.lost == {("gate", BUSY): 7}
    archived.archivist.start()
    archived.close()
    assert len(archived.seconds) == 3


def test_no_media_mode_and_no_space_keep_no_archive(tmp_path: Path) -> None:
    assert is_archived(site(tmp_path, GATE), GATE)
    assert not is_archived(site(tmp_path, GATE, media=False), GATE)
    assert not is_archived(site(tmp_path, GATE, keep=Keep(archive_gb=0)), GATE)
    assert not is_archived(site(tmp_path, GATE), Camera(id="gate", source=CLIP, media=False))


def test_the_service_reports_what_is_kept(tmp_path: Path) -> None:
    with Service(site(tmp_path, Camera(id="one", source=CLIP, loop=True))) as service:
        service.start()
        until(lambda: service.archivist.written["one"] >= 10)
        service.archivist._look_after(retain=True)
        (kept,) = service.archivist.retention.kept
    assert kept.kind == "archive"
    assert kept.files == 1 or time.gmtime().tm_hour == 0
    assert kept.bytes > 0
