"""A name is added on the page Words in Chromium while a camera is watched; an event of it is found; then it goes."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.browser import chromium_page
from support.renamed import DOG, renamed_site
from support.running_site import decided, running, runs
from support.service import until

from ovavel.service.web.server import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SCRIPT = "<img src=x onerror=alert(1)>"


def test_a_name_is_added_found_and_removed(tmp_path: Path) -> None:
    path = renamed_site(tmp_path, DOG)
    with running(path) as (service, reloader):
        server = Server(service, host="127.0.0.1", port=0, token=None, reloader=reloader)
        server.start()
        try:
            with chromium_page(viewport={"width": 390, "height": 800}) as page:
                address = f"http://127.0.0.1:{server.port}"
                until(lambda: decided(service, "gate") > 0)
                page.goto(f"{address}/words")
                for name in (SCRIPT, DOG):
                    page.get_by_label("Name", exact=True).fill(name)
                    page.get_by_role("button", name="Look at it first").click()
                    page.get_by_role("heading", name=f"What “{name}” would have found").wait_for()
                    page.get_by_role("button", name=f"Add “{name}”").click()
                    page.locator("tbody th", has_text=name).wait_for(timeout=90_000)
                    assert page.url == f"{address}/words"
                assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0

                until(lambda: [cause for _, cause in runs(service, "gate")] == ["names changed", "names changed", None])
                page.goto(f"{address}/events?label={DOG}")
                page.locator("#events .event", has_text=DOG).first.wait_for(timeout=90_000)

                page.goto(f"{address}/words?name={DOG}")
                page.locator(".trouble", has_text="already has").wait_for()
                page.evaluate("window.confirm = () => true")
                page.get_by_role("button", name=f"Remove {SCRIPT}").click()
                page.wait_for_url("**/words")
                assert page.locator("tbody th", has_text=SCRIPT).count() == 0
                assert SCRIPT not in service.bundle.vocabulary.names
        finally:
            server.stop()
