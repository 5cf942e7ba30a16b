"""What a camera showed is found by words that nobody had configured: in the API, and on the pages in Chromium."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import psutil
import pytest
from support.browser import chromium_page
from support.renamed import DOG, renamed_site
from support.service import until
from support.web import send_json

from ovavel.service.archive.messages import Looking
from ovavel.service.config.read import read_site
from ovavel.service.store.database import rows
from ovavel.service.watch.reload import Reloader
from ovavel.service.watch.service import Service
from ovavel.service.web.search import questions
from ovavel.service.web.server import Server

pytestmark = pytest.mark.timeout(300)


class Served(NamedTuple):
    service: Service
    port: int

    def search(self, **asked: Any) -> list[tuple[str, Any]]:
        """The messages of the answer: their kinds and values."""
        answer = send_json(self.port, "/api/v1/search", asked)
        assert answer.status == 200, answer.text
        assert answer.headers["content-type"].startswith("text/event-stream")
        messages = [message.split("\n") for message in answer.text.strip().split("\n\n")]
        return [(kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for kind, data in messages]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A camera that is watched with a bundle that lacks one name, of which the archive has a minute or so."""
    path = renamed_site(tmp_path_factory.mktemp("site"), DOG)
    with Service(read_site(path), file=path) as service:
        reloader = Reloader(service, path)
        server = Server(service, host="127.0.0.1", port=0, token=None, reloader=reloader)
        service.start()
        server.start()
        camera = service.site.camera[0].id
        until(lambda: service.archivist.written[camera] >= 40)
        yield Served(service, server.port)
        server.stop()
        reloader.stop()


def test_words_that_are_no_names_are_found_newest_day_first_and_ranked(served: Served) -> None:
    assert DOG not in served.service.bundle.vocabulary.names
    *found, (end, _) = served.search(phrases=[DOG], limit=10)
    assert end == "end"
    assert [kind for kind, _ in found] == ["found"] * len(found)
    assert [value["last"] for _, value in found] == [False] * (len(found) - 1) + [True]
    last = found[-1][1]
    assert last["seconds"] >= 40
    scores = [hit["score"] for hit in last["hits"]]
    assert scores == sorted(scores, reverse=True)
    best = last["hits"][0]
    assert best["event"]
    assert best["label"] == DOG
    assert best["start_us"] <= best["peak_us"] < best["end_us"]


def test_an_event_of_the_store_at_that_time_is_named(served: Served) -> None:
    until(lambda: rows(served.service.store.read, "SELECT 1 FROM event WHERE state = 'ended'"))
    label, start_us, end_us = rows(
        served.service.store.read,
        "SELECT label, start_us, end_us FROM event WHERE state = 'ended' ORDER BY end_us LIMIT 1",
    )[0]
    camera = served.service.site.camera[0].id
    until(lambda: served.service.archivist.written[camera] * 1e6 > end_us - start_us)
    found = served.search(phrases=[label], from_us=start_us, to_us=end_us + 1)[-2][1]
    known = {each for (each,) in rows(served.service.store.read, "SELECT id FROM event WHERE label = ?", (label,))}
    assert {hit["event_id"] for hit in found["hits"]} & known


@pytest.mark.parametrize(
    ("asked", "status", "why"),
    [
        ({"phrases": []}, 422, "phrases"),
        ({}, 422, "phrases"),
        ({"phrases": ["dog"], "limit": 0}, 422, "limit"),
        ({"phrases": ["dog"], "cameras": ["nowhere"]}, 404, "no camera 'nowhere'"),
        ({"phrases": ["dog"], "from_us": -1}, 422, "from_us"),
        ({"phrases": ["dog"], "from_us": 5, "to_us": 5}, 422, "not before"),
        ({"phrases": ["dog"], "more": 1}, 422, "more"),
        ({"phrases": ["dog"], "evidence": "smelt"}, 422, "smelt"),
    ],
)
def test_what_makes_no_sense_is_refused(served: Served, asked: Any, status: int, why: str) -> None:
    answer = send_json(served.port, "/api/v1/search", asked)
    assert answer.status == status
    assert why in answer.json["title"]


def test_a_phrase_that_cannot_be_embedded_is_a_problem_that_says_why(served: Served) -> None:
    ((kind, value),) = served.search(phrases=["a\x00b"])
    assert kind == "problem"
    assert value["title"]


