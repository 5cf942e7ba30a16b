"""Report with truth and prediction beside the clip, as a self-contained HTML page."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator
from html import escape
from itertools import groupby
from operator import eq
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from ovavel.eval.demo.comparison import Comparison
from ovavel.eval.demo.terminal import percent
from ovavel.runtime.reporting.assets import asset
from ovavel.runtime.reporting.page import facts, page, section, text
from ovavel.runtime.reporting.palette import RIGHT, WRONG, colour
from ovavel.runtime.reporting.text import clock
from ovavel.runtime.results import Localization, result_paths
from ovavel.runtime.types import WINDOW_S

__all__ = ["to_html"]

_T = TypeVar("_T")

# All in SVG units
_WIDTH, _NAMES, _RIGHT, _LANE, _AXIS = 1000, 60, 24, 34, 24
_MARK_EVERY_S = 5


def to_html(comparison: Comparison, localization: Localization, clip: Path) -> bytes:
    """Write the page with `clip` embedded. All names are escaped.

    Raises:
        OSError: the clip cannot be read.
    """
    film = b64encode(clip.read_bytes()).decode()
    (recording,) = result_paths(localization.info.source, Path(), ("html",))
    info, backend = localization.info, localization.info.backend
    return page(
        "ovavel demo: truth and reported events",
        facts(_facts(comparison)),
        f"""<p class="world"><b>A demo world.</b> {text(info.model)} was trained on made-up pictures and sounds,
on other clips than this one. It knows nothing of the real world.</p>
<section><div id="clip"><video controls preload="auto" src="data:video/mp4;base64,{film}"></video>
<div id="now"><div><span class="dim">truth</span><b id="truth"></b></div>
<div><span class="dim">ovavel</span><b id="reported"></b></div></div></div>
{_lanes(comparison)}
</section>""",
        section("Second by second", _table(comparison)),
        f"""<p class="dim">An event is what is both seen and heard. Acc. counts seconds, Seg. seconds of each name, Eve.
whole events that overlap by half or more; Avg. is their mean. All four are in percent, and of this one clip. Ran on
{text(backend.device)} with {text(backend.name)}. Further results, including all scores:
<a href="{escape(quote(recording.name))}">{text(recording.name)}</a>, in the same folder.</p>""",
        style=asset("ovavel.eval.demo", "demo.css"),
        script=asset("ovavel.eval.demo", "demo.js"),
    )


def _facts(comparison: Comparison) -> Iterator[tuple[str, str]]:
    yield "seconds right", f"{comparison.right_s} of {len(comparison.truth)}"
    for name, share in zip(("Acc.", "Seg.", "Eve.", "Avg."), comparison.scores, strict=True):
        yield name, percent(share)
    if comparison.dropped:
        yield "seconds missed because the machine was too slow", str(comparison.dropped)


def _colours(comparison: Comparison) -> dict[str, str]:
    return {label: colour(number) for number, label in enumerate(comparison.labels)}


def _lanes(comparison: Comparison) -> str:
    """Draw three lanes over time: truth, prediction, and their differences."""
    colours = _colours(comparison)
    end_s = len(comparison.truth) * WINDOW_S
    height = 2 * _LANE + 10 + _AXIS

    def x(time_s: float) -> float:
        return round(_NAMES + time_s / end_s * (_WIDTH - _NAMES - _RIGHT), 1)

    def bar(start_s: float, stop_s: float, top: int, tall: int, fill: str, title: str) -> str:
        width = round(x(stop_s) - x(start_s) - 1, 1)
        return (
            f'<rect x="{x(start_s)}" y="{top}" width="{width}" height="{tall}" rx="3" fill="{fill}">'
            f"<title>{title}</title></rect>"
        )

    parts = [f'<text x="0" y="{lane * _LANE + 21}">{name}</text>' for lane, name in enumerate(("truth", "ovavel"))]
    for second in range(0, len(comparison.truth) + 1, _MARK_EVERY_S):
        at = x(second * WINDOW_S)
        parts.append(f'<path class="grid" d="M{at} 0V{height - _AXIS + 4}"/>')
        parts.append(f'<text x="{at}" y="{height - 5}" text-anchor="middle">{clock(second * WINDOW_S, 0)}</text>')
    for lane, labels in enumerate((comparison.truth, comparison.reported)):
        for label, start_s, stop_s in _runs(labels):
            if label:
                parts.append(bar(start_s, stop_s, lane * _LANE + 3, _LANE - 6, colours[label], text(label)))
    for right, start_s, stop_s in _runs(map(eq, comparison.truth, comparison.reported)):
        fill, title = (RIGHT, "right") if right else (WRONG, "wrong")
        parts.append(bar(start_s, stop_s, 2 * _LANE + 2, 6, fill, title))
    parts.append(f'<line id="head" x1="{_NAMES}" x2="{_NAMES}" y1="0" y2="{height - _AXIS + 4}"/>')
    return (
        f'<svg id="lanes" viewBox="0 0 {_WIDTH} {height}" data-width="{_WIDTH}" data-left="{x(0)}" '
        f'data-right="{x(end_s)}" data-end="{end_s}" role="img" aria-label="truth and prediction over time">'
        f"{''.join(parts)}</svg>"
    )


def _runs(seconds: Iterable[_T]) -> Iterator[tuple[_T, float, float]]:
    """Yield each run of equal values with its start and end in seconds."""
    start_s = 0.0
    for value, run in groupby(seconds):
        end_s = start_s + len(list(run)) * WINDOW_S
        yield value, start_s, end_s
        start_s = end_s


def _table(comparison: Comparison) -> str:
    colours = _colours(comparison)

    def name(label: str) -> str:
        if not label:
            return '<span class="dim">nothing</span>'
        return f'<span class="dot" style="background:{colours[label]}"></span>{text(label)}'

    titles = ("", "when", "truth", "ovavel", *(("",) if comparison.notes else ()))
    rows = []
    for stretch in comparison.stretches:
        mark = '<span class="good">✓</span>' if stretch.right else '<span class="bad">✗</span>'
        when = f"{clock(stretch.start_s, 0)} – {clock(stretch.end_s, 0)}"
        note = f'<td class="dim">{text(stretch.note)}</td>' if comparison.notes else ""
        rows.append(
            f'<tr data-start="{stretch.start_s}" tabindex="0"><td>{mark}</td><td>{when}</td>'
            f"<td>{name(stretch.truth)}</td><td>{name(stretch.reported)}</td>{note}</tr>"
        )
    head = "".join(f"<th>{title}</th>" for title in titles)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
