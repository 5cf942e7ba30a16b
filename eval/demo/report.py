"""Truth and prediction beside the clip, as one HTML page that needs nothing else: no network, no other file."""

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
from ovavel.eval.demo.show import percent
from ovavel.runtime.reporting.text import clock, one_line
from ovavel.runtime.results import Localization, result_paths
from ovavel.runtime.results.page import STYLE
from ovavel.runtime.results.summary import colour
from ovavel.runtime.types import WINDOW_S

__all__ = ["to_html"]

_T = TypeVar("_T")

_POLICY = "default-src 'none'; media-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

# All in SVG units
_WIDTH, _NAMES, _RIGHT, _LANE, _AXIS = 1000, 60, 24, 34, 24
_MARK_EVERY_S = 5

_STYLE = """
#clip{display:flex;gap:20px;align-items:center;flex-wrap:wrap}
#clip video{width:480px;max-width:100%;border-radius:8px;background:#000}
#now{flex:1;min-width:240px;font-size:18px}#now div{margin:6px 0}#now b{display:block}
#lanes{display:block;width:100%;height:auto;margin-top:14px;cursor:pointer;user-select:none}
#lanes text{fill:var(--dim);font:13px system-ui,sans-serif}#lanes .grid{stroke:var(--line)}
#head{stroke:#e08e45;stroke-width:2}
tr[data-start]{cursor:pointer}td:nth-child(2){white-space:nowrap}tr.on{background:var(--mark)}
.good{color:#2f9e5b;font-weight:600}.bad{color:#d9605a;font-weight:600}
.world{border-left:4px solid #e08e45;padding:8px 14px;background:var(--card);border-radius:6px}
"""

# Names come from the table, as text.
_SCRIPT = """
'use strict';
const video = document.querySelector('video'), head = document.getElementById('head');
const lanes = document.getElementById('lanes'), rows = [...document.querySelectorAll('tr[data-start]')];
const [LEFT, RIGHT] = [lanes.dataset.left, lanes.dataset.right].map(Number), END = Number(lanes.dataset.end);
const show = (id, cell) => document.getElementById(id).replaceChildren(...cell.cloneNode(true).childNodes);
function follow() {
  const now = Math.min(video.currentTime, END), x = LEFT + now / END * (RIGHT - LEFT);
  head.setAttribute('x1', x); head.setAttribute('x2', x);
  const row = rows.findLast(r => Number(r.dataset.start) <= now);
  rows.forEach(r => r.classList.toggle('on', r === row));
  if (row) { show('truth', row.cells[2]); show('told', row.cells[3]); }
  if (!video.paused) requestAnimationFrame(follow);
}
function seek(to) { video.currentTime = Math.max(0, Math.min(to, END - .05)); follow(); }
for (const name of ['play', 'seeked', 'loadedmetadata']) video.addEventListener(name, follow);
video.addEventListener('error', () => {
  const sorry = document.createElement('p');
  sorry.className = 'dim'; sorry.textContent = 'This browser cannot play the clip.';
  video.replaceWith(sorry);
});
lanes.addEventListener('click', e => {
  const box = lanes.getBoundingClientRect(), x = (e.clientX - box.left) / box.width * Number(lanes.dataset.width);
  seek((x - LEFT) / (RIGHT - LEFT) * END);
});
rows.forEach(row => {
  const go = () => seek(Number(row.dataset.start));
  row.addEventListener('click', go);
  row.addEventListener('keydown', e => { if (e.key === 'Enter' || e.key === ' ') { e.preventDefault(); go(); } });
});
follow();
"""


