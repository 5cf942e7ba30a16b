"""Results as one HTML page that needs nothing else: no network, no other file.

Shapes: R classes shown, T seconds, B bins of the heat map.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.reporting.assets import asset
from ovavel.runtime.reporting.page import facts, page, section
from ovavel.runtime.reporting.palette import GREY, colour
from ovavel.runtime.reporting.text import clock, counts, markup, names_text, one_line, shown_name
from ovavel.runtime.results.localization import Localization
from ovavel.runtime.results.summary import matrix, shown_classes
from ovavel.runtime.results.svg import to_svg
from ovavel.runtime.types import WINDOW_S

__all__ = ["to_html"]

_MIN_ROWS, _MAX_ROWS = 8, 16
_MAX_BINS = 7200
_MAX_THUMBNAILS = 200


def to_html(localization: Localization) -> bytes:
    """Write the page: events, timeline, pictures, and the scores over time. Names are escaped wherever they stand."""
    background = len(localization.info.labels) - 1
    classes = [*shown_classes(localization, _MIN_ROWS, _MAX_ROWS), background]
    return page(
        shown_name(localization.info.source),
        facts(_facts(localization)),
        f'<section class="timeline">{to_svg(localization).decode()}</section>',
        section("Events", f'<div class="scroll" id="events">{_events(localization, classes)}</div>'),
        _scores(localization, classes),
        _gaps(localization),
        f'<div id="tip"></div><script type="application/json" id="data">{_data(localization, classes)}</script>',
        script=asset("ovavel.runtime.reporting", "recording.js"),
    )


def _facts(localization: Localization) -> Iterator[tuple[str, str]]:
    backend = localization.info.backend
    yield "length", clock(localization.duration_s)
    yield "events", str(len(localization.events))
    yield "vocabulary", names_text(len(localization.info.labels))
    yield "model", localization.info.model
    yield "licence of the weights", localization.info.licence
    yield "ran on", f"{backend.device}, {backend.name} {backend.provider}"
    yield "precision", "/".join(dict.fromkeys(backend.precision.values()))
    yield "bundle", localization.info.bundle_sha256[:12]
    if localization.dropped:
        yield "dropped", counts(localization.dropped)
    if localization.economy:
        yield "pictures encoded", f"{localization.economy.encoded} of {localization.economy.pictures}"
    if localization.trailing_s:
        yield "left over at the end", f"{localization.trailing_s:.2f} s"


def _scores(localization: Localization, classes: list[int]) -> str:
    """What the script draws into."""
    labels = [localization.info.labels[c] for c in classes]
    names = "".join(f'<div title="{markup(label)}">{markup(label)}</div>' for label in labels)
    return f"""<section id="scores"><h2>Scores over time</h2>
<noscript><p class="dim">This part is drawn by a script of this page; scripts are switched off.</p></noscript>
<div class="map"><div class="names{" below-pictures" if localization.thumbnails else ""}">{names}</div>
<div class="track" id="track"><div class="strip" id="strip"></div><canvas id="heat"></canvas><div id="mark"></div></div>
</div><p class="dim">The stronger the colour, the higher the score; the last row is the
background. Strokes: a sense was missing.</p></section>"""


def _events(localization: Localization, classes: list[int]) -> str:
    if not localization.events:
        return '<p class="dim">Nothing was both seen and heard.</p>'
    colours = {localization.info.labels[c]: colour(row) for row, c in enumerate(classes)}
    rows = "".join(
        f'<tr data-event="{event.id}" tabindex="0"><td>{clock(event.start_s)} – {clock(event.end_s)}</td>'
        f'<td><span class="dot" style="background:{colours.get(event.label, GREY)}"></span>'
        f"{markup(event.label)}</td><td>{event.end_s - event.start_s:.1f} s</td>"
        f"<td>{event.peak_score:.2f}</td><td>{event.peak_margin:.2f}</td>"
        f"{'' if event.peak_probability is None else f'<td>{event.peak_probability:.2f}</td>'}</tr>"
        for event in localization.events
    )
    titles = ["when", "what", "length", "best score", "best margin over the background"]
    if any(event.peak_probability is not None for event in localization.events):
        titles.append("best probability")
    head = "".join(f"<th>{title}</th>" for title in titles)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _gaps(localization: Localization) -> str:
    if not localization.gaps:
        return ""
    rows = "".join(
        f"<tr><td>{clock(gap.start_s)}</td><td>{markup(gap.cause)}</td>"
        f"<td>{gap.sense}</td><td>{gap.duration_s:.2f} s</td></tr>"
        for gap in localization.gaps
    )
    head = "<tr><th>at</th><th>cause</th><th>sense</th><th>length</th></tr>"
    return (
        "<section><h2>Gaps</h2><div class='scroll' id='gaps'>"
        f"<table><thead>{head}</thead><tbody>{rows}</tbody></table></div></section>"
    )


def _data(localization: Localization, classes: list[int]) -> str:
    size = -(-len(localization.scores) // _MAX_BINS) or 1
    fields = {
        name: _binned(matrix(localization, field, classes), size)
        for name, field in (("score", "scores"), ("seen", "vision_similarity"), ("heard", "audio_similarity"))
    }
    pictures = sorted(localization.thumbnails)
    step = -(-len(pictures) // _MAX_THUMBNAILS) or 1
    data = {
        "bins": -(-len(localization.scores) // size),
        "bin_s": size * WINDOW_S,
        "rows": [
            {"label": one_line(localization.info.labels[c]), "colour": colour(row) if row < len(classes) - 1 else GREY}
            | {name: values[row] for name, values in fields.items()}
            for row, c in enumerate(classes)
        ],
        "events": [{"id": event.id, "start_s": event.start_s, "end_s": event.end_s} for event in localization.events],
        "thumbnails": {
            str(index): "data:image/jpeg;base64," + b64encode(localization.thumbnails[index]).decode()
            for index in pictures[::step]
        },
        "thumbnail_step_s": step * WINDOW_S,
    }
    # "<" is the one character that could end the script element.
    return msgspec.json.encode(data).decode().replace("<", "\\u003c")


def _binned(values: NDArray[np.float32], size: int) -> list[list[int | None]]:
    """(R, T) → R lists of B thousandths: the largest of each `size` seconds; None where there is none."""
    rows, length = values.shape
    padded = np.full((rows, -(-length // size) * size), -np.inf)
    padded[:, :length] = np.where(np.isfinite(values), values, -np.inf)
    best = padded.reshape(rows, -1, size).max(axis=2) if length else np.empty((rows, 0))
    return [[round(value * 1000) if np.isfinite(value) else None for value in row] for row in best.tolist()]
