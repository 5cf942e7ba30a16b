"""Takes `docs/service/*.webp`: each page of `ovavel demo-site`, dark and light, on a desktop and a phone.

*Health* is that of another service, whose cameras see little happen and which decides by agreement, so that economy
saves something.

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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from ovavel.eval.demo.assets import Assets, copy_bundle
from ovavel.eval.demo.world.day import Day
from ovavel.eval.demo.world.mp4 import FPS, write_mp4
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.calibration import Rule

PORT = 8475
OVAVEL = str(Path(sys.executable).with_name("ovavel"))
EVENTS = 6
"""So many are waited for."""
HEALTH_S = 75
"""How long cameras are watched before *Health* is taken: after a minute, their saving is believed."""
PATHS = {
    "now": "",
    "events": "events?state=ended",
    "search": "search?phrase=drum+beating",
    "words": "words",
    "preview": "preview",
    "settings": "settings",
}
SIZES = {"desktop": (1100, 720), "phone": (390, 800)}
MOST_BYTES, MOST_BYTES_WHOLE = 60_000, 100_000


def main(out: str, *asked: str) -> None:
    """Start the demo site, and take the pictures of these pages, or of all."""
    names = asked or (*PATHS, "health")
    with tempfile.TemporaryDirectory() as folder:
        command = [OVAVEL, "demo-site", "--port", str(PORT), "--out", folder]
        service = subprocess.Popen(command)
        try:
            wait_for_events()
            with sync_playwright() as driver:
                browser = driver.chromium.launch(
                    executable_path=shutil.which("chromium"),
                    args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"],
                )
                looks = [(size, scheme) for size in SIZES for scheme in ("light", "dark")]
                for size, scheme in looks:
                    take(browser, Path(out), size, scheme, [name for name in names if name != "health"])
                if "health" in names:
                    with economic_site(Path(folder)) as address:
                        for size, scheme in looks:
                            take_whole(browser, Path(out), size, scheme, address)
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


@contextmanager
def economic_site(folder: Path) -> Iterator[str]:
    """Give the address of *Health* of a service on three quiet cameras, one of which has an archive."""
    copy_bundle(Assets.open().bundle, folder / "agreement")
    Bundle.open(folder / "agreement").save_calibration(None, Rule(kind="agreement"))
    lines = [f'bundle = "agreement"\ndata = "economy"\nname = "demo"\nlisten = "127.0.0.1:{PORT + 1}"']
    for seed, (name, media) in enumerate({"Yard": "true", "Gate": "false", "Hall": "false"}.items()):
        day, clip = Day("sparse", seed, 2 * HEALTH_S), folder / f"{name}.mp4"
        sound = np.concatenate([day.sound(second) for second in range(day.seconds)])
        write_mp4(clip, (day.frame(at / FPS) for at in range(day.seconds * FPS)), sound)
        camera = f'id = "{name.lower()}"\nname = "{name}"\nsource = "{clip}"\nloop = true\nmedia = {media}'
        lines.append(f"[[camera]]\n{camera}")
    site = folder / "economy.toml"
    site.write_text("\n".join(lines), encoding="utf-8")
    service = subprocess.Popen([OVAVEL, "serve", str(site)])
    try:
        time.sleep(HEALTH_S)
        yield f"http://127.0.0.1:{PORT + 1}/health"
    finally:
        service.send_signal(signal.SIGINT)
        service.wait(20)


def take_whole(browser: Browser, out: Path, size: str, scheme: str, address: str) -> None:
    """Take *Health*, all of it: what matters is at its end, too."""
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    page.goto(address)
    page.wait_for_timeout(1000)
    save(page, out / f"health-{size}-{scheme}.webp", whole=True)
    context.close()


def take(browser: Browser, out: Path, size: str, scheme: str, names: Sequence[str]) -> None:
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


def save(page: Page, path: Path, *, whole: bool = False) -> None:
    """Write what is on the screen, or the whole page, as small as it has to be."""
    picture = Image.open(io.BytesIO(page.screenshot(full_page=whole)))
    most = MOST_BYTES_WHOLE if whole else MOST_BYTES
    for quality in (80, 65, 50, 35):
        picture.save(path, "WEBP", quality=quality, method=6)
        if path.stat().st_size <= most:
            return
    raise SystemExit(f"{path} is larger than {most} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
