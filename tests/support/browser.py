"""A page in Chromium, driven by Playwright."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support.needed import program_path

__all__ = ["chromium_page"]

_WITHIN_MS = 90_000


@contextmanager
def chromium_page(*arguments: str, **options: Any) -> Iterator[Any]:
    """A page of a browser started with these arguments; an error or a dialog of a script fails the test."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright drives the browser")
    chromium = program_path("chromium")
    faults: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", *arguments], timeout=_WITHIN_MS
        )
        page = browser.new_page(**options)
        page.set_default_timeout(_WITHIN_MS)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: faults.append(dialog.message))
        yield page
        browser.close()
    assert faults == []
