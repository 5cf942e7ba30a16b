import hashlib
import re
from base64 import b64encode
from pathlib import Path

import pytest

from ovavel.runtime.reporting.assets import asset
from ovavel.runtime.reporting.charts import Bar, bar_charts, ticks
from ovavel.runtime.reporting.page import page
from ovavel.runtime.reporting.palette import DARK, LIGHT, variables

ROOT = Path(__file__).parents[3]
PACKAGES = ("runtime/reporting", "eval/demo")
SHEETS = sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).glob("*.css"))
SCRIPTS = sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).glob("*.js"))


def read(path: Path) -> str:
    return asset(".".join(("ovavel", *path.parent.parts)), path.name)


@pytest.mark.parametrize("path", SHEETS, ids=str)
def test_a_style_sheet_uses_the_colours_of_the_palette_alone(path: Path) -> None:
    used = set(re.findall(r"var\(--(\w+)\)", read(path)))
    assert used <= set(LIGHT)
    assert not re.findall(r"#[0-9a-f]{6}\b", read(path))
    assert "</style" not in read(path)


@pytest.mark.parametrize("path", SCRIPTS, ids=str)
def test_a_script_cannot_end_its_element(path: Path) -> None:
    assert "</script" not in read(path).lower()
    assert "<!--" not in read(path)


def test_both_themes_define_the_same_colours() -> None:
    assert set(LIGHT) == set(DARK)
    assert variables().count("--card:") == 2


def test_only_the_script_of_the_page_may_run() -> None:
    script = read(SCRIPTS[0])
    text = page("title", script=script).decode()
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert f"<script>{script}</script>" in text
    assert "script" not in page("title").decode()


def test_a_picture_holds_its_colours_for_viewers_without_variables() -> None:
    picture = bar_charts([("title", [Bar(0, 0.5, 0.4, 1, "bar")])], x_label="x", y_label="y")
    assert "var(" not in picture
    for theme in (LIGHT, DARK):
        assert f"fill: {theme['card']}" in picture


@pytest.mark.parametrize("high", [0.4, 1, 7.5, 16, 213, 4000])
def test_an_axis_has_few_marks_whatever_its_length(high: float) -> None:
    marks = ticks(0, high)
    assert 4 <= len(marks) <= 8
    assert marks[0] == 0
    assert marks[-1] >= high
