"""Settings of a camera are tried on its archive before they are saved: in the API, and on the page in Chromium."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from support.archives import DAY, archive_clip, made_up_model, unit, write_seconds
from support.browser import chromium_page
from support.demo_copies import BUNDLE
from support.served import PASSWORD, Served, served
from support.service import news, until
from support.web import ask, send_json

from ovavel.runtime.archive.changes import Difference
from ovavel.runtime.archive.layout import ContextSecond
from ovavel.runtime.cli import main
from ovavel.runtime.errors import InputError
from ovavel.service.archive.messages import Margins, Trying
from ovavel.service.archive.trial import tried
from ovavel.service.store import events
from ovavel.service.store.queries import Bar
from ovavel.service.web.preview import api
from ovavel.service.web.preview.api import Recorded

pytestmark = pytest.mark.timeout(300)

DAY_S = 86_400


class Site(NamedTuple):
    running: Served
    starts_s: tuple[int, int]
    """When the clip was seen: two days ago, and an hour ago."""

    def preview(self, **asked: Any) -> list[tuple[str, Any]]:
        """The messages of the answer: their kinds and values."""
        headers = self.running.headers("otto")
        answer = send_json(self.running.port, "/api/v1/preview", {"cameras": ["one"], **asked}, **headers)
        assert answer.status == 200, answer.text
        messages = [message.split("\n") for message in answer.text.strip().split("\n\n")]
        return [(kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for kind, data in messages]

    def found(self, **asked: Any) -> list[Any]:
        *found, (end, _) = self.preview(**asked)
        assert end == "end"
        return [value for _, value in found]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with served(tmp_path_factory.mktemp("site")) as running:
        hour_ago_s = int(time.time()) - 3600
        hour_ago_s += 300 - hour_ago_s % 1800  # no midnight of any time zone is inside the clip
        starts = hour_ago_s - 2 * DAY_S, hour_ago_s
        for start_s in starts:
            archive_clip(running.service.store.folder, start_s, camera="one")
        with running.service.store.write() as transaction:
            # As the service has it: not on a whole second. And one with a name that is not searched for any more.
            for number, (label, begin, end) in enumerate([("large dog barking slowly", 13, 19), ("old", 1, 2)], 10):
                span = {
                    name: (starts[1] + at) * 1_000_000 + 400_000 for name, at in (("start_us", begin), ("end_us", end))
                }
                for kind in ("start", "end"):
                    found = news(kind, number, label=label, **span)
                    events.record(transaction, found, event_id=f"e{number}", now_us=0, sinks=())
        yield Site(running, starts)


def relabelled(site: Site, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[tuple[str, float]]:
    """Label and length of what `ovavel relabel` lists."""
    capsys.readouterr()
    folder = str(site.running.service.store.folder)
    assert main(["relabel", "--archive", folder, "--bundle", str(BUNDLE), "--format", "json", *arguments]) == 0
    shown = json.loads(capsys.readouterr().out)["events"]
    starts = [time.mktime(time.strptime(each["start"][:19], "%Y-%m-%dT%H:%M:%S")) for each in shown]
    ends = [time.mktime(time.strptime(each["end"][:19], "%Y-%m-%dT%H:%M:%S")) for each in shown]
    return sorted((each["label"], end - start) for each, start, end in zip(shown, starts, ends, strict=True))


@pytest.mark.parametrize(
    ("asked", "arguments"),
    [
        ({"start_margin": 0.27, "keep_margin": 0.2}, ("--start-margin", "0.27", "--keep-margin", "0.2")),
        ({"min_duration_s": 4, "bridge_s": 0}, ("--min-duration-s", "4", "--bridge-s", "0")),
        ({"fusion": "agreement"}, ("--fusion", "agreement")),
    ],
    ids=["margins", "durations", "rule"],
)
def test_the_events_are_those_that_relabel_lists(
    site: Site, asked: Any, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    found = site.found(**asked)
    shown = [each for day in found for each in day["differences"]]
    after = [(each["label"], (each["end_us"] - each["start_us"]) / 1e6) for each in shown if each["kind"] != "gone"]
    assert sorted(after) == relabelled(site, capsys, *arguments)
    before = [
        (each["label"], (each["before_end_us"] - each["before_start_us"]) / 1e6)
        for each in shown
        if each["kind"] != "new"
    ]
    assert sorted(before) == relabelled(site, capsys)
    assert {each["kind"] for each in shown} - {"kept"}
    counted = [count for day in found for kinds in day["counts"].values() for count in kinds.values()]
    assert sum(counted) == len(shown)
    assert sum(day["seconds"] for day in found) == 80


def test_the_newest_day_comes_first_and_what_is_missing_is_counted(site: Site) -> None:
    found = site.found(start_margin=0.9, keep_margin=0.9)
    assert [day["to_us"] for day in found] == sorted((day["to_us"] for day in found), reverse=True)
    assert found[0]["from_us"] == found[1]["to_us"]
    assert found[-1]["asked_s"] == 7 * DAY_S
    assert {day["other_model"] for day in found} == {0}
    assert [(day["done"], day["days"]) for day in found] == [(at + 1, len(found)) for at in range(len(found))]
    assert (sum(day["recorded"] for day in found), sum(day["unmatched"] for day in found)) == (2, 1)
    linked = [each for day in found for each in day["differences"] if each["event_id"]]
    assert [(each["kind"], each["event_id"], each["label"]) for each in linked] == [
        ("gone", "e10", "large dog barking slowly")
    ]


def test_what_is_not_listed_is_counted(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MOST", 2)
    newest, *before = site.found(days=1.5, min_duration_s=4)
    assert [len(newest["differences"]), newest["left_out"]] == [2, 4]
    assert "kept" not in {each["kind"] for each in newest["differences"]}
    assert sum(count for kinds in newest["counts"].values() for count in kinds.values()) == 6
    assert [each["counts"] for each in before] in ([], [{}]), "the day before that, of which nothing is in the span"


@pytest.mark.parametrize(
    ("asked", "status", "why"),
    [
        ({"cameras": []}, 422, "cameras"),
        ({"cameras": ["nowhere"]}, 404, "no camera 'nowhere'"),
        ({"days": 0}, 422, "days"),
        ({"start_margin": 2}, 422, "start_margin"),
        ({"start_margin": 0.1, "keep_margin": 0.2}, 422, "keep-margin"),
        ({"bridge_s": None}, 422, "bridge_s"),
        ({"fusion": "av2a"}, 422, "all ten seconds"),
        ({"fusion": "clip-prior"}, 422, "benchmarks"),
        ({"fusion": "guess"}, 422, "no decision rule 'guess'"),
        ({"more": 1}, 422, "more"),
    ],
)
def test_what_makes_no_sense_is_refused(site: Site, asked: Any, status: int, why: str) -> None:
    headers = site.running.headers("otto")
    answer = send_json(site.running.port, "/api/v1/preview", {"cameras": ["one"], **asked}, **headers)
    assert answer.status == status
    assert why in answer.json["title"]


NUMBERS = st.none() | st.floats() | st.integers() | st.text(max_size=3)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.fixed_dictionaries(
        {"cameras": st.lists(st.sampled_from(["two", "", "one/", "\x00"]), max_size=2)},
        optional={
            **dict.fromkeys(("start_margin", "keep_margin", "min_duration_s", "bridge_s", "days"), NUMBERS),
            "fusion": st.none() | st.text(max_size=9),
        },
    )
)
def test_any_input_is_answered(site: Site, asked: Any) -> None:
    answer = send_json(site.running.port, "/api/v1/preview", asked, **site.running.headers("otto"))
    assert answer.status in (404, 422)
    assert answer.json["title"]


def test_who_may_ask(site: Site) -> None:
    port, asked = site.running.port, {"cameras": ["one"], "days": 0.1}
    assert send_json(port, "/api/v1/preview", asked).status == 401
    headers = site.running.headers("otto")
    assert send_json(port, "/api/v1/preview", asked, Origin="http://evil.example", **headers).status == 403
    assert ask(port, "/api/v1/preview", "POST", b"{}", Content_Type="text/plain", **headers).status == 415
    assert ask(port, "/preview", Accept="text/html").status == 303
    vera = site.running.headers("vera")
    assert send_json(port, "/api/v1/preview", asked, **vera).status == 403
    assert ask(port, "/preview", Accept="text/html", **vera).status == 403
    assert "Try others" not in ask(port, "/words", Accept="text/html", **vera).text
    assert send_json(port, "/api/v1/search", {"phrases": ["dog"]}, **vera).status == 200, "which changes nothing"
    assert ask(port, "/preview?camera=%3Cscript%3E", Accept="text/html", **headers).status == 404


def deciding() -> list[int]:
    """Processes that decide for this one."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            found += [child.pid] if "ovavel.service.archive.child" in child.cmdline() else []
    return found


