"""Takes `docs/service/*.webp`: each page of `ovavel demo-site`, dark and light, on a desktop and a phone.

Usage: python docs/service_screenshots.py docs/service [PAGE ...]

It needs Playwright and Chromium, and waits for some events first. It is run by hand after a page has changed.
"""

from __future__ import annotations

import io
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

PORT = 8475
EVENTS = 6
"""So many are waited for."""
PATHS = {
    "now": "",
    "events": "events?state=ended",
    "search": "search?phrase=drum+beating",
    "words": "words",
    "preview": "preview",
    "health": "health",
    "settings": "settings",
}
SIZES = {"desktop": (1100, 720), "phone": (390, 800)}
MOST_BYTES = 60_000


def main(out: str, *names: str) -> None:
    """Start the demo site, and take the pictures of these pages, or of all."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(Path(sys.executable).with_name("ovavel")), "demo-site", "--port", str(PORT), "--out", folder]
        service = subprocess.Popen(command)
        try:
            wait_for_events()
            with sync_playwright() as driver:
                browser = driver.chromium.launch(
                    executable_path=shutil.which("chromium"),
                    args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"],
                )
                for size in SIZES:
                    for scheme in ("light", "dark"):
                        take(browser, Path(out), size, scheme, names or tuple(PATHS))
        finally:
            service.send_signal(signal.SIGINT)
            service.wait(20)


def wait_for_events() -> None:
    """Wait until the service has found some."""
    until_s = time.monotonic() + 180
    while time.monotonic() < until_s:
        try:
            with urlopen(f"http://127.0.0.1:{PORT}/api/v1/events?state=ended", timeout=5) as answer:
                if answer.read().count(b'"label"') >= EVENTS:
                    return
        except OSError:
            pass
        time.sleep(1)
    raise SystemExit("the demo site found too few events")


def take(browser: Browser, out: Path, size: str, scheme: str, names: tuple[str, ...]) -> None:
    """Take each of these pages once."""
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    for name in names:
        page.goto(f"http://127.0.0.1:{PORT}/{PATHS[name]}")
        settle(page, name)
        save(page, out / f"{name}-{size}-{scheme}.webp")
        if name == "events":
            # one whose clip has been made
            page.locator("#events .event", has_text="clip").first.locator("a").first.click()
            page.locator("video").wait_for()
            page.wait_for_timeout(1500)
            save(page, out / f"event-{size}-{scheme}.webp")
    context.close()


def settle(page: Page, name: str) -> None:
    """Wait for what the page fetches."""
    if name == "now":
        lanes = "() => [...document.querySelectorAll('.both')].every(lane => lane.querySelectorAll('td').length > 2)"
        page.wait_for_function(lanes, timeout=120_000)
    if name == "search":
        for _ in range(20):
            page.locator("#progress", has_text="hours searched, 3 of 3").wait_for()
            if page.locator("#hits tr").count():
                break
            page.wait_for_timeout(3000)  # the first seconds are archived together
            page.reload()
    if name == "preview":
        page.get_by_label("Margin to begin, number").fill("0.2")
        page.get_by_label("Margin to continue, number").fill("0.1")
        for _ in range(20):
            page.get_by_role("button", name="Try on the last").click()
            page.locator("#progress", has_text="decided on").wait_for(timeout=180_000)
            if page.locator("#previewed .event").count() >= EVENTS // 2:
                break
            page.wait_for_timeout(3000)  # the first seconds are archived together
        page.locator("#found").scroll_into_view_if_needed()
    page.wait_for_timeout(1000)


def save(page: Page, path: Path) -> None:
    """Write what is on the screen, as small as it has to be."""
    picture = Image.open(io.BytesIO(page.screenshot()))
    for quality in (80, 65, 50, 35):
        picture.save(path, "WEBP", quality=quality, method=6)
        if path.stat().st_size <= MOST_BYTES:
            return
    raise SystemExit(f"{path} is larger than {MOST_BYTES} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
