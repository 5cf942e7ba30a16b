"""News as plain lines, for a log or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TextIO

from ovavel.runtime.economy.counts import EconomyFigures
from ovavel.runtime.reporting.streams import READABLE
from ovavel.runtime.reporting.text import clock, counts, names_text, one_line, seconds
from ovavel.runtime.session_info import SessionInfo
from ovavel.runtime.stats import Stats
from ovavel.runtime.types import Event, Update
from ovavel.runtime.verification.gates import gate_text

__all__ = ["LinesSink", "economy_lines", "engine", "summary_lines"]


class LinesSink:
    """Writes a line per piece of news, flushed at once; `BrokenPipeError` passes through.

    ::

        00:12.0  start    dog barking  margin 0.41
        00:12.0  end      dog barking  margin 0.45  until 00:15.0
    """

    name = "standard output"

    def __init__(self, stream: TextIO | None = None) -> None:
        """Write to `stream`; standard output by default."""
        self._stream = stream or sys.stdout
        self._stats: Stats | None = None
        self._ended = False

    def open(self, info: SessionInfo, stats: Stats) -> None:
        """Say what is watched and what it runs on."""
        self._stats = stats
        self._print(f"ready    {one_line(info.source)}: {one_line(info.model)} on {engine(info)}")
        self._print(f"         {names_text(len(info.labels))}; licence of the weights: {one_line(info.licence)}")
        self._print(f"         {one_line(gate_text(info.gate, here=info.gate_checked_here))}")
        if info.economy.asked != "off":
            self._print(f"         economy: {one_line(info.economy.text)}")
        for sense, word in (("vision", "picture"), ("audio", "sound")):
            if sense not in info.senses:
                self._print(f"         no {word}: nothing can be both seen and heard")

    def write(self, update: Update) -> None:
        """Write the notices, the gaps of the newest second, then the events."""
        for notice in update.notices:
            self._dated(notice.time_s, "notice", one_line(notice.message))
        if update.window:
            for gap in update.window.gaps:
                self._dated(gap.start_s, "gap", f"{one_line(gap.cause)} ({gap.sense})  {seconds(gap.duration_s)}")
        for event in update.events:
            self._dated(event.start_s, event.state, _event_text(event))
        self._ended = update.window is None

    def close(self) -> None:
        """Sum up, once, if the session came to its end."""
        stats, self._stats = self._stats, None
        if stats and self._ended:
            for line in summary_lines(stats):
                self._print(line)

    def _dated(self, time_s: float, kind: str, text: str) -> None:
        self._print(f"{clock(time_s)}  {kind:<7}  {text}")

    def _print(self, line: str) -> None:
        encoding = self._stream.encoding or "utf-8"
        self._stream.write(line.encode(encoding, READABLE).decode(encoding) + "\n")
        self._stream.flush()


def engine(info: SessionInfo) -> str:
    """What really runs, in a few words: device, provider, precision, threads."""
    backend = info.backend
    precisions = "/".join(dict.fromkeys(backend.precision.values()))
    threads = f", {backend.threads} threads" if backend.device == "cpu" else ""
    return one_line(f"{backend.device}, {backend.name} {backend.provider}, {precisions}{threads}")


def summary_lines(stats: Stats) -> Iterator[str]:
    """Sum up a session: windows, losses by cause, real-time factor, and the latency of a live one."""
    latency = stats.timings.percentiles("latency")
    latencies = f", latency p50 {latency.p50:.0f}  p95 {latency.p95:.0f}  p99 {latency.p99:.0f} ms" if latency else ""
    yield f"summary  {stats.windows} windows, real-time factor {stats.real_time_factor:.2f}{latencies}"
    yield f"         dropped: {counts(stats.dropped)}; gaps: {counts(stats.gap_s, ' s')}"
    if any(stats.channels):
        yield f"         sound listened to: {counts({f'channel {c}': n for c, n in stats.channels.items()}, ' s')}"
    yield from (f"         {line}" for line in economy_lines(stats.economy.figures))
    if stats.missing:
        yield f"         no event possible (missing audio or video): {counts(stats.missing, ' s')}"


def economy_lines(figures: EconomyFigures) -> Iterator[str]:
    """Sum up what was not computed; nothing where every picture was looked at by choice."""
    if not figures.pictures:
        return
    saved = "" if figures.saved is None else f", {figures.saved:.0%} of the operations saved"
    reused = f", {figures.reused} reused" if figures.reused else ""
    at_once = f", at most {figures.most_at_once} at once" if figures.most_at_once > 1 else ""
    yield f"pictures: {figures.encoded} of {figures.pictures} encoded{at_once}{reused}{saved}"
    if figures.sounds_reused:
        yield f"sounds: {figures.sounds - figures.sounds_reused} of {figures.sounds} encoded, the others reused"
    if figures.lost:
        yield f"pictures lost, as the engine failed: {figures.lost}"
    if figures.skipped:
        yield f"decided by sound alone: {counts(figures.skipped, ' s')}"
    if figures.audited:
        drift = "" if figures.drift_max is None else f", drift p99 {figures.drift_p99:.4f}  max {figures.drift_max:.4f}"
        yield f"audits: {figures.audited}, {figures.audits_failed} failed{drift}"


def _event_text(event: Event) -> str:
    until = f"  until {clock(event.end_s)}" if event.state in ("end", "update") else ""
    probability = "" if event.peak_probability is None else f"  probability {event.peak_probability:.2f}"
    return f"{one_line(event.label)}  margin {event.peak_margin:.2f}{probability}{until}"
