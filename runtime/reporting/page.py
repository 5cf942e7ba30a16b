"""The frame of an HTML report that needs nothing else: no network, no other file, no script."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from ovavel.runtime.reporting.text import markup
from ovavel.runtime.results.page import STYLE

__all__ = ["facts", "lane", "page", "section", "table", "text"]

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_MORE_STYLE = """
.scroll{max-height:560px}td:nth-child(2){overflow-wrap:normal}
td.n,th.n{text-align:right;white-space:nowrap}
tr.ours td{font-weight:600}
p.warning{color:#c2453c;font-weight:600}
.lane{display:flex;height:22px;margin:2px 0;align-items:center}
.lane>span{flex:none;width:170px;padding-right:10px;text-align:right;font-size:12px;color:var(--dim);overflow:hidden;
text-overflow:ellipsis;white-space:nowrap}
.lane>div{flex:1;display:flex;height:20px;min-width:0}
.lane i{font-style:normal;font-size:11px;line-height:20px;text-indent:4px;border-radius:3px;min-width:0;
box-shadow:inset -1px 0 var(--card);
overflow:hidden;text-overflow:ellipsis;white-space:nowrap;color:#fff;background:var(--line)}
.lane i.none{color:var(--dim)}
.lane i.true{background:#2f6fb0}.lane i.right{background:#2c8a57}.lane i.wrong{background:#c2453c}
.lane i.miss{color:var(--ink);background:repeating-linear-gradient(45deg,#c2453c55 0 4px,transparent 4px 8px)}
svg.heat{display:block;max-width:100%;height:auto}
"""


def text(value: object) -> str:
    """Escape `value` for HTML, on one line and without characters that steer."""
    return markup(str(value))


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    """One line of names and values."""
    return f'<p class="facts">{"".join(f"<span>{text(k)} <b>{text(v)}</b></span>" for k, v in pairs)}</p>'


def section(title: str, *parts: str) -> str:
    """A card; `parts` are HTML already."""
    return f"<section><h2>{text(title)}</h2>{''.join(parts)}</section>"


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, bold: Iterable[int] = ()) -> str:
    """A table of escaped cells; numbers as strings such as "57.8" stand to the right. `bold` are row numbers."""
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
    """A row of a timeline: for each second its kind and its label; equal neighbours make one bar.

    Kinds: "true" (the event), "right", "wrong", "miss" and "none".
    """
    start, bars = 0, []
    for (kind, label), run in groupby(seconds):
        end = start + len(list(run))
        told = text(f"{start}–{end} s {label}")
        bars.append(f'<i class="{kind}" style="flex:{end - start}" title="{told}">{text(label)}</i>')
        start = end
    return f'<div class="lane"><span title="{text(name)}">{text(name)}</span><div>{"".join(bars)}</div></div>'


def page(title: str, *parts: str) -> bytes:
    """The whole page; `parts` are HTML already."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{text(title)}</title>
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><style>{STYLE}{_MORE_STYLE}</style></head>
<body><main><h1>{text(title)}</h1>
{"".join(parts)}
</main></body></html>
""".encode()
