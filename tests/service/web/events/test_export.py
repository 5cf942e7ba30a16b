"""Exports: made while they are sent, two at once, without what was deleted meanwhile."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.service import CLIP, news, run_facts, site
from support.web import ask

from ovavel.service.config.site import Camera
from ovavel.service.evidence.deletion import delete_events, remove_files
from ovavel.service.store import assets, cameras, events
from ovavel.service.store.assets import MediaFile
from ovavel.service.store.database import Database
from ovavel.service.watch.service import Service
from ovavel.service.web.events import api as api_module
from ovavel.service.web.events.export import archived
from ovavel.service.web.server import Server

pytestmark = pytest.mark.timeout(300)

DATA = b"picture"


def add(store: Database, number: int, *, end: bool = True) -> None:
    """An event with a picture."""
    event = f"e{number}"
    with store.write() as transaction:
        for kind in ("start", "end") if end else ("start",):
            facts = news(kind, number, run="run-yard")
            events.record(transaction, facts, event_id=event, now_us=1, sinks=())
        assets.expect(transaction, event, ("snapshot",))
        path = f"media/yard/day/{event}.snapshot.webp"
        file = MediaFile(
            path=path, bytes=len(DATA), sha256="0" * 64, start_us=0, end_us=1, has_audio=False, codec="webp"
        )
        assets.ready(transaction, event, "snapshot", file)
    (store.folder / path).parent.mkdir(parents=True, exist_ok=True)
    (store.folder / path).write_bytes(DATA)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Service, int]]:
    """Three events of a camera that was never started; the third is still open."""
    with Service(site(tmp_path, Camera(id="yard", source=CLIP))) as service:
        with service.store.write() as transaction:
            cameras.open_run(transaction, run_facts("run-yard", "yard"))
        for number in (1, 2, 3):
            add(service.store, number, end=number < 3)
        server = Server(service, host="127.0.0.1", port=0, token=None)
        server.start()
        try:
            yield service, server.port
        finally:
            server.stop()


def test_of_many_exports_two_are_made_at_once(served: tuple[Service, int], monkeypatch: pytest.MonkeyPatch) -> None:
    _, port = served
    go, begun = threading.Event(), threading.Semaphore(0)

    def slow(*_: object) -> Iterator[bytes]:
        begun.release()
        assert go.wait(60)
        yield b"zip"

    monkeypatch.setattr(api_module, "archived", slow)
    with ThreadPoolExecutor(2) as pool:
        first = [pool.submit(ask, port, "/api/v1/export") for _ in range(2)]
        try:
            assert all(begun.acquire(timeout=60) for _ in first)
            refused = ask(port, "/api/v1/export")
            assert (refused.status, refused.headers["retry-after"]) == (503, "30")
        finally:
            go.set()
        assert [each.result().body for each in first] == [b"zip"] * 2
    assert ask(port, "/api/v1/export").status == 200, "a place is free again"


def test_an_export_is_sent_event_by_event_and_leaves_out_what_was_deleted(served: tuple[Service, int]) -> None:
    service, _ = served
    found = [events.event_of(service.store.read, f"e{number}") for number in (1, 2, 3)]
    parts = archived(service.store, found)
    data = [next(parts)]
    assert DATA in data[0]
    with service.store.write() as transaction:
        remove_files(service.store, delete_events(transaction, ["e2"]))
    data += parts
    assert max(map(len, data)) < 2000, "no part has more than one event"
    with zipfile.ZipFile(io.BytesIO(b"".join(data))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["e1.webp", "e3.webp", "events.json"]
        assert [each["event"]["id"] for each in json.loads(archive.read("events.json"))] == ["e1", "e3"]
    empty = zipfile.ZipFile(io.BytesIO(b"".join(archived(service.store, []))))
    assert json.loads(empty.read("events.json")) == []
