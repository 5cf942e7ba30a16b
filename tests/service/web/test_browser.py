"""The pages in Chromium: log in, review with keys, mark several, names stay text, nothing is wider than a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.browser import chromium_page
from support.proofs import proof_unless
from support.service import CLIP, news, run_facts, site

from ovavel.service.config.site import Camera
from ovavel.service.store import cameras, events, people
from ovavel.service.watch.service import Service
from ovavel.service.web.access.passwords import hashed
from ovavel.service.web.server import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

NAME = "<img src=x onerror=alert(1)>"
PASSWORD = "correct horse battery"
NOON = 1_795_953_600_000_000


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Service, str]]:
    """Three events of a camera that was never started, far apart, and a user who may review them."""
    with Service(site(tmp_path, Camera(id="one", name=NAME, source=CLIP))) as service:
        with service.store.write() as transaction:
            people.set_user(transaction, "anna", "admin", hashed(PASSWORD), now_us=0)
            cameras.open_run(transaction, run_facts("run-1", "one"))
            for number in (1, 2, 3):
                facts = {"start_us": NOON + number * 600_000_000, "end_us": NOON + number * 600_000_000 + 4_000_000}
                event = news("start", number, label=f"{NAME} {number}", **facts)
                events.record(transaction, event, event_id=f"e{number}", now_us=NOON, sinks=())
                event = news("end", number, label=f"{NAME} {number}", **facts)
                events.record(transaction, event, event_id="", now_us=NOON, sinks=())
        server = Server(service, host="127.0.0.1", port=0, token=None)
        server.start()
        try:
            yield service, f"http://127.0.0.1:{server.port}"
        finally:
            server.stop()


@pytest.fixture
def page(served: tuple[Service, str]) -> Iterator[Any]:
    """A browser of the width of a phone, logged in; what went wrong on its pages fails the test."""
    with chromium_page(viewport={"width": 390, "height": 800}) as page:
        page.goto(f"{served[1]}/events")
        page.get_by_label("Name").fill("anna")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url("**/events")
        yield page


def test_keys_choose_review_and_open(served: tuple[Service, str], page: Any) -> None:
    page.locator("#link", has_text="live").wait_for()
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.locator('.chosen[data-event="e3"]').wait_for()
    page.keyboard.press("j")
    page.keyboard.press("r")
    page.locator('[data-event="e2"].reviewed').wait_for()
    event = events.event_of(served[0].store.read, "e2")
    assert (event.reviewed_by, event.reviewed_us is not None) == ("anna", True)
    page.keyboard.press("Space")
    page.wait_for_url("**/events/e2")
    assert page.locator("h1").inner_text() == f"{NAME} 2", "a name is text"
    page.get_by_role("button", name="Not this").click()
    page.locator('button[value="not this"][aria-pressed="true"]').wait_for()
    assert events.event_of(served[0].store.read, "e2").verdict == "not this"


def test_several_are_marked_and_pinned(served: tuple[Service, str], page: Any) -> None:
    page.locator("#all").check()
    page.locator("#marked", has_text="3 marked").wait_for()
    page.get_by_role("button", name="Pin", exact=True).click()
    page.locator(".badge", has_text="pinned").nth(2).wait_for()
    assert all(events.event_of(served[0].store.read, f"e{n}").pinned for n in (1, 2, 3))


@pytest.mark.parametrize(
    "path",
    proof_unless(("events/e1", "health").__contains__, ["", "events", "events/e1", "words", "health", "settings"]),
)
def test_no_page_is_wider_than_a_phone(served: tuple[Service, str], page: Any, path: str) -> None:
    page.goto(f"{served[1]}/{path}")
    page.locator("h1").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0


def test_a_token_is_shown_once_and_logging_out_ends_it(served: tuple[Service, str], page: Any) -> None:
    page.goto(f"{served[1]}/settings")
    form = page.locator('form[data-api="tokens"]')
    form.locator('input[name="name"]').fill("backup")
    form.get_by_role("button").click()
    # Not `wait_for_function`: it evaluates a string, which the pages forbid.
    form.locator("output", has_text=re.compile(r".{31,}")).wait_for()
    token = form.locator("output").inner_text()
    assert people.find_token(served[0].store.read, token) is not None
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login")
    page.goto(f"{served[1]}/settings")
    page.wait_for_url("**/login?next=settings")


def context_of(page: Any) -> Any:
    """One in which there may be several pages, logged in as `page` is."""
    context = page.context.browser.new_context()
    context.add_cookies(page.context.cookies())
    return context


def test_what_is_deleted_is_gone_from_every_page(served: tuple[Service, str], page: Any) -> None:
    other = context_of(page).new_page()
    other.goto(f"{served[1]}/events")
    page.locator("#link", has_text="live").wait_for()
    other.on("dialog", lambda dialog: dialog.accept())
    other.locator('[data-event="e2"] input').check()
    other.locator('#bulk button[name="delete"]').click()
    for each in (page, other):
        each.locator('[data-event="e2"]').wait_for(state="detached")
        assert each.locator("[data-event]").count() == 2
    page.goto(f"{served[1]}/events/e1")
    page.locator("#link", has_text="live").wait_for()
    other.goto(f"{served[1]}/events/e1")
    other.locator('#one button[name="delete"]').click()
    for each in (page, other):
        each.wait_for_url("**/events")
        each.locator('[data-event="e1"]').wait_for(state="detached")


def test_many_tabs_leave_each_other_a_connection(served: tuple[Service, str], page: Any) -> None:
    show = "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
    show += "document.dispatchEvent(new Event('visibilitychange')) }"
    context, tabs = context_of(page), []
    for _ in range(8):
        tabs.append(tab := context.new_page())
        tab.goto(f"{served[1]}/events")
        tab.locator("#link", has_text="live").wait_for()
        tab.evaluate(show, True)
    tabs[0].evaluate("document.getElementById('link').textContent = ''")
    tabs[0].evaluate(show, False)
    tabs[0].locator("#link", has_text="live").wait_for()