def test_only_two_search_at_once(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "Searching", Slow)
    with closing(hung_up_later(served.port)), closing(hung_up_later(served.port)):
        until(lambda: len(Slow.running) == 2)
        answer = send_json(served.port, "/api/v1/search", {"phrases": ["dog"]})
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    until(lambda: not Slow.running)
    monkeypatch.undo()
    assert served.search(phrases=[DOG])[-1][0] == "end"


class Slow:
    """A search that finds nothing for as long as somebody waits."""

    running: ClassVar[list[Slow]] = []

    def __init__(self, looking: Looking) -> None:
        self.over = threading.Event()
        self.running.append(self)

    def answers(self) -> Iterator[Any]:
        self.over.wait()
        yield from ()

    def close(self) -> None:
        self.over.set()
        self.running.remove(self)


def hung_up_later(port: int) -> http.client.HTTPConnection:
    """A connection that has asked, and reads no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/api/v1/search", json.dumps({"phrases": ["dog"]}), {"Content-Type": "application/json"})
    return connection


def searching() -> list[int]:
    """Processes that search for this one."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            found += [child.pid] if "ovavel.service.archive.child" in child.cmdline() else []
    return found


def test_who_hangs_up_cancels(served: Served) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)) as connection:
        body = json.dumps({"phrases": ["something that nobody ever searched for"]})
        connection.request("POST", "/api/v1/search", body, {"Content-Type": "application/json"})
        until(searching)
    until(lambda: not searching())
    assert served.search(phrases=[DOG])[-1][0] == "end"


def test_without_an_archive_it_says_so(tmp_path: Path) -> None:
    path = renamed_site(tmp_path, DOG, more="[keep]\narchive_gb = 0\n")
    with Service(read_site(path), file=path) as service:
        server = Server(service, host="127.0.0.1", port=0, token=None)
        server.start()
        answer = send_json(server.port, "/api/v1/search", {"phrases": ["dog"]})
        server.stop()
    assert answer.status == 409
    assert "no archive" in answer.json["title"]


@pytest.mark.slow
def test_the_page_shows_hits_and_leads_to_a_preview_of_the_name(served: Served) -> None:
    with chromium_page() as page:
        page.goto(f"http://127.0.0.1:{served.port}/search")
        page.get_by_label("Look for").fill(DOG)
        page.get_by_role("button", name="Search").click()
        page.locator("#hits tr").first.wait_for()
        page.locator("#progress", has_text="hours searched").wait_for()
        assert "yes" in page.locator("#hits tr").first.inner_text()
        assert page.locator("#days .bar").count() >= 1
        page.get_by_role("link", name="Make it a name").click()
        page.wait_for_url("**/words?name=**")
        page.locator("[data-preview]", has_text="on the last day, of which the archive has").wait_for()
        assert not page.locator("[data-preview]").inner_text().startswith("0 events")
        page.locator("section li").first.wait_for()


@pytest.mark.slow
def test_a_search_that_replaces_another_can_be_cancelled(served: Served) -> None:
    with chromium_page() as page:
        page.route("**/api/v1/search", lambda route: None)  # none is answered
        page.goto(f"http://127.0.0.1:{served.port}/search?phrase=first")
        cancel = page.get_by_role("button", name="Cancel")
        cancel.wait_for()
        with page.expect_request("**/api/v1/search"):
            page.get_by_role("button", name="Search").click()
        page.evaluate("new Promise((done) => setTimeout(done))")  # the first one has ended
        assert page.locator("#progress").inner_text() == "searching…"
        assert cancel.is_visible()
        cancel.click()
        page.locator("#progress", has_text="searching… – cancelled").wait_for()
        assert not cancel.is_visible()


@pytest.mark.slow
def test_a_phrase_in_the_address_is_text_and_is_searched_for(served: Served) -> None:
    with chromium_page() as page:
        page.goto(f"http://127.0.0.1:{served.port}/search?phrase=%22%3E%3Cscript%3Ealert(1)%3C/script%3E")
        page.locator("#progress", has_text="searched").wait_for()
        assert page.get_by_label("Look for").input_value() == '"><script>alert(1)</script>'
