"""The timeline of a recording as an SVG picture.

Shapes: R classes shown, T seconds, B bins of a curve.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.reporting.drawing import drawing
from ovavel.runtime.reporting.palette import ORANGE, colour
from ovavel.runtime.reporting.text import clock, markup, one_line, shown_name
from ovavel.runtime.results.localization import Localization
from ovavel.runtime.results.summary import matrix, missing_runs, shown_classes
from ovavel.runtime.types import WINDOW_S

__all__ = ["to_svg"]

# All in SVG units
_WIDTH, _NAMES, _RIGHT, _TOP, _ROW, _LANE, _AXIS = 1000, 190, 20, 46, 30, 16, 30
_MAX_BINS = 400
_MAX_ROWS = 24
_MIN_ROWS = 4
_NAME_LENGTH = 27
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)


def to_svg(localization: Localization) -> bytes:
    """Draw events over time, how far each class is above the background, and where a sense is missing."""
    return _Drawing(localization).draw().encode()


class _Drawing:
    def __init__(self, localization: Localization) -> None:
        self.localization = localization
        self.classes = shown_classes(localization, _MIN_ROWS, _MAX_ROWS)
        self.end_s = max(localization.duration_s, len(localization.scores) * WINDOW_S, WINDOW_S)
        self.missing = list(missing_runs(localization))
        self.lanes = {sense: lane for lane, sense in enumerate(dict.fromkeys(sense for sense, _, _ in self.missing))}
        self.bottom = _TOP + _ROW * max(1, len(self.classes)) + _LANE * len(self.lanes)

    def x(self, time_s: float) -> float:
        """Where a time lies."""
        return round(_NAMES + min(max(time_s / self.end_s, 0.0), 1.0) * (_WIDTH - _NAMES - _RIGHT), 2)

    def draw(self) -> str:
        height = self.bottom + _AXIS
        parts = [*self.header(), *self.grid(), *self.rows(), *self.missing_senses()]
        head = (
            f"<title>{markup(shown_name(self.localization.info.source))}</title>"
            '<defs><pattern id="ov-hatch" width="6" height="6" patternUnits="userSpaceOnUse" '
            'patternTransform="rotate(45)"><path class="ov-hatch" d="M0 0V6" stroke-width="3"/></pattern></defs>'
        )
        return drawing(_WIDTH, height, parts, head=head)

    def header(self) -> Iterator[str]:
        source, model = shown_name(self.localization.info.source), self.localization.info.model
        short = source if len(source) <= 80 else "…" + source[-79:]
        yield f'<text class="ov-text ov-title" x="16" y="25">{markup(short)}</text>'
        yield f'<text class="ov-text ov-dim" x="{_WIDTH - _RIGHT}" y="25" text-anchor="end">{markup(model)}</text>'

    def grid(self) -> Iterator[str]:
        step_s = next((step for step in _STEPS_S if self.end_s / step <= 11), _STEPS_S[-1])
        for tick in range(int(self.end_s // step_s) + 1):
            x = self.x(tick * step_s)
            yield f'<path class="ov-grid" d="M{x} {_TOP - 6}V{self.bottom + 4}"/>'
            text = clock(tick * step_s, 0)
            yield f'<text class="ov-text ov-dim" x="{x}" y="{self.bottom + 19}" text-anchor="middle">{text}</text>'

    def rows(self) -> Iterator[str]:
        background = matrix(self.localization, "scores", [len(self.localization.info.labels) - 1])
        margins = matrix(self.localization, "scores", self.classes) - background
        if not self.classes:
            yield f'<text class="ov-text ov-dim" x="16" y="{_TOP + 20}">no classes</text>'
        for row, c in enumerate(self.classes):
            label = self.localization.info.labels[c]
            top, fill = _TOP + row * _ROW, colour(row)
            events = [event for event in self.localization.events if event.label == label]
            dim = "" if events else " ov-dim"
            yield (
                f'<text class="ov-text{dim}" x="16" y="{top + 19}">{markup(_cut(one_line(label)))}'
                f"<title>{markup(label)}</title></text>"
            )
            yield f'<path fill="{fill}" opacity=".22" d="{self.curve(margins[row], top)}"/>'
            for event in events:
                x, end = self.x(event.start_s), self.x(event.end_s)
                title = f"{label} {clock(event.start_s)} – {clock(event.end_s)}, margin {event.peak_margin:.2f}"
                if event.peak_probability is not None:
                    title += f", probability {event.peak_probability:.2f}"
                yield (
                    f'<rect class="ov-event" data-event="{event.id}" x="{x}" y="{top + 6}" rx="4" '
                    f'width="{max(2.0, round(end - x, 2))}" height="{_ROW - 12}" fill="{fill}">'
                    f"<title>{markup(title)}</title></rect>"
                )

    def curve(self, margins: NDArray[np.float32], top: int) -> str:
        """Outline the margins (T,) of a row: steps of a second each, or of the largest in each of B bins."""
        size = -(-len(margins) // _MAX_BINS) or 1
        base, tall = top + _ROW - 3, _ROW - 6
        path = [f"M{self.x(0)} {base}"]
        for start in range(0, len(margins), size):
            value = float(np.nan_to_num(margins[start : start + size]).max())
            y = round(base - tall * min(max(value, 0.0), 1.0), 1)
            path.append(f"V{y}H{self.x((start + min(size, len(margins) - start)) * WINDOW_S)}")
        return "".join([*path, f"V{base}Z"])

    def missing_senses(self) -> Iterator[str]:
        top = _TOP + _ROW * max(1, len(self.classes))
        names = {"vision": "not seen", "audio": "not heard"}
        for sense, lane in self.lanes.items():
            yield f'<text class="ov-text ov-dim" x="16" y="{top + lane * _LANE + 12}">{names[sense]}</text>'
        for sense, start_s, end_s in self.missing:
            x = self.x(start_s)
            width = max(1.0, round(self.x(end_s) - x, 2))
            title = f"<title>{names[sense]} {clock(start_s)} – {clock(end_s)}</title>"
            y = top + self.lanes[sense] * _LANE + 3
            yield f'<rect class="ov-miss" x="{x}" y="{_TOP - 2}" width="{width}" height="{top - _TOP}">{title}</rect>'
            yield f'<rect fill="{ORANGE}" x="{x}" y="{y}" width="{width}" height="{_LANE - 6}" rx="2">{title}</rect>'


def _cut(text: str) -> str:
    return text if len(text) <= _NAME_LENGTH else text[: _NAME_LENGTH - 1] + "…"
