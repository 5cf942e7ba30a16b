"""What was reported beside the truth: on the terminal and on the page."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import NAMES
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from support.eval.demo import SECONDS

from ovavel.eval.accuracy.metrics import Scores
from ovavel.eval.demo.comparison import Comparison, compare
from ovavel.eval.demo.report import to_html
from ovavel.eval.demo.terminal import side_by_side
from ovavel.runtime.errors import UsageError
from ovavel.runtime.results import Localization
from ovavel.runtime.types import Event


def spans(localization: Localization, *spans: tuple[str, float, float]) -> Localization:
    """`localization` with other events, and every second decided as the background."""
    events = (
        Event(id=n, label=label, start_s=a, end_s=b, peak_score=1, peak_margin=1, state="end", vocabulary_version="")
        for n, (label, a, b) in enumerate(spans)
    )
    scores = tuple(replace(scores, label="other") for scores in localization.scores)
    return replace(localization, events=tuple(events), scores=scores)


def test_seconds_belong_to_the_reported_event(localization: Localization) -> None:
    dog, car, bird = NAMES
    reported = spans(localization, (dog, 0, 4), (car, 2, 3), (bird, 6, 7))
    scores = list(reported.scores)
    scores[2] = replace(scores[2], label=car)  # a pause that dog bridges
    scores[9] = replace(scores[9], label=bird)  # too weak to be reported
    truth = (dog, dog, car, dog, *[""] * (SECONDS - 4))
    comparison = compare(replace(reported, scores=tuple(scores)), truth)
    assert comparison.reported == (dog, dog, car, dog, "", "", bird, *[""] * (SECONDS - 7))
    assert comparison.right_s == SECONDS - 1
    assert comparison.scores.acc == pytest.approx((SECONDS - 1) / SECONDS)
    # dog, car and the two pauses of the background are found; a bird is reported where none is
    assert comparison.scores.eve == pytest.approx((1 + 1 + 2 / 3 + 0) / 4)
    assert [(s.start_s, s.end_s, s.right) for s in comparison.stretches][-2:] == [(6, 7, False), (7, SECONDS, True)]
    with pytest.raises(UsageError, match="12 seconds were decided on"):
        compare(reported, truth[:-1])


LABELS = st.lists(st.tuples(st.sampled_from(["", *NAMES]), st.sampled_from(["", *NAMES])), min_size=1, max_size=130)


@given(seconds=LABELS, with_notes=st.booleans(), width=st.integers(1, 200))
def test_stretches_and_strip_hold_every_second_once(
    seconds: list[tuple[str, str]], with_notes: bool, width: int
) -> None:
    truth, reported = zip(*seconds, strict=True)
    notes = tuple(str(n // 3) for n in range(len(truth))) if with_notes else ()
    comparison = Comparison(truth=truth, reported=reported, notes=notes, scores=Scores(0, 0, 0, 0), dropped=0)
    stretches = comparison.stretches
    assert [s.start_s for s in stretches] == [0, *(s.end_s for s in stretches[:-1])]
    for name, labels in (("truth", truth), ("reported", reported)):
        parts = [getattr(s, name) for s in stretches for _ in range(round(s.end_s - s.start_s))]
        assert parts == list(labels)
    assert sum(s.end_s - s.start_s for s in stretches if s.right) == comparison.right_s
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(side_by_side(comparison, console))
    lines = console.export_text().splitlines()
    if width >= 21:
        for title, labels in (("truth", truth), ("ovavel", reported)):
            strip = "".join(line.split()[1] for line in lines if re.match(rf"  {title} +[A-D·]+$", line))
            key = dict(zip(comparison.labels, "ABCD", strict=False)) | {"": "·"}
            assert strip == "".join(key[label] for label in labels)


class Page(HTMLParser):
    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.tags: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.outside += [value for name, value in attrs if name in ("src", "poster", "data") and value]


def test_the_page_needs_nothing_else_and_escapes_names(localization: Localization, clip: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    labels = (evil, *localization.info.labels[1:])
    reported = replace(spans(localization, (evil, 0, 5)), info=replace(localization.info, labels=labels))
    comparison = compare(reported, (evil,) * 4 + ("",) * (SECONDS - 4), (evil,) * SECONDS)
    page = to_html(comparison, reported, clip)
    parsed = Page(page)
    assert "img" not in parsed.tags
    assert [link[:22] for link in parsed.outside] == ["data:video/mp4;base64,"]
    assert b"clip.mp4.ovavel.html" in page
    assert parsed.tags.count("tr") == 1 + len(comparison.stretches)
    assert b"11 of 12" in page
