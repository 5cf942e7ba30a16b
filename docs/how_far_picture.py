"""Draws `docs/how-far.svg`: how many cameras each part of a watched site holds.

Usage: python docs/how_far_picture.py docs/how-far.svg
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

from ovavel.runtime.reporting.drawing import drawing
from ovavel.runtime.reporting.page import text
from ovavel.runtime.reporting.palette import colour

WINDOW_GFLOP = 365
"""Of one frame and one second of sound, full-size ImageBind."""
GPU_TFLOPS, GPU_USED = 989, 0.4
"""Dense bf16 of an H100 by its maker, and the share of it that is assumed to be used."""
ROWS = (
    ("encoder: two cores, int8", 1 / 0.383, True),
    ("capture: one core, the demo's small pictures", 1 / 0.026, True),
    ("one service behind the encoder: one core", 1 / 0.00116, True),
    ("encoder: one GPU, bf16, 40 % used", GPU_USED * GPU_TFLOPS * 1000 / WINDOW_GFLOP, False),
)
"""What, how many cameras, and whether it was measured."""

WIDTH, LEFT, RIGHT, TOP, ROW = 760, 330, 70, 44, 34
MOST = 10_000


def main(out: str) -> None:
    """Draw it."""
    foot = TOP + ROW * len(ROWS)
    parts = [f'<text class="ov-text ov-title" x="16" y="24">{text("Cameras that each part holds")}</text>']
    for exponent in range(5):
        x = _x(10**exponent)
        parts.append(f'<path class="ov-grid" d="M{x:.1f} {TOP - 8}V{foot}"/>')
        label = f"{10**exponent:,}".replace(",", "\u202f")
        parts.append(f'<text class="ov-text ov-dim" x="{x:.1f}" y="{foot + 16}" text-anchor="middle">{label}</text>')
    for number, (what, cameras, measured) in enumerate(ROWS):
        top, end = TOP + ROW * number, _x(cameras)
        fill = f'fill="{colour(0)}"' if measured else f'fill="none" stroke="{colour(0)}" stroke-dasharray="4 3"'
        shown = f"{cameras:.1f}" if cameras < 10 else f"{float(f'{cameras:.2g}'):.0f}"
        parts.append(f'<text class="ov-text" x="{LEFT - 10}" y="{top + 15}" text-anchor="end">{text(what)}</text>')
        parts.append(f'<rect x="{LEFT}" y="{top}" width="{end - LEFT:.1f}" height="20" {fill}/>')
        parts.append(f'<text class="ov-text" x="{end + 8:.1f}" y="{top + 15}">{shown}</text>')
    note = "filled: measured on two cores of a Xeon; dashed: on paper"
    parts.append(f'<text class="ov-text ov-dim" x="16" y="{foot + 40}">{note}</text>')
    Path(out).write_text(
        drawing(WIDTH, foot + 54, parts, head=f"<title>{text('Cameras that each part holds')}</title>")
    )


def _x(cameras: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * math.log10(cameras) / math.log10(MOST)


if __name__ == "__main__":
    main(sys.argv[1])