def test_who_hangs_up_cancels(site: Site) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", site.running.port, timeout=60)) as connection:
        headers = {"Content-Type": "application/json", **site.running.headers("otto")}
        connection.request("POST", "/api/v1/preview", json.dumps({"cameras": ["one"], "days": 366}), headers)
        until(deciding)
    until(lambda: not deciding())
    assert site.found(days=0.1)


def test_where_the_archive_has_nothing_it_says_so(site: Site) -> None:
    *found, (kind, end) = site.preview(days=0.001)
    if kind == "problem":  # in the first hour of a day, what was seen an hour ago is of the day before
        assert end["title"].startswith("the archive has nothing of these cameras")
        return
    assert [(day["seconds"], day["asked_s"], day["differences"]) for _, day in found] in (
        [(0, 86, [])],
        [(0, 86, [])] * 2,  # midnight
    )


def test_vectors_of_another_model_are_counted(tmp_path: Path) -> None:
    own = Margins(start_margin=None, keep_margin=None, min_duration_s=1, bridge_s=1)
    trying = Trying(
        archive=str(tmp_path),
        bundle=str(BUNDLE),
        cameras={"yard": (own, own)},
        fusion=None,
        from_s=DAY + 5,
        to_s=DAY + 100,
        pooled=False,
    )
    vector = unit(np.ones(64))
    other = [ContextSecond(utc_s=DAY + at, vision=vector, audio=vector) for at in range(10)]
    write_seconds(tmp_path, "yard", made_up_model(), other)
    with pytest.raises(InputError, match="at that time: 1 days of cameras hold vectors of another model"):
        next(tried(trying))
    archive_clip(tmp_path, DAY)
    (found,) = tried(trying)
    assert (found.seconds, found.other_model, found.unreadable) == (35, 5, 0)
    assert {each.kind for each in found.differences} == {"kept"}
    (tmp_path / "context" / "yard" / "2026-11-28" / "header.json").write_bytes(b"")
    (found,) = tried(trying)
    assert (found.seconds, found.other_model, found.unreadable) == (35, 0, 1)
    with pytest.raises(InputError, match="nothing of these cameras"):
        next(tried(replace(trying, cameras={"nowhere": (own, own)})))


