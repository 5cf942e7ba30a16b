"""The page and the API of a running site, over HTTP and in a browser."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import web
from support.browser import chromium_page
from support.service import CLIP, site, until

from ovavel.runtime.errors import InputError
from ovavel.service.config.site import Camera
from ovavel.service.store import events
from ovavel.service.watch.service import Service
from ovavel.service.web.server import Server

pytestmark = pytest.mark.timeout(300)  # each wait has 90 s

NAME = "<b>Front</b> \"door\" & 'gate' <script>alert(1)</script>"
TOKEN = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Server]]:
    """A site of one camera with a name that means harm, with a few events already."""
    camera = Camera(id="one", name=NAME, source=CLIP, loop=True, tz="Europe/Berlin")
    with Service(site(tmp_path_factory.mktemp("site"), camera)) as service:
        server = Server(service, host="127.0.0.1", port=0, token=None)
        service.start()
        server.start()
        until(lambda: len(events.log_after(service.store.read, 0)) >= 5)
        yield service, server
        server.stop()


def ask(server: Server, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    return web.ask(server.port, path, **headers)


def ask_json(server: Server, path: str) -> Any:
    status, _, body = ask(server, path)
    assert status == 200, body
    return json.loads(body)


def test_health_and_metrics(running: tuple[Service, Server]) -> None:
    _, server = running
    assert ask_json(server, "/healthz") == {"status": "ok"}
    assert ask_json(server, "/readyz") == {"ready": True, "reasons": []}
    _, headers, body = ask(server, "/metrics")
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b'ovavel_camera_up{camera="one"} 1.0' in body
    assert b"ovavel_windows_total" in body
    counts = b'decision_latency_seconds_count{camera="one"}', b"encoder_batch_size_count", b"db_commit_seconds_count"
    for name in counts:
        (value,) = [line.split()[-1] for line in body.splitlines() if line.startswith(b"ovavel_" + name)]
        assert float(value) > 0
    assert b'engine="onnxruntime-cpu"' in body


def test_a_site_that_sees_nothing_is_not_ready(tmp_path: Path) -> None:
    with Service(site(tmp_path, Camera(id="dead", source=str(tmp_path / "none.mp4")))) as service:
        server = Server(service, host="127.0.0.1", port=0, token=None)
        server.start()
        service.start()
        try:
            until(lambda: service.feeds["dead"].state == "offline")
            status, _, body = ask(server, "/readyz")
            assert status == 503
            assert "none.mp4" in json.loads(body)["reasons"][0]
        finally:
            server.stop()


def test_cameras_their_seconds_and_pictures(running: tuple[Service, Server]) -> None:
    _, server = running
    (camera,) = ask_json(server, "/api/v1/cameras")
    assert (camera["id"], camera["name"], camera["state"]) == ("one", NAME, "watching")
    seconds = ask_json(server, "/api/v1/cameras/one/seconds")
    assert 1 <= len(seconds) <= 10
    assert len(seconds[-1]["seen"]) == len(seconds[-1]["heard"]) == 5
    status, headers, body = ask(server, "/api/v1/cameras/one/snapshot.webp")
    assert (status, headers["content-type"], body[8:12]) == (200, "image/webp", b"WEBP")
    assert ask_json(server, "/api/v1/cameras/one/accounts")[0]["final"] > 0


def test_events_come_page_by_page(running: tuple[Service, Server]) -> None:
    service, server = running
    until(lambda: len(ask_json(server, "/api/v1/events")["events"]) >= 3)
    found, cursor = [], ""
    while True:
        page = ask_json(server, f"/api/v1/events?limit=1&to={1 << 60}{cursor}")
        found += page["events"]
        if page["cursor"] is None:
            break
        cursor = f"&cursor={page['cursor']}"
    ids = [each["id"] for each in found]
    assert len(set(ids)) == len(ids) >= 3
    assert sorted(found, key=lambda each: each["start_us"], reverse=True) == found
    assert ask_json(server, f"/api/v1/events/{ids[-1]}")["id"] == ids[-1]
    assert ask(server, "/api/v1/events?camera=other")[0] == 404
    label = found[-1]["label"]
    assert {
        each["label"] for each in ask_json(server, f"/api/v1/events?label={label.replace(' ', '%20')}")["events"]
    } == {label}
    assert service.failure is None


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/events?limit=x", 400),
        ("/api/v1/events?limit=100000", 400),
        ("/api/v1/events?cursor=x", 400),
        ("/api/v1/events?sort=label", 400),
        ("/api/v1/events/none", 404),
        ("/api/v1/cameras/none/seconds", 404),
        ("/api/v1/cameras/none/snapshot.webp", 404),
        ("/events?cursor=x", 400),
        ("/static/../pages.py", 404),
        ("/static/%2e%2e/pages.py", 404),
        ("/none", 404),
    ],
)
def test_what_makes_no_sense_is_answered_as_such(running: tuple[Service, Server], path: str, status: int) -> None:
    assert ask(running[1], path)[0] == status


def test_the_pages_are_whole_and_names_stay_text(running: tuple[Service, Server]) -> None:
    _, server = running
    for path in ("/", "/events", "/health", "/events?camera=one&label=x"):
        status, headers, body = ask(server, path)
        assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert headers["content-security-policy"].startswith("default-src 'self';")
        assert b"<script>" not in body
        assert b"http://" not in body, "nothing comes from elsewhere"
        assert b"https://" not in body
    assert b"&lt;script&gt;" in ask(server, "/")[2]


def test_the_stream_continues_where_a_reader_left(running: tuple[Service, Server]) -> None:
    _, server = running
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", "/api/v1/stream", headers={"Last-Event-ID": "2"})
    answer = connection.getresponse()
    assert answer.getheader("content-type") == "text/event-stream; charset=utf-8"
    ids = []
    while len(ids) < 2:
        line = answer.readline()
        assert line, "the stream ended"
        if line.startswith(b"id: "):
            ids.append(int(line[4:]))
    assert ids == [3, 4]
    connection.close()


def test_another_site_s_page_cannot_ask_through_a_browser(running: tuple[Service, Server]) -> None:
    assert ask(running[1], "/", Host="evil.example")[0] == 421
    assert ask(running[1], "/", Host=f"localhost:{running[1].port}")[0] == 200


def test_others_need_the_token(running: tuple[Service, Server]) -> None:
    service, _ = running
    with pytest.raises(InputError, match="add a user"):
        Server(service, host="0.0.0.0", port=0, token=None)
    server = Server(service, host="127.0.0.1", port=0, token=TOKEN)
    server.start()
    try:
        until(lambda: ask(server, "/healthz")[0] == 200)
        assert ask(server, "/")[0] == 401
        assert ask(server, "/", Authorization="Bearer " + TOKEN[:-1])[0] == 401
        assert ask(server, "/", Authorization="Bearer " + TOKEN, Host="camera.example")[0] == 200
        assert ask(server, "/", Authorization="Bearer ")[0] == 401
    finally:
        server.stop()


def test_a_port_in_use_is_an_error_at_once(running: tuple[Service, Server]) -> None:
    with pytest.raises(InputError, match="cannot listen"):
        Server(running[0], host="127.0.0.1", port=running[1].port, token=None)


@pytest.mark.slow
def test_the_page_lives_in_a_browser(running: tuple[Service, Server]) -> None:
    with chromium_page() as page:
        page.goto(f"http://127.0.0.1:{running[1].port}/")
        page.locator("#link", has_text="live").wait_for()
        page.locator(".both td").first.wait_for()
        assert page.locator("h2").first.inner_text().startswith(NAME)
        page.goto(f"http://127.0.0.1:{running[1].port}/events")
        before = page.locator("#events .event").count()
        page.locator("#events .event").nth(before).wait_for()
        page.goto(f"http://127.0.0.1:{running[1].port}/health")
        page.locator(".accounts td").first.wait_for()
