"""A file of lines: whole, on disk, and begun again where logrotate moved it away."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import pytest
from support.deliveries import Desk

from ovavel.service.config.sinks import Jsonl
from ovavel.service.delivery.jsonl import JsonlSender
from ovavel.service.store import outbox
from ovavel.service.store.database import Database


def desk_of(store: Database, path: Path) -> Desk:
    sink = Jsonl(id="log", path=str(path), when="early")
    desk = Desk(store, sink)
    desk.sender = JsonlSender(sink)  # type: ignore[assignment]
    desk.worker = desk.new_worker()
    return desk


def drain(desk: Desk) -> None:
    while desk.worker.round():
        pass


def lines(path: Path) -> list[str]:
    return [f"{each['id']}.{each['revision']}" for each in map(json.loads, path.read_text().splitlines())]


def test_each_piece_of_news_is_a_line(store: Database, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    desk = desk_of(store, path)
    desk.news("start", label='dog "Rex"\nbarking')
    desk.news("end", label='dog "Rex"\nbarking')
    drain(desk)
    first, second = map(json.loads, path.read_text().splitlines())
    assert (first["type"], first["revision"], first["label"]) == ("event.start", 1, 'dog "Rex"\nbarking')
    assert (second["type"], second["state"], second["written"]) == ("event.end", "ended", "2026-11-28T12:00:00.000Z")


def test_a_file_that_was_moved_away_or_removed_is_begun_again(store: Database, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    desk = desk_of(store, path)
    desk.news("start")
    drain(desk)
    path.rename(tmp_path / "events.jsonl.1")
    desk.news("end")
    drain(desk)
    assert (lines(tmp_path / "events.jsonl.1"), lines(path)) == (["e1.1"], ["e1.2"])
    path.unlink()
    desk.news("start", 2)
    drain(desk)
    assert lines(path) == ["e2.1"]


def test_what_a_power_cut_left_torn_does_not_spoil_the_next_line(store: Database, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"id": "e0", "revi')
    desk = desk_of(store, path)
    desk.news("start")
    drain(desk)
    torn, whole = path.read_text().splitlines()
    assert (torn, json.loads(whole)["id"]) == ('{"id": "e0", "revi', "e1")


def test_a_folder_that_is_gone_loses_nothing(store: Database, tmp_path: Path) -> None:
    path = tmp_path / "mount" / "events.jsonl"
    desk = desk_of(store, path)
    desk.news("start")
    drain(desk)
    assert "No such file" in desk.worker.trouble
    path.parent.mkdir()
    drain(desk)
    assert lines(path) == ["e1.1"]


def test_a_file_that_cannot_grow_stays_whole(store: Database, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    desk = desk_of(store, path)
    desk.news("start")
    drain(desk)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for number in range(2, 6):
        desk.news("start", number)
    message = JsonlSender(Jsonl(id="log", path=str(path)))
    limit = path.stat().st_size + 300
    import signal

    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    found = outbox.due(store.read, "log", now_us=desk.now_us)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        from ovavel.service.delivery.message import message_of

        outcomes = message.send([message_of(each, desk.place, now_us=desk.now_us) for each in found])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert {each.result for each in outcomes} == {"unavailable"}
    assert lines(path) == ["e1.1"]
    drain(desk)
    assert lines(path) == [f"e{number}.1" for number in range(1, 6)]


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_said_and_nothing_hangs(store: Database, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "events.jsonl"
    if kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    desk = desk_of(store, path)
    desk.news("start")
    drain(desk)
    assert str(path) in desk.worker.trouble
    assert outbox.backlog(store.read, "log").pending == 1
