"""Events on the page and in the API: filters, days, groups, why, what people say of them, export."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest
from support.service import CLIP, news, run_facts, site
from support.web import ask, send_json

from ovavel.service.config.site import Camera
from ovavel.service.store import cameras, events, seconds
from ovavel.service.store.people import read_audit
from ovavel.service.store.seconds import Packed
from ovavel.service.watch.service import Service
from ovavel.service.web.events.page import _bounds
from ovavel.service.web.server import Server

pytestmark = pytest.mark.timeout(300)

S = 1_000_000
NOON = 1_795_953_600 * S  # 2026-11-29, 12:00 UTC
NAME = "<i>Yard</i> & 'gate'"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Service, int]]:
    """Four events of two cameras that were never started: three that belong together, one on the day before."""
    watched = (Camera(id="yard", name=NAME, source=CLIP, tz="Europe/Berlin"), Camera(id="hall", source=CLIP))
    with Service(site(tmp_path, *watched)) as service:
        with service.store.write() as transaction:
            seconds.keep_vocabulary(transaction, "1", ["dog barking", "other"])
            for camera in ("yard", "hall"):
                cameras.open_run(transaction, run_facts(f"run-{camera}", camera))
            for number, (camera, start_us) in enumerate(
                (("yard", NOON), ("hall", NOON + 5 * S), ("yard", NOON + 50 * S), ("yard", NOON - 86_400 * S)), 1
            ):
                facts = {"run": f"run-{camera}", "start_us": start_us, "end_us": start_us + 4 * S}
                event = news("start", number, **facts)
                events.record(transaction, event, event_id=f"e{number}", now_us=start_us, sinks=())
                best = ((0, 0.8), (1, 0.2))
                why = Packed(label=0, margin=0.3, missing=("audio",), seen=best, heard=(), fused=())
                packed = msgspec.msgpack.encode(why)
                seconds.keep_seconds(transaction, f"run-{camera}", [(start_us, packed)], number=number)
                events.record(transaction, news("end", number, **facts), event_id="", now_us=start_us, sinks=())
        server = Server(service, host="127.0.0.1", port=0, token=None)
        server.start()
        try:
            yield service, server.port
        finally:
            server.stop()


def ids(port: int, query: str) -> list[str]:
    answer = ask(port, f"/api/v1/events?{query}")
    assert answer.status == 200, answer.text
    return [each["id"] for each in answer.json["events"]]


def test_what_people_say_is_kept_found_and_on_record(served: tuple[Service, int]) -> None:
    service, port = served
    answer = send_json(port, "/api/v1/events/e1", {"verdict": "not this", "pinned": True}, "PATCH")
    assert (answer.status, answer.json["verdict"], answer.json["pinned"]) == (200, "not this", True)
    assert answer.json["reviewed_by"] == "local"
    assert ids(port, "verdict=not%20this") == ids(port, "pinned=true") == ids(port, "reviewed=true") == ["e1"]
    assert ids(port, "reviewed=false") == ["e3", "e2", "e4"]
    assert send_json(port, "/api/v1/events/e1", {"verdict": None, "reviewed": False}, "PATCH").json["revision"] == 6
    assert send_json(port, "/api/v1/events:bulk", {"ids": ["e2", "e3", "e2"], "reviewed": True}).json == {"changed": 2}
    assert "reviewed_us" not in send_json(port, "/api/v1/events/e2", {"reviewed": False}, "PATCH").json
    assert ids(port, "reviewed=true") == ["e3", "e1"]
    details = [each.detail for each in read_audit(service.store.read)]
    assert {"event": "e1", "verdict": "not this", "pinned": True} in details
    assert len([each for each in details if each["event"] == "e2"]) == 2


def test_of_several_events_all_change_or_none(served: tuple[Service, int]) -> None:
    _, port = served
    assert send_json(port, "/api/v1/events:bulk", {"ids": ["e1", "none"], "reviewed": True}).status == 404
    assert ids(port, "reviewed=true") == []
    for wrong in ({"ids": []}, {"ids": ["e1"], "verdict": "perhaps"}, {"ids": ["e1"], "x": 1}, {"ids": "e1"}, []):
        assert send_json(port, "/api/v1/events:bulk", wrong).status == 422, wrong
    assert send_json(port, "/api/v1/events/none", {"reviewed": True}, "PATCH").status == 404


def test_groups_days_and_names(served: tuple[Service, int]) -> None:
    _, port = served
    page = ask(port, "/events").text
    assert page.count('class="group"') == 1
    assert "3 times, &lt;i&gt;Yard&lt;/i&gt; &amp; &#39;gate&#39;, hall" in page
    assert "<i>Yard" not in page
    assert page.count("data-event=") == 4
    assert "13:00:00</time>" in page, "in the camera's own zone"
    assert ask(port, "/events?day=2026-11-28").text.count("data-event=") == 1
    day = ask(port, "/events?day=2026-11-29").text
    assert (day.count("data-event="), day.count("<rect ")) == (3, 3)
    assert 'x="43200"' in day, "noon, in the site's zone"
    assert 'x="46800"' in ask(port, "/events?day=2026-11-29&camera=yard").text, "in the camera's zone"
    assert ask(port, "/events?camera=&label=&state=&day=").text.count("data-event=") == 4


@pytest.mark.parametrize(
    ("day", "hours"), [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25), (date(2026, 11, 29), 24)]
)
def test_a_day_has_as_many_hours_as_it_has(day: date, hours: int) -> None:
    begin_us, end_us = _bounds(day, ZoneInfo("Europe/Berlin"))
    assert end_us - begin_us == hours * 3600 * S


def test_the_page_of_an_event_says_why(served: tuple[Service, int]) -> None:
    _, port = served
    page = ask(port, "/events/e1").text
    assert "dog barking" in page
    assert "no audio" in page
    (second,) = ask(port, "/api/v1/events/e1/seconds").json
    assert second["seen"][0] == {"label": "dog barking", "value": 0.8}
    assert second["missing"] == ["audio"]


def test_an_export_has_all_that_is_known(served: tuple[Service, int]) -> None:
    _, port = served
    answer = ask(port, "/api/v1/export?camera=yard")
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        found = json.loads(archive.read("events.json"))
    assert [each["event"]["id"] for each in found] == ["e3", "e1", "e4"]
    assert [each["kind"] for each in found[0]["log"]] == ["start", "end"]
    assert found[0]["seconds"][0]["margin"] == 0.3


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/events?camera=none", 404),
        ("/events?day=yesterday", 400),
        ("/events?day=9999-12-31", 400),
        ("/events?state=x", 400),
        ("/events?sort=x", 400),
        ("/events?cursor=%00", 400),
        ("/events?state=open&state=ended", 400),
        ("/events/none", 404),
        ("/none", 404),
        ("/api/v1/events?camera=none", 404),
        ("/api/v1/events?reviewed=perhaps", 400),
        ("/api/v1/events?from=99999999999999999999", 400),
        ("/api/v1/events?limit=0", 400),
        ("/api/v1/none", 404),
    ],
)
def test_errors_are_pages_for_people_and_documents_for_programs(
    served: tuple[Service, int], path: str, status: int
) -> None:
    _, port = served
    answer = ask(port, path)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json["status"] == status
    page = ask(port, path, Accept="text/html")
    kind = "application/problem+json" if path.startswith("/api") else "text/html; charset=utf-8"
    assert (page.status, page.headers["content-type"]) == (status, kind)
    assert ask(port, path.split("?")[0], "PUT").status in (404, 405)
