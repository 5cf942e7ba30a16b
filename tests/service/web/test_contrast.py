"""Text on every page, light and dark, is as readable as WCAG 2.2 AA asks (1.4.3), and what has the focus shows it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.browser import chromium_page
from support.served import PASSWORD, Served, served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PAGES = (
    "",
    "events",
    "events/e1",
    "search",
    "words",
    "words?name=a+new+name",
    "preview",
    "health",
    "settings",
    "nowhere",
)

TOO_FAINT = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const over = (top, below) => {
    const alpha = top[3] ?? 1;
    return [0, 1, 2].map((at) => top[at] * alpha + below[at] * (1 - alpha));
  };
  const background = (element) => {
    const layers = [];
    for (let each = element; each; each = each.parentElement) {
      layers.push(parse(getComputedStyle(each).backgroundColor));
    }
    const dark = matchMedia('(prefers-color-scheme: dark)').matches;
    return layers.reverse().reduce((below, top) => over(top, below), dark ? [18, 18, 18] : [255, 255, 255]);
  };
  const light = (color) => {
    const [red, green, blue] = color.map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const faint = [];
  for (const element of document.querySelectorAll('body *')) {
    const text = [...element.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data).join('').trim();
    const shown = element.matches('input, select, textarea') ? element.value : text;
    if (!shown || !element.checkVisibility({ visibilityProperty: true })) continue;
    if (element.closest('option, [disabled], .skip, script, style')) continue;
    const style = getComputedStyle(element);
    const below = background(element);
    let opacity = 1;
    for (let each = element; each; each = each.parentElement) opacity *= getComputedStyle(each).opacity;
    const color = parse(style.color);
    const ink = over([...color.slice(0, 3), (color[3] ?? 1) * opacity], below);
    const [dim, bright] = [light(ink), light(below)].sort((one, two) => one - two);
    const ratio = (bright + 0.05) / (dim + 0.05);
    const size = Number.parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) faint.push(`${ratio.toFixed(2)} ${element.tagName} ${shown.slice(0, 40)}`);
  }
  return faint;
}"""

UNSEEN = """() => {
  const style = getComputedStyle(document.activeElement);
  const outlined = style.outlineStyle !== 'none' && Number.parseFloat(style.outlineWidth) >= 1;
  return outlined || style.boxShadow !== 'none' ? '' : document.activeElement.outerHTML.slice(0, 120);
}"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("site")) as found:
        yield found


def logged_in(page: Any, port: int) -> None:
    page.goto(f"http://127.0.0.1:{port}/login")
    page.get_by_label("Name").fill("anna")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.locator("nav").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_enough_contrast(running: Served, scheme: str) -> None:
    with chromium_page(color_scheme=scheme) as page:
        page.goto(f"http://127.0.0.1:{running.port}/login")
        found = {"login": page.evaluate(TOO_FAINT)}
        logged_in(page, running.port)
        for name in PAGES:
            page.goto(f"http://127.0.0.1:{running.port}/{name}")
            found[name] = page.evaluate(TOO_FAINT)
    assert {name: faint for name, faint in found.items() if faint} == {}


def test_what_is_too_faint_is_found(tmp_path: Path) -> None:
    file = tmp_path / "faint.html"
    file.write_text(
        "<body style='background:#fff'><p style='color:#999'>faint</p><p style='color:#000;opacity:.3'>faded</p>"
        "<p style='color:#767676'>just enough</p><p style='color:#888;font-size:30px'>large</p>"
    )
    with chromium_page() as page:
        page.goto(file.as_uri())
        assert [each.split()[-1] for each in page.evaluate(TOO_FAINT)] == ["faint", "faded"]


@pytest.mark.parametrize("name", ["", "events", "search", "settings"])
def test_every_stop_of_the_tab_key_is_visible(running: Served, name: str) -> None:
    with chromium_page() as page:
        logged_in(page, running.port)
        page.goto(f"http://127.0.0.1:{running.port}/{name}")
        unseen, stops = [], 0
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement === document.body"):
                break
            stops += 1
            unseen.append(page.evaluate(UNSEEN))
    assert stops >= 6
    assert [each for each in unseen if each] == []
