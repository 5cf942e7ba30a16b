"""Frame of an SVG picture, standalone or inside a page, light and dark."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache

from ovavel.runtime.reporting.assets import asset
from ovavel.runtime.reporting.palette import DARK, LIGHT

__all__ = ["drawing"]

_VARIABLE = re.compile(r"var\(--(\w+)\)")


def drawing(width: int, height: int, parts: Iterable[str], *, head: str = "") -> str:
    """Return an SVG of `parts` on a card, with `head`, such as a title, before its style. Both must be SVG."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
        f'{head}<style>{_style()}</style><rect class="ov-bg" width="{width}" height="{height}" rx="8"/>'
        f"{''.join(parts)}</svg>\n"
    )


@cache
def _style() -> str:
    return f"\n{_coloured(LIGHT)}@media(prefers-color-scheme:dark){{\n{_coloured(DARK)}}}\n"


def _coloured(theme: Mapping[str, str]) -> str:
    """Return the style sheet with literal colours: few SVG viewers support variables."""
    return _VARIABLE.sub(lambda name: theme[name[1]], asset("ovavel.runtime.reporting", "drawing.css"))
