"""News as a live view in a terminal."""

from __future__ import annotations

import atexit
import io
import time
from collections import deque

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.style import Style
from rich.table import Table
from rich.text import Text

from ovavel.runtime.reporting.console import OutputConsole
from ovavel.runtime.reporting.palette import GREEN, ORANGE, RAMP, SENSES
from ovavel.runtime.reporting.streams import READABLE
from ovavel.runtime.reporting.text import clock, counts, names_text, one_line
from ovavel.runtime.session_info import SessionInfo
from ovavel.runtime.sinks.lines import engine
from ovavel.runtime.stats import Stats
from ovavel.runtime.types import WINDOW_S, Event, SegmentScores, Sense, Update
from ovavel.runtime.verification.gates import gate_text

__all__ = ["TerminalSink"]

_SPAN = 10
"""Seconds on the timeline."""
_REFRESH_S = 0.2
_BESIDE = 92
"""Columns from which evidence and events stand side by side."""
_ROOMY = 30
"""Rows from which there is room for more of everything."""
_BAR = 10

_STATE_COLOUR = {"start": GREEN, "update": GREEN, "end": "bright_black", "retract": ORANGE}
_STATE_NAME = {"start": "now", "update": "now", "end": "over", "retract": "retracted"}
_QUIET = "bright_black"


