"""Draws `docs/demo-days.jpg`: what the cameras of the demo world's days see, and when something happens.

Usage: python docs/days_picture.py docs/demo-days.jpg
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ovavel.eval.demo.world.actors import HEIGHT_PX, WIDTH_PX
from ovavel.eval.demo.world.day import Day
from ovavel.eval.demo.world.plan import DAY_KINDS, HOUR_S
from ovavel.runtime.reporting.palette import BLUE, GREEN, PURPLE

COLUMNS, LABEL_PX, STRIP_PX = 4, 28, 16
HOURS = 13
"""From six in the morning to seven in the evening."""


def main(out: str) -> None:
    """Draw a row of pictures for each kind of day, and below it the first hour."""
    row_px = LABEL_PX + HEIGHT_PX + 3 * STRIP_PX + 12
    sheet = Image.new("RGB", (COLUMNS * WIDTH_PX, len(DAY_KINDS) * row_px), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(20)
    for row, kind in enumerate(DAY_KINDS):
        day, top = Day(kind, row, HOURS * HOUR_S), row * row_px
        for column, (time_s, what) in enumerate(moments(day)):
            sheet.paste(Image.fromarray(day.frame(time_s)), (column * WIDTH_PX, top + LABEL_PX))
            draw.text((column * WIDTH_PX + 6, top + 2), f"{kind}: {what}", fill="black", font=font)
        strips(draw, day, top + LABEL_PX + HEIGHT_PX + 6)
    sheet.resize((sheet.width * 2 // 3, sheet.height * 2 // 3), Image.Resampling.LANCZOS).save(Path(out), quality=88)


def moments(day: Day) -> list[tuple[float, str]]:
    """Pick a second at the start, an event, rain, and something in the evening."""
    event, evening = day.events[2], day.events[-1]
    rain = max(range(0, HOURS * HOUR_S, 60), key=day.surroundings.rain)
    return [
        (0.5, "at six"),
        (event.start_s + 1.5, event.label.split()[1]),
        (rain + 0.5, "rain"),
        (evening.start_s + 1.5, f"{evening.label.split()[1]}, evening"),
    ]


def strips(draw: ImageDraw.ImageDraw, day: Day, top: int) -> None:
    """Draw what is seen, heard and both, second by second over the first hour."""
    scale = COLUMNS * WIDTH_PX / HOUR_S
    for episode in day.episodes:
        if episode.first_s >= HOUR_S:
            break
        for place, pair in enumerate(zip(episode.script.shown, episode.script.heard, strict=True)):
            left = (episode.first_s + place) * scale
            shown, heard = pair
            for strip, (colour, there) in enumerate(
                ((BLUE, shown is not None), (PURPLE, heard is not None), (GREEN, shown is not None and shown == heard))
            ):
                if there:
                    y = top + strip * STRIP_PX
                    draw.rectangle((left, y, left + scale, y + STRIP_PX - 4), fill=colour)


if __name__ == "__main__":
    main(sys.argv[1])
