"""A running site whose camera is switched off and on, whose sinks are tried, and what each of them got."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.service import CLIP, site, until
from support.web import ask, send_json

from ovavel.service.config.sinks import Jsonl, Webhook
from ovavel.service.config.site import Camera
from ovavel.service.store import accounts
from ovavel.service.store.database import Database, rows
from ovavel.service.watch.service import Service
from ovavel.service.web.server import Server

pytestmark = pytest.mark.timeout(300)  # each wait has 90 s

SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Service, int]]:
    """A site with a camera and two sinks: a file, and a receiver that is not there."""
    sinks = (
        Jsonl(id="log", path=str(tmp_path / "log.jsonl")),
        Webhook(id="hook", address="http://127.0.0.1:9/", secret=SECRET, when="early"),
    )
    with Service(site(tmp_path, Camera(id="one", source=CLIP, loop=True), sink=sinks)) as service:
        server = Server(service, host="127.0.0.1", port=0, token=None)
        service.start()
        server.start()
        yield service, server.port
        server.stop()


def lines(tmp_path: Path) -> list[dict[str, object]]:
    """Whole ones: the last may be half-written."""
    path = tmp_path / "log.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def test_a_site_reports_its_events_and_can_be_switched_and_tried(running: tuple[Service, int], tmp_path: Path) -> None:
    service, port = running
    until(lambda: any(each["type"] == "event.end" for each in lines(tmp_path)))
    assert lines(tmp_path)[0]["incident"] == "service started"

    until(lambda: ask(port, "/api/v1/outbox").json[0]["results"].get("delivered", 0) >= 2)
    log, hook = ask(port, "/api/v1/outbox").json
    assert (log["id"], log["kind"], log["state"]) == ("log", "jsonl", "working")
    until(lambda: ask(port, "/api/v1/outbox").json[1]["state"] == "failing")
    assert hook["pending"] >= 1
    metrics = ask(port, "/metrics").text
    assert 'ovavel_deliveries_total{result="delivered",sink="log"}' in metrics
    assert 'ovavel_outbox_pending{sink="hook"}' in metrics
    assert "ovavel_outbox_oldest_seconds" in metrics

    assert send_json(port, "/api/v1/outbox/log/test", {}).json == {"delivered": True, "why": ""}
    assert [each["incident"] for each in lines(tmp_path) if "incident" in each][-1] == "test message"
    tried = send_json(port, "/api/v1/outbox/hook/test", {}).json
    assert not tried["delivered"]
    assert tried["why"]
    assert send_json(port, "/api/v1/outbox/none/test", {}).status == 404

    assert send_json(port, "/api/v1/cameras/one/enable", {"on": False}).status == 204
    until(lambda: ask(port, "/api/v1/cameras").json[0]["state"] == "off")
    until(lambda: rows(service.store.read, "SELECT 1 FROM run WHERE end_cause = 'switched off'"))
    assert service.feeds["one"].pid is None
    assert send_json(port, "/api/v1/cameras/one/enable", {"on": True}).status == 204
    until(lambda: ask(port, "/api/v1/cameras").json[0]["state"] == "watching")
    # Time in which it is switched off is no gap; it is in the store when the next run is.
    until(lambda: accounts.read_accounts(service.store.read, "one", from_us=0, to_us=2**62)[-1].off_us > 0)

    assert send_json(port, "/api/v1/cameras/one/snooze", {"hours": 4}).status == 204
    assert service.cameras_now()[0].snoozed_until_us
    assert send_json(port, "/api/v1/cameras/one/snooze", {"hours": 0}).status == 204
    assert service.cameras_now()[0].snoozed_until_us is None
    for path, value in (
        ("enable", {"on": 3}),
        ("enable", {}),
        ("snooze", {"hours": -1}),
        ("snooze", {"hours": 1e9}),
        ("snooze", {"hours": 1, "until": 3}),
    ):
        assert send_json(port, f"/api/v1/cameras/one/{path}", value).status == 422
    assert send_json(port, "/api/v1/cameras/none/enable", {"on": True}).status == 404
    assert [each["incident"] for each in ask(port, "/api/v1/incidents").json][-1] == "service started"
    assert {each["what"] for each in ask(port, "/api/v1/audit").json} == {"enable camera", "snooze"}
    assert service.failure is None


def test_a_camera_that_was_switched_off_stays_off_and_what_waits_is_delivered_by_the_next_service(
    tmp_path: Path,
) -> None:
    camera = Camera(id="one", source=CLIP, loop=True)
    log = Jsonl(id="log", path=str(tmp_path / "mount" / "log.jsonl"))
    with Service(site(tmp_path, camera, sink=(log,))) as service:
        service.start()
        until(lambda: rows(service.store.read, "SELECT 1 FROM event WHERE state = 'ended'"))
        service.enable("one", False)
    (tmp_path / "mount").mkdir()
    with Service(site(tmp_path, camera, sink=(log,))) as service:
        service.start()
        until(lambda: service.feeds["one"].state == "off")
        until(lambda: not service.deliveries.states[0].pending)
        assert service.feeds["one"].restarts == 0
        ended = {event for (event,) in rows(service.store.read, "SELECT id FROM event WHERE state = 'ended'")}
    delivered = [json.loads(line) for line in (tmp_path / "mount" / "log.jsonl").read_text().splitlines()]
    assert {each["id"] for each in delivered if each["type"] == "event.end"} == ended
    with Database.open(tmp_path / "data", ballast_bytes=0) as store:
        assert not rows(store.read, "SELECT 1 FROM run WHERE ended_us IS NULL")
