"""Deleting events: rows and files together, nothing of what others need, and everybody who looks hears of it."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.service import CLIP, Everything, camera_facts, check_assets, news, run_facts, site
from support.web import ask, send_json

from ovavel.service.config.site import Camera
from ovavel.service.evidence import files
from ovavel.service.failpoints import VARIABLE
from ovavel.service.store import assets, cameras, events, outbox
from ovavel.service.store.assets import MediaFile
from ovavel.service.store.care.invariants import violations
from ovavel.service.store.database import Database, rows
from ovavel.service.store.people import read_audit
from ovavel.service.watch.service import Service
from ovavel.service.web.server import Server

pytestmark = pytest.mark.timeout(300)
ROOT = Path(__file__).parents[4]
SINKS = (Everything("heard"), Everything("away"))


def fill(store: Database) -> None:
    """Three events: e1 and e2 have ended and have a file, e3 is open. The sink "heard" got the start of e1 alone."""
    with store.write() as transaction:
        cameras.open_run(transaction, run_facts("run-1", "yard"))
        for number in (1, 2, 3):
            events.record(transaction, news("start", number), event_id=f"e{number}", now_us=number, sinks=SINKS)
    (first, *_) = outbox.due(store.read, "heard", now_us=9)
    with store.write() as transaction:
        outbox.delivered(transaction, first, now_us=5)
        for number in (1, 2):
            events.record(transaction, news("end", number), event_id="", now_us=6, sinks=SINKS[:1])
            assets.expect(transaction, f"e{number}", ("snapshot",))
        for each in outbox.due(transaction, "away", now_us=9):
            outbox.suppressed(transaction, each, now_us=7, cause="snoozed")
    for number in (1, 2):
        path = assets.path_of("yard", "2026-11-29", f"e{number}", "snapshot")
        digest = files.write(store.folder / path, b"data")
        file = MediaFile(path=path, bytes=4, sha256=digest, start_us=0, end_us=1, has_audio=False, codec="webp")
        with store.write() as transaction:
            assert assets.ready(transaction, f"e{number}", "snapshot", file)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Service, int]]:
    """A camera that was never started, with `fill`."""
    with Service(site(tmp_path, Camera(id="yard", source=CLIP))) as service:
        fill(service.store)
        server = Server(service, host="127.0.0.1", port=0, token=None)
        server.start()
        try:
            yield service, server.port
        finally:
            server.stop()


def test_an_event_goes_with_its_files_and_readers_hear_of_it(served: tuple[Service, int]) -> None:
    service, port = served
    store = service.store
    before = rows(store.read, "SELECT * FROM account")
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET", "/api/v1/stream")
        stream = connection.getresponse()
        assert stream.readline() == b"event: now\n"
        assert ask(port, "/api/v1/events/e1", "DELETE").status == 204
        while (line := stream.readline()) != b"event: deleted\n":
            assert line
        assert stream.readline() == b'data: {"ids":["e1"]}\n'
    assert ask(port, "/api/v1/events/e1").status == 404
    assert ask(port, "/api/v1/events/e1", "DELETE").status == 404
    assert not list(store.folder.glob("media/**/e1.*"))
    assert violations(store.read, store.folder) == []
    check_assets(store)
    assert rows(store.read, "SELECT * FROM account") == before
    kept = rows(store.read, "SELECT sink, state FROM outbox WHERE event_id = 'e1' ORDER BY id")
    assert kept == [("heard", "delivered"), ("heard", "pending")], "who heard of the start hears of the end"
    assert [each.body.id for each in events.log_after(store.read, 0)] == ["e2", "e3", "e2"]
    (entry,) = [each for each in read_audit(store.read) if each.what == "delete event"]
    assert (entry.who, entry.detail["event"], entry.detail["camera"]) == ("local", "e1", "yard")


def test_what_is_open_or_pinned_stays_and_of_several_all_go_or_none(served: tuple[Service, int]) -> None:
    service, port = served
    refused = ask(port, "/api/v1/events/e3", "DELETE")
    assert (refused.status, "has not ended" in refused.json["title"]) == (409, True)
    send_json(port, "/api/v1/events/e2", {"pinned": True}, "PATCH")
    assert "unpin it" in ask(port, "/api/v1/events/e2", "DELETE").json["title"]
    for wrong, status in (("e3", 409), ("e2", 409), ("none", 404)):
        assert send_json(port, "/api/v1/events:delete", {"ids": ["e1", wrong]}).status == status
    assert len(rows(service.store.read, "SELECT 1 FROM event")) == 3
    assert not [each for each in read_audit(service.store.read) if each.what == "delete event"]
    send_json(port, "/api/v1/events/e2", {"pinned": False}, "PATCH")
    assert send_json(port, "/api/v1/events:delete", {"ids": ["e1", "e2", "e1"]}).json == {"changed": 2}
    assert ask(port, "/events").text.count("data-event=") == 1
    assert violations(service.store.read, service.store.folder) == []


def test_a_refused_method_is_answered_with_all_that_the_address_takes(served: tuple[Service, int]) -> None:
    _, port = served
    answer = ask(port, "/api/v1/events/e1", "PUT")
    assert (answer.status, answer.headers["allow"]) == (405, "DELETE, GET, HEAD, PATCH")


DELETER = """
import sys
from pathlib import Path
from ovavel.service.evidence.deletion import delete_events, remove_files
from ovavel.service.store.database import Database
with Database.open(Path(sys.argv[1]), ballast_bytes=0) as store:
    with store.write() as transaction:
        paths = delete_events(transaction, ["e1", "e2"])
    remove_files(store, paths)
"""


@pytest.mark.parametrize(
    "failpoint", ["store.before-commit", "store.after-commit", "asset.rows-removed", "asset.file-removed"]
)
def test_kill_9_while_deleting_leaves_nothing_behind(tmp_path: Path, failpoint: str) -> None:
    with Database.open(tmp_path, ballast_bytes=0) as store:
        with store.write() as transaction:
            cameras.add_camera(transaction, camera_facts("yard"), now_us=0)
        fill(store)
    environment = {**os.environ, VARIABLE: failpoint}
    run = subprocess.run([sys.executable, "-c", DELETER, str(tmp_path)], env=environment, cwd=ROOT, timeout=110)
    assert run.returncode == -signal.SIGKILL
    with Database.open(tmp_path, ballast_bytes=0) as store:
        files.recover_assets(store)
        check_assets(store)
        assert violations(store.read, store.folder) == []
        assert len(rows(store.read, "SELECT 1 FROM event")) in (1, 3)