def to_html(comparison: Comparison, localization: Localization, clip: Path) -> bytes:
    """Write the page; `clip` is put inside. Names are escaped wherever they stand.

    Raises:
        OSError: the clip cannot be read.
    """
    film = b64encode(clip.read_bytes()).decode()
    facts = "".join(f"<span>{escape(name)} <b>{_text(value)}</b></span>" for name, value in _facts(comparison))
    (page,) = result_paths(localization.source, Path(), ("html",))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>ovavel demo</title>
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><style>{STYLE}{_STYLE}</style></head>
<body><main>
<h1>ovavel demo: the truth beside what was reported</h1>
<p class="facts">{facts}</p>
<p class="world"><b>A demo world.</b> {_text(localization.model)} was trained on made-up pictures and sounds, on other
clips than this one. It knows nothing of the real world.</p>
<section><div id="clip"><video controls preload="auto" src="data:video/mp4;base64,{film}"></video>
<div id="now"><div><span class="dim">truth</span><b id="truth"></b></div>
<div><span class="dim">ovavel</span><b id="told"></b></div></div></div>
{_lanes(comparison)}
</section>
<section><h2>Second by second</h2>{_table(comparison)}</section>
<p class="dim">An event is what is both seen and heard. Acc. counts seconds, Seg. seconds of each name, Eve. whole
events that overlap by half or more; Avg. is their mean. All four are in percent, and of this one clip. Ran on
{_text(localization.backend.device)} with {_text(localization.backend.name)}. More of it, all scores included:
<a href="{escape(quote(page.name))}">{_text(page.name)}</a>, which lies beside this page.</p>
</main><script>{_SCRIPT}</script></body></html>
""".encode()


def _text(value: str) -> str:
    return escape(one_line(value))


def _facts(comparison: Comparison) -> Iterator[tuple[str, str]]:
    yield "seconds right", f"{comparison.right_s} of {len(comparison.truth)}"
    for name, share in zip(("Acc.", "Seg.", "Eve.", "Avg."), comparison.scores, strict=True):
        yield name, percent(share)
    if comparison.dropped:
        yield "seconds missed because the machine was too slow", str(comparison.dropped)


def _colours(comparison: Comparison) -> dict[str, str]:
    return {label: colour(number) for number, label in enumerate(comparison.labels)}


def _lanes(comparison: Comparison) -> str:
    """Draw three lanes over time: truth, prediction, and where they differ."""
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
    for lane, labels in enumerate((comparison.truth, comparison.told)):
        for label, start_s, stop_s in _runs(labels):
            if label:
                parts.append(bar(start_s, stop_s, lane * _LANE + 3, _LANE - 6, colours[label], _text(label)))
    for right, start_s, stop_s in _runs(map(eq, comparison.truth, comparison.told)):
        fill, title = ("#2f9e5b", "right") if right else ("#d9605a", "wrong")
        parts.append(bar(start_s, stop_s, 2 * _LANE + 2, 6, fill, title))
    parts.append(f'<line id="head" x1="{_NAMES}" x2="{_NAMES}" y1="0" y2="{height - _AXIS + 4}"/>')
    return (
        f'<svg id="lanes" viewBox="0 0 {_WIDTH} {height}" data-width="{_WIDTH}" data-left="{x(0)}" '
        f'data-right="{x(end_s)}" data-end="{end_s}" role="img" aria-label="truth and prediction over time">'
        f"{''.join(parts)}</svg>"
    )


def _runs(seconds: Iterable[_T]) -> Iterator[tuple[_T, float, float]]:
    """Each run of equal values, with its start and end in seconds."""
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
        return f'<span class="dot" style="background:{colours[label]}"></span>{_text(label)}'

    titles = ("", "when", "truth", "ovavel", *(("",) if comparison.notes else ()))
    rows = []
    for stretch in comparison.stretches:
        mark = '<span class="good">✓</span>' if stretch.right else '<span class="bad">✗</span>'
        when = f"{clock(stretch.start_s, 0)} – {clock(stretch.end_s, 0)}"
        note = f'<td class="dim">{_text(stretch.note)}</td>' if comparison.notes else ""
        rows.append(
            f'<tr data-start="{stretch.start_s}" tabindex="0"><td>{mark}</td><td>{when}</td>'
            f"<td>{name(stretch.truth)}</td><td>{name(stretch.told)}</td>{note}</tr>"
        )
    head = "".join(f"<th>{title}</th>" for title in titles)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
