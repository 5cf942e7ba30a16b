"""Draws `docs/pipeline.svg`, the way of a window from the source to the sink.

Usage: python docs/pipeline_picture.py docs/pipeline.svg
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

WIDTH, HEIGHT = 920, 530

# The picture brings its own background, so that it can be read on a page of either kind.
STYLE = """
text { font: 15px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1b2733; text-anchor: middle }
.card { fill: #ffffff; stroke: #c9d3dd }
.room { fill: #f1f5f9; stroke: #c9d3dd; stroke-dasharray: 5 4 }
.box { fill: #dbe9f8; stroke: #1f5fa8; stroke-width: 1.5 }
.name { font-weight: 600 }
.small { font-size: 12.5px; fill: #465565 }
.value { font-size: 13px; font-style: italic; fill: #1f5fa8 }
.left { text-anchor: start }
.arrow { stroke: #465565; stroke-width: 1.5; fill: none; marker-end: url(#tip) }
.tip { fill: #465565 }
.past { fill: #e4e9ee; stroke: #aab6c2 }
.final { fill: #b9dfc3; stroke: #2f7d4a }
.open { fill: #fbe3b0; stroke: #a8741a }
.brace { stroke: #465565; fill: none }
@media (prefers-color-scheme: dark) {
  text { fill: #e3e9ef }
  .card { fill: #161b22; stroke: #3a4550 }
  .room { fill: #1e252e; stroke: #3a4550 }
  .box { fill: #1c3a5c; stroke: #7db4f0 }
  .small { fill: #a9b6c3 }
  .value { fill: #7db4f0 }
  .arrow, .brace { stroke: #a9b6c3 }
  .tip { fill: #a9b6c3 }
  .past { fill: #2a323b; stroke: #55616d }
  .final { fill: #1f5233; stroke: #6cc08a }
  .open { fill: #5d4310; stroke: #e0ab4f }
}
"""

BOX_HEIGHT = 74
CAPTURE = (
    ("Source", "camera, stream, file"),
    ("WindowAssembler", "aligned seconds"),
    ("WindowQueue", "at most four wait"),
)
DECIDE = (
    ("Encoder", "one embedding", "per sense"),
    ("Localizer", "head, similarities,", "scores"),
    ("EventTracker", "runs of one", "label"),
    ("Sink", "terminal, JSONL,", "your own"),
)
SECONDS, BUFFER, LAG = 12, 10, 2


def text(x: float, y: float, words: str, kind: str = "") -> str:
    """One line of text."""
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(words)}</text>'


def box(x: float, y: float, width: float, name: str, *lines: str) -> str:
    """A stage of the pipeline, with what it does under its name."""
    top = y + (30 if len(lines) == 1 else 25)
    said = [text(x + width / 2, top + 20 + 16 * i, line, "small") for i, line in enumerate(lines)]
    rectangle = f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{BOX_HEIGHT}" rx="8" class="box"/>'
    return "\n".join([rectangle, text(x + width / 2, top, name, "name"), *said])


def arrow(path: str) -> str:
    """A line with a tip at its end."""
    return f'<path d="{path}" class="arrow"/>'


def row(y: float, left: float, width: float, gap: float, stages: tuple[tuple[str, ...], ...], values: list[str]) -> str:
    """Stages from left to right, with the value that goes from each to the next above the arrow."""
    parts = []
    for i, stage in enumerate(stages):
        x = left + i * (width + gap)
        parts.append(box(x, y, width, *stage))
        if i < len(values):
            middle = y + BOX_HEIGHT / 2
            parts.append(arrow(f"M{x + width + 3:g} {middle:g} H{x + width + gap - 4:g}"))
            for j, line in enumerate(reversed(values[i].split("\n"))):
                parts.append(text(x + width + gap / 2, middle - 9 - 16 * j, line, "value"))
    return "\n".join(parts)


def seconds(y: float) -> str:
    """The last seconds of a stream: which are scored, and which of these are final."""
    side, left = 44, 190
    parts = [
        text(24, y - 40, "What the Localizer holds when second 11 comes in, with the default lag of 2", "left name")
    ]
    for i in range(SECONDS):
        kind = "past" if i < SECONDS - BUFFER else "final" if i < SECONDS - LAG else "open"
        x = left + i * (side + 4)
        parts.append(f'<rect x="{x}" y="{y}" width="{side}" height="34" rx="5" class="{kind}"/>')
        parts.append(text(x + side / 2, y + 22, str(i)))

    def brace(first: int, last: int, words: str) -> None:
        start, end = left + first * (side + 4), left + last * (side + 4) + side
        parts.append(f'<path d="M{start} {y + 40} v8 H{end} v-8" class="brace"/>')
        parts.append(text((start + end) / 2, y + 66, words, "small"))

    brace(0, 1, "forgotten")
    brace(2, 9, "final: reported once, context for the rest")
    brace(10, 11, "provisional")
    return "\n".join(parts)


def picture() -> str:
    """The whole picture, as SVG."""
    title = "The pipeline: source, window assembler, queue, encoder, localizer, event tracker, sink"
    decide = row(260, 44, 150, 74, DECIDE, ["Segment", "Segment-\nScores", "Update"])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{title}</title>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 Z" class="tip"/></marker></defs>',
        f'<rect x="1" y="1" width="{WIDTH - 2}" height="{HEIGHT - 2}" rx="12" class="card"/>',
        f'<rect x="20" y="20" width="{WIDTH - 40}" height="148" rx="10" class="room"/>',
        text(36, 46, "Capture thread", "left name"),
        text(180, 46, "keeps up with the camera; a file waits for the queue", "left small"),
        row(68, 44, 176, 152, CAPTURE, ["Frame, Samples,\nGap", "Window"]),
        f'<rect x="20" y="212" width="{WIDTH - 40}" height="148" rx="10" class="room"/>',
        text(140, 238, "Your thread", "left name"),
        text(258, 238, "session.updates(), or run by the command", "left small"),
        arrow("M788 145 V196 H119 V256"),
        text(460, 189, "Window", "value"),
        decide,
        seconds(430),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(picture(), encoding="utf-8")
