"""Draws `docs/demo-world.jpg`, a sheet of the demo world's classes.

Usage: python docs/world_picture.py docs/demo-world.jpg
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ovavel.eval.demo.world.actors import HEIGHT_PX, WIDTH_PX
from ovavel.eval.demo.world.kinds import KINDS
from ovavel.eval.demo.world.scene import Scene, Script

COLUMNS, ROWS, LABEL_PX = 5, 3, 28


def main(out: str) -> None:
    """Draw one class of every thing."""
    random = np.random.default_rng(4)
    things: dict[str, list[int]] = {}
    for index, kind in enumerate(KINDS):
        things.setdefault(kind.thing, []).append(index)
    sheet = Image.new("RGB", (COLUMNS * WIDTH_PX, ROWS * (HEIGHT_PX + LABEL_PX)), "white")
    draw = ImageDraw.Draw(sheet)
    for place, indices in enumerate(things.values()):
        kind = KINDS[indices[place % len(indices)]]
        scene = Scene(Script(shown=(kind,), heard=(kind,)), random)
        corner = place % COLUMNS * WIDTH_PX, place // COLUMNS * (HEIGHT_PX + LABEL_PX)
        sheet.paste(Image.fromarray(scene.frame(0.5)), corner)
        draw.text((corner[0] + 6, corner[1] + HEIGHT_PX + 2), kind.name, fill="black", font=ImageFont.load_default(20))
    sheet.reduce(2).save(Path(out), quality=85)


if __name__ == "__main__":
    main(sys.argv[1])
