"""The scatter plot: every point is drawn inside it, names do not overlap, nothing is injected."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovavel.runtime.reporting.scatter import Point, scatter_chart

SVG = "{http://www.w3.org/2000/svg}"
POINTS = st.builds(
    Point,
    name=st.text(max_size=12),
    x=st.floats(0, 100),
    y=st.floats(0, 100),
    group=st.sampled_from(["a", "b"]),
    x_deviation=st.floats(0, 5),
    y_deviation=st.floats(0, 5),
    hollow=st.booleans(),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(POINTS, min_size=1, max_size=12))
def test_every_point_is_inside(points: list[Point]) -> None:
    root = ET.fromstring(scatter_chart(points, x_label="seen", y_label="unseen"))
    width, height = (float(each) for each in root.attrib["viewBox"].split()[2:])
    circles = [each for each in root.iter(f"{SVG}circle") if each.find(f"{SVG}title") is not None]
    assert len(circles) == len(points)
    for circle in circles:
        assert 0 < float(circle.attrib["cx"]) < width
        assert 0 < float(circle.attrib["cy"]) < height


def test_numbers_and_names_of_equal_points_are_apart() -> None:
    points = [Point(f"row {number}", 50, 50, "all") for number in range(30)]
    root = ET.fromstring(scatter_chart(points, x_label="x", y_label="y"))
    texts = [(float(each.attrib["x"]), float(each.attrib["y"]), each.text or "") for each in root.iter(f"{SVG}text")]
    beside = sorted(y for x, y, words in texts if words.isdecimal() and x < 650 and int(words) <= 30 and x > 60)
    names = sorted(y for _, y, words in texts if words.startswith("row"))
    assert len(names) == 30
    assert all(b - a >= 11 for each in (beside, names) for a, b in pairwise(each))
    height = float(root.attrib["viewBox"].split()[3])
    assert names[-1] < height


def test_names_are_escaped() -> None:
    hostile = '"><script>alert(1)</script>'
    drawn = scatter_chart([Point(hostile, 1, 2, hostile)], x_label=hostile, y_label=hostile)
    assert not re.search(r"<script", drawn)
    with pytest.raises(ValueError, match="needs a point"):
        scatter_chart([], x_label="x", y_label="y")
