"""The colours of pages, pictures and the terminal, each defined once."""

from __future__ import annotations

from collections.abc import Mapping

from ovavel.runtime.types import Sense

__all__ = [
    "DARK",
    "GREEN",
    "GREY",
    "LIGHT",
    "ORANGE",
    "RAMP",
    "RIGHT",
    "SENSES",
    "SERIES",
    "WRONG",
    "colour",
    "variables",
]

BLUE, ORANGE, GREEN, PURPLE, RED = "#4f8fd0", "#e08e45", "#4caf7a", "#c77dbb", "#d9605a"
GREY = "#8b949e"

SERIES = (BLUE, ORANGE, GREEN, PURPLE, RED, "#2aa6a6", "#a58b3f", "#8a7fd6")
"""Colours of rows, curves and bars; readable on white and on black."""

SENSES: Mapping[Sense, str] = {"vision": BLUE, "audio": PURPLE}

RAMP = ("#5b6b8c", "#4f7cac", "#3b8ea5", "#2a9d8f", GREEN, "#7fb84e", "#c2a83e", ORANGE)
"""Colour scale from the lowest value to the highest."""

TRUE, RIGHT, WRONG = "#2f6fb0", "#2c8a57", "#c2453c"
"""Truth, and right and wrong decisions; dark enough for white text."""

_FIXED = {"orange": ORANGE, "true": TRUE, "right": RIGHT, "wrong": WRONG}

LIGHT: Mapping[str, str] = _FIXED | {
    "bg": "#f6f7f9",
    "card": "#ffffff",
    "ink": "#24292f",
    "dim": "#6a737d",
    "line": "#d8dee4",
    "mark": "#fff3cf",
    "hatch": GREY,
    "good": RIGHT,
    "bad": WRONG,
}
"""Values of `var(--name)` in style sheets, on white."""

DARK: Mapping[str, str] = _FIXED | {
    "bg": "#0e1116",
    "card": "#15181d",
    "ink": "#e6e9ed",
    "dim": "#98a2ad",
    "line": "#30363d",
    "mark": "#3b3316",
    "hatch": "#7d8590",
    "good": GREEN,
    "bad": RED,
}
"""The same variables on black."""


def colour(row: int) -> str:
    """Return the colour of a row or curve."""
    return SERIES[row % len(SERIES)]


def variables() -> str:
    """Return the CSS that defines both themes; the reader's system chooses."""
    light, dark = (";".join(f"--{name}:{value}" for name, value in theme.items()) for theme in (LIGHT, DARK))
    return f":root{{color-scheme:light dark;{light}}}\n@media(prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
