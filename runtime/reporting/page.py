"""Frame of a self-contained HTML page: no network, no other files."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from hashlib import sha256
from itertools import groupby

from ovavel.runtime.reporting.assets import asset
from ovavel.runtime.reporting.palette import variables
from ovavel.runtime.reporting.text import markup

__all__ = ["facts", "lane", "page", "section", "table", "text"]

_POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"


def text(value: object) -> str:
    """Escape `value` for HTML, on one line and without control characters."""
    return markup(str(value))


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    """Format names and values on one line."""
    return f'<p class="facts">{"".join(f"<span>{text(k)} <b>{text(v)}</b></span>" for k, v in pairs)}</p>'


def section(title: str, *parts: str) -> str:
    """Return a card; `parts` must be HTML."""
    return f"<section><h2>{text(title)}</h2>{''.join(parts)}</section>"


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, bold: Iterable[int] = ()) -> str:
    """Return a table of escaped cells; numeric strings such as "57.8" are right-aligned. `bold` are row indices."""
    strong = set(bold)
    cells = [[text(cell) for cell in row] for row in rows]
    right = [all(_is_number(row[i]) for row in cells) for i in range(len(head))]
    kind = [' class="n"' if flag else "" for flag in right]
    top = "".join(f"<th{k}>{text(title)}</th>" for k, title in zip(kind, head, strict=True))
    body = "".join(
        f"<tr{' class=ours' if i in strong else ''}>"
        + "".join(f"<td{k}>{cell}</td>" for k, cell in zip(kind, row, strict=True))
        + "</tr>"
        for i, row in enumerate(cells)
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _is_number(cell: str) -> bool:
    return cell in ("", "–") or cell.lstrip("+-").replace(".", "", 1).replace(" ", "").isdecimal()


def lane(name: str, seconds: Sequence[tuple[str, str]]) -> str:
    """Return a timeline row from the kind and label of each second; equal neighbours are merged into one bar.

    Kinds: "true" (the event), "right", "wrong", "miss" and "none".
    """
    start, bars = 0, []
    for (kind, label), run in groupby(seconds):
        end = start + len(list(run))
        tooltip = text(f"{start}–{end} s {label}")
        bars.append(f'<i class="{kind}" style="flex:{end - start}" title="{tooltip}">{text(label)}</i>')
        start = end
    return f'<div class="lane"><span title="{text(name)}">{text(name)}</span><div>{"".join(bars)}</div></div>'


def page(title: str, *parts: str, style: str = "", script: str = "") -> bytes:
    """Return the page; `parts` must be HTML, `style` is additional CSS, `script` the only script allowed to run.

    The browser refuses any other script, for example one injected through a name.
    """
    policy = (
        f"{_POLICY}; script-src 'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" if script else _POLICY
    )
    style = variables() + asset("ovavel.runtime.reporting", "style.css") + style
    run = f"<script>{script}</script>" if script else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{text(title)}</title>
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}"><style>
{style}</style></head>
<body><main><h1>{text(title)}</h1>
{"".join(parts)}
</main>{run}</body></html>
""".encode()