class TerminalSink:
    """Shows the last ten seconds, what is seen and heard, the events, and how well it keeps up.

    It draws when there is news, five times a second at most, on the terminal's alternate screen; the last picture stays
    in the normal one. `close`, or else the exit, restores the terminal.
    """

    name = "the terminal"

    def __init__(self, console: Console | None = None) -> None:
        """Draw on `console`; on standard output by default."""
        self._console = console or OutputConsole()
        self._ascii = self._console.options.ascii_only
        if self._ascii and isinstance(self._console.file, io.TextIOWrapper):
            # A name that the terminal cannot write is spelled out; no traceback.
            self._console.file.reconfigure(errors=READABLE)
        self._heights = "_.-=+*%#" if self._ascii else "▁▂▃▄▅▆▇█"
        self._shades = "123" if self._ascii else "░▒▓"
        self._strokes = ("=", "-") if self._ascii else ("━", "─")
        self._times = "x" if self._ascii else "×"
        self._dot = "-" if self._ascii else "·"
        self._info: SessionInfo | None = None
        self._stats: Stats | None = None
        self._live: Live | None = None
        self._drawn_s = 0.0
        self._seconds: dict[int, SegmentScores] = {}
        self._rows: dict[str, None] = {}
        self._events: dict[int, Event] = {}
        self._messages: deque[tuple[float, str]] = deque(maxlen=2)

    def open(self, info: SessionInfo, stats: Stats) -> None:
        """Take over the screen."""
        self._info = info
        self._stats = stats
        self._live = Live(console=self._console, screen=True, auto_refresh=False, get_renderable=self.render)
        atexit.register(self._live.stop)
        self._live.start()
        self._draw()

    def write(self, update: Update) -> None:
        """Take in one window's news and draw it, the newest notices above the figures."""
        self._messages += ((notice.time_s, self._line(notice.message)) for notice in update.notices)
        for scores in update.scores:
            self._seconds[scores.index] = scores
        newest = max(self._seconds, default=0)
        self._seconds = {index: scores for index, scores in self._seconds.items() if index > newest - _SPAN}
        for event in update.events:
            self._events.pop(event.id, None)
            self._events[event.id] = event
        while len(self._events) > 50:
            del self._events[next(iter(self._events))]
        self._draw()

    def close(self) -> None:
        """Give the screen back and leave the last picture on it."""
        live, self._live = self._live, None
        if live:
            atexit.unregister(live.stop)
            live.stop()
            self._console.print(self.render())

    def render(self) -> RenderableType:
        """Draw the present state, fit to the console's size."""
        if not self._info or not self._stats:
            return Text()
        width, height = self._console.size
        roomy = height >= _ROOMY
        beside = width >= _BESIDE
        timeline = self._timeline(self._info, width - 4, 6 if roomy else 3)
        evidence = self._evidence(self._info, (width // 2 if beside else width) - 4, 7 if beside else 5 if roomy else 3)
        figures = self._figures(self._stats)
        # Lines of the header, the timeline, the frame of the events, the figures and the messages
        used = 3 + timeline.row_count + 2 + 2 + 3 + len(self._messages) + (0 if beside else evidence.row_count + 2)
        events = self._event_list(max(2, min(8 if beside else 12, height - used)))
        sure = self._probability()
        middle: RenderableType = Group(self._panel("Newest second", evidence, note=sure), self._panel("Events", events))
        if beside:
            middle = Table.grid(expand=True)
            middle.add_column(width=width // 2)
            middle.add_column(ratio=1)
            rows = max(evidence.row_count, events.row_count) + 2
            middle.add_row(self._panel("Newest second", evidence, rows, sure), self._panel("Events", events, rows))
        messages = [Text(f" {clock(at_s, 0)}  {message}", "yellow", no_wrap=True) for at_s, message in self._messages]
        return Group(
            self._header(self._info),
            self._panel("Last ten seconds", timeline, note=self._key()),
            middle,
            *messages,
            figures,
        )

    def _line(self, text: str) -> str:
        """`text` on one line, in what this terminal can show: its width counts before it is written."""
        line = one_line(text)
        return line.encode("ascii", READABLE).decode("ascii") if self._ascii else line

    @property
    def _now_s(self) -> float:
        return max((scores.start_s + WINDOW_S for scores in self._seconds.values()), default=0.0)

    def _draw(self) -> None:
        now_s = time.monotonic()
        if self._live and now_s - self._drawn_s >= _REFRESH_S:
            self._drawn_s = now_s
            self._live.refresh()

    def _panel(self, title: str, inside: RenderableType, height: int | None = None, note: str | None = None) -> Panel:
        return Panel(
            inside,
            title=f"[bold]{title}[/]",
            title_align="left",
            subtitle=note,
            subtitle_align="right",
            border_style=_QUIET,
            box=box.ASCII if self._ascii else box.ROUNDED,
            height=height,
        )

    def _key(self) -> str:
        return f"[{_QUIET}]{self._heights[5] * 2} final  {self._shades[1] * 2} may change[/]"

    def _probability(self) -> str | None:
        """How probable the decision on the newest second is; None without a calibration."""
        probability = self._seconds[max(self._seconds)].probability if self._seconds else None
        return None if probability is None else f"[{_QUIET}]{probability:.0%} probable[/]"

    def _header(self, info: SessionInfo) -> RenderableType:
        top = Table.grid(expand=True, padding=(0, 1))
        top.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        top.add_column(no_wrap=True, justify="right")
        name = Text.assemble((" ovavel ", "bold reverse"), "  ", (self._line(info.source), "bold"))
        top.add_row(name, Text.assemble((clock(self._now_s, 0), "bold"), ("  live" if info.live else "  file", _QUIET)))
        dot = f" {self._dot} "
        model = dot.join(map(self._line, (info.model, info.licence, names_text(len(info.labels)))))
        runs = f"{engine(info)}{dot}{self._line(gate_text(info.gate, here=info.gate_checked_here))}"
        lines = [(f" {model}", _QUIET), (f" {runs}", _QUIET if info.gate and info.gate.passed else "yellow")]
        return Group(top, *(Text(line, style, no_wrap=True, overflow="ellipsis") for line, style in lines))

    def _timeline(self, info: SessionInfo, width: int, rows: int) -> Table:
        background = info.labels[-1]
        newest = max(self._seconds, default=_SPAN - 1)
        columns = range(newest - _SPAN + 1, newest + 1)
        won = {scores.label for scores in self._seconds.values()} - {background}
        # A label keeps its row for as long as it is to be seen.
        self._rows = dict.fromkeys([label for label in self._rows if label in won] + sorted(won - self._rows.keys()))
        name_width = min(max(16, *(len(self._line(label)) for label in self._rows)) if self._rows else 16, width // 3)
        cell = min(12, (width - name_width - 2) // _SPAN)
        table = Table.grid(padding=(0, 0))
        table.add_column(width=name_width + 2, no_wrap=True, overflow="ellipsis")
        for _ in columns:
            table.add_column(width=cell, no_wrap=True)
        table.add_row("", *(self._second_name(index, newest, cell) for index in columns))
        senses: tuple[tuple[Sense, str], ...] = (("vision", "not seen"), ("audio", "not heard"))
        lacking = [(sense, name) for sense, name in senses if any(sense in s.missing for s in self._seconds.values())]
        for label in list(self._rows)[: rows - len(lacking)]:
            c = info.labels.index(label)
            cells = (self._cell(self._seconds.get(index), c, label, cell - 1) for index in columns)
            table.add_row(Text(self._line(label), "bold"), *cells)
        if not self._rows:
            table.add_row(Text("nothing yet", _QUIET))
        for sense, name in lacking:
            marks = (
                "x" * (cell - 1) if i in self._seconds and sense in self._seconds[i].missing else "" for i in columns
            )
            table.add_row(Text(name, "yellow"), *(Text(mark, "yellow") for mark in marks))
        return _padded(table, 4)

    def _second_name(self, index: int, newest: int, width: int) -> Text:
        if index < 0:
            return Text()
        start_s = index * WINDOW_S
        name = clock(start_s, 0) if width > 5 and index % 5 == 0 else f"{int(start_s) % 60:02}"
        return Text(name, "bold" if index == newest else _QUIET)

    def _cell(self, scores: SegmentScores | None, c: int, label: str, width: int) -> Text:
        """One second of one label: a filled column once final, shaded before; in colour where the label won.

        Both show how far it is above the background.
        """
        if scores is None or scores.missing or scores.skipped or not np.isfinite(scores.scores[c]):
            return Text("")
        margin = float(np.clip(scores.scores[c] - scores.scores[-1], 0, 1))
        glyphs = self._heights if scores.final else self._shades
        glyph = glyphs[min(int(margin * len(glyphs)), len(glyphs) - 1)]
        colour = RAMP[min(int(margin * len(RAMP)), len(RAMP) - 1)]
        return (
            Text(glyph * width, colour) if scores.label == label else Text(glyph * width, Style(color=_QUIET, dim=True))
        )

    def _evidence(self, info: SessionInfo, width: int, rows: int) -> Table:
        """Both senses' similarities for the best classes of the newest second, relative to the best of all."""
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        table.add_column(no_wrap=True, justify="right")
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        bar = max(4, min(_BAR * 2, (width - 36) // 2))
        table.add_row("", *(Text(name, _QUIET) for name in ("score", "seen", "heard")))
        scores = self._seconds[max(self._seconds)] if self._seconds else None
        if scores is None:
            table.add_row(Text("nothing yet", _QUIET))
            return _padded(table, rows + 1)
        for c in np.argsort(-scores.scores, kind="stable")[:rows]:
            won = info.labels[c] == scores.label
            unseen = "not looked at" if scores.skipped else "missing"
            seen = self._bar(scores.vision_similarity, int(c), bar, SENSES["vision"], unseen)
            heard = self._bar(scores.audio_similarity, int(c), bar, SENSES["audio"])
            score = f"{scores.scores[c]:.2f}" if np.isfinite(scores.scores[c]) else "-"
            table.add_row(
                Text(self._line(info.labels[c]), "bold" if won else ""),
                Text(score, "bold" if won else ""),
                seen,
                heard,
            )
        return table

    def _bar(self, similarity: NDArray[np.float32], c: int, width: int, colour: str, absent: str = "missing") -> Text:
        if not np.isfinite(similarity[c]):
            return Text(absent[: width + 5].ljust(width + 5), "yellow" if absent == "missing" else _QUIET)
        best = float(np.nanmax(similarity))
        filled = round(width * min(1.0, max(0.0, float(similarity[c]) / best))) if best > 0 else 0
        full, rest = self._strokes
        value = f"{similarity[c]:.2f}".rjust(5)
        return Text.assemble((full * filled, colour), (rest * (width - filled), _QUIET), value)

    def _event_list(self, rows: int) -> Table:
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(no_wrap=True)
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        table.add_column(no_wrap=True, justify="right")
        table.add_column(no_wrap=True)
        newest_first = sorted(self._events.values(), key=lambda event: (-event.start_s, -event.id))
        for event in newest_first[:rows]:
            colour = _STATE_COLOUR[event.state]
            style = "" if event.state in ("start", "update") else _QUIET
            table.add_row(
                Text(
                    f"{clock(event.start_s)} {clock(event.end_s)}" if event.state == "end" else clock(event.start_s),
                    style,
                ),
                Text(self._line(event.label), style + " strike" if event.state == "retract" else f"{style} bold"),
                Text(_surety(event), style),
                Text(_STATE_NAME[event.state], colour),
            )
        if not newest_first:
            table.add_row(Text("none yet", _QUIET))
        return _padded(table, rows)

    def _figures(self, stats: Stats) -> RenderableType:
        latency = stats.timings.percentiles("latency")
        factor = stats.real_time_factor
        line = Text(" ")
        if latency:  # only what is live has one
            latencies = f"p50 {latency.p50:.0f}  p95 {latency.p95:.0f}  p99 {latency.p99:.0f} ms   "
            line.append("latency ", _QUIET).append(latencies)
        line.append("real time ", _QUIET).append(f"{self._times}{factor:.2f}", "" if factor < 1 else "bold red")
        line.append("\n windows ", _QUIET).append(str(stats.windows))
        for name, by_cause in (("dropped", counts(stats.dropped)), ("gaps", counts(stats.gap_s, " s"))):
            line.append(f"   {name} ", _QUIET).append(by_cause, "" if by_cause == "none" else "yellow")
        if (economy := stats.economy.figures).pictures:
            line.append("   pictures encoded ", _QUIET).append(f"{economy.encoded} of {economy.pictures}")
        return line


def _surety(event: Event) -> str:
    """The probability as a percentage where there is one, else the margin."""
    return f"{event.peak_margin:.2f}" if event.peak_probability is None else f"{event.peak_probability:.0%}"


def _padded(table: Table, rows: int) -> Table:
    """Keep a panel at its height while its rows come and go."""
    for _ in range(rows - table.row_count):
        table.add_row("")
    return table