def test_an_event_of_the_store_is_found_by_name_and_time() -> None:
    bars = [Bar(f"e{at}", "one", "dog", "ended", at * 1_000_000, (at + 3) * 1_000_000) for at in (0, 10, 20)]
    recorded = Recorded([*bars, Bar("drum", "one", "drum", "ended", 30_000_000, 31_000_000)])

    def found(label: str, start_s: float, end_s: float) -> str | None:
        return recorded.event_of(
            Difference(
                kind="gone",
                label=label,
                start_s=start_s,
                end_s=end_s,
                margin=0.5,
                probability=None,
                before_start_s=start_s,
                before_end_s=end_s,
            )
        )

    assert found("dog", 1, 2) == "e0"
    assert found("dog", 2, 12) == "e10", "the one with more in common"
    assert found("dog", 23, 24) == "e20", "the archive files whole seconds"
    assert found("dog", 15, 16) is None
    assert found("drum", 1, 2) is None
    assert found("cat", 1, 2) is None


@pytest.mark.slow
def test_the_page_tries_settings_and_shows_what_to_save(site: Site) -> None:
    address = f"http://127.0.0.1:{site.running.port}"
    with chromium_page(viewport={"width": 390, "height": 800}) as page:
        page.goto(f"{address}/login")
        page.get_by_label("Name").fill("anna")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        page.goto(f"{address}/words")
        page.get_by_role("link", name="Try others").click()
        page.wait_for_url("**/preview?camera=one")
        assert not page.locator("#save").is_visible()

        page.get_by_label("Margin to begin, number").fill("0.9")
        page.get_by_label("Margin to continue, number").fill("0.5")
        assert page.get_by_label("Margin to begin", exact=True).input_value() == "0.9"
        assert page.locator("#toml").inner_text() == "start_margin = 0.9\nkeep_margin = 0.5"
        page.get_by_role("button", name="Try on the last 7 days").click()
        page.locator("#progress", has_text="days decided on, 1.3 min").wait_for()
        page.locator("#previewed .event.gone a", has_text="large dog barking slowly").wait_for()
        assert page.locator("#previewed section").count() == 2
        assert page.locator("#previewed rect.gone").count() >= 2
        assert "1 of 2 recorded events" in page.locator("#apart").inner_text()
        assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
        page.get_by_role("button", name="Copy").click()
        page.locator("#copied", has_text="cop").wait_for()

        page.get_by_role("button", name="As in force").click()
        page.locator("#save").wait_for(state="hidden")
        page.get_by_label("Decision rule").select_option("agreement")
        page.locator("#rule", has_text="holds for all cameras").wait_for()
        page.get_by_label("Margin to continue, number").fill("1")
        page.get_by_label("Margin to begin, number").fill("0.1")
        page.get_by_role("button", name="Try on the last 7 days").click()
        page.locator("#alert", has_text="keep-margin").wait_for()
