"""Result of `ovavel bench economy` as data, a table and a chart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec import Struct

from ovavel.eval.economy.cameras import held, on_time, simulate
from ovavel.eval.economy.costs import Costs
from ovavel.runtime.pipeline.window_queue import capacity
from ovavel.runtime.reporting.charts import Series, line_charts
from ovavel.runtime.types import EconomyMode

__all__ = ["Clock", "HELD_COLUMNS", "HeldReport", "StreamCosts", "held_cells", "held_json", "held_svg", "stream_costs"]

Clock: TypeAlias = Literal["wall", "cpu"]

_POINTS = 9
_BEYOND = 1.5


class StreamCosts(Struct, frozen=True, kw_only=True):
    """One stream in one mode, and how many cameras of it one encoder holds."""

    stream: str
    mode: EconomyMode
    seconds: int
    work_ms: float
    """Mean time of a second, from its window to its decision, by the report's clock."""
    work_p99_ms: float
    cpu_ms: float
    """The same of all cores."""
    encoded: float
    """Share of the pictures that were encoded, of all seconds."""
    wakes: int
    """Seconds for which several pictures had to be encoded."""
    wake_ms: float | None
    """Median time of these; None where there are none."""
    wake_max_ms: float | None
    room: int
    """Windows of a camera that may wait."""
    cameras: int
    """Most cameras of which no window is dropped."""
    missed: float
    """Share of the decisions later than a second with so many cameras."""
    cameras_on_time: int
    """Most cameras with 99 % of the decisions within a second."""
    second_ms: tuple[float, ...]
    """Time of each second, as it was replayed."""
    costs: Costs
    """Second by second, as measured."""


class HeldReport(Struct, frozen=True, kw_only=True):
    """Result of `ovavel bench economy`; the content of its JSON file."""

    bundle_sha256: str
    model: str
    ran: str
    """What was timed."""
    decided: str
    """What decided which pictures are needed."""
    rule: str
    clock: Clock
    """What the figures are of: the wall clock, or the time of the cores divided by their number."""
    load: tuple[float, float]
    """Processes that ran or waited, mean of a minute, before and after."""
    machine: Mapping[str, Any]
    streams: tuple[StreamCosts, ...]


def stream_costs(stream: str, mode: EconomyMode, costs: Costs, *, clock: Clock = "wall", cores: int = 1) -> StreamCosts:
    """Sum up one stream in one mode, and simulate cameras.

    `clock` says what a second takes: the time on the wall clock, or the time of processor cores, shared evenly by
    `cores` of them.
    """
    work_ms = costs.work_ms if clock == "wall" else tuple(ms / cores for ms in costs.cpu_ms)
    work_s = [ms / 1e3 for ms in work_ms]
    wakes = [ms for ms, pictures in zip(work_ms, costs.encoded, strict=True) if pictures > 1]
    room = capacity(sound_first=costs.sound_first)
    cameras = held(work_s, room)
    return StreamCosts(
        stream=stream,
        mode=mode,
        seconds=len(work_s),
        work_ms=float(np.mean(work_ms)),
        work_p99_ms=float(np.quantile(work_ms, 0.99)),
        cpu_ms=float(np.mean(costs.cpu_ms)),
        encoded=sum(costs.encoded) / len(work_s),
        wakes=len(wakes),
        wake_ms=float(np.median(wakes)) if wakes else None,
        wake_max_ms=max(wakes, default=None),
        room=room,
        cameras=cameras,
        missed=simulate(work_s, cameras, room).missed if cameras else 1.0,
        cameras_on_time=on_time(work_s, room),
        second_ms=work_ms,
        costs=costs,
    )


HELD_COLUMNS = (
    "stream",
    "economy",
    "work, ms",
    "p99, ms",
    "CPU, ms",
    "pictures encoded, %",
    "wakings",
    "waking, ms",
    "cameras held",
    "of these late, %",
    "cameras on time",
)


def held_cells(each: StreamCosts) -> tuple[str, ...]:
    """Format a row below `HELD_COLUMNS`."""
    waking = "–" if each.wake_ms is None else f"{each.wake_ms:.0f}, at most {each.wake_max_ms:.0f}"
    return (
        f"{each.stream}, {each.seconds} s",
        each.mode,
        f"{each.work_ms:.1f}",
        f"{each.work_p99_ms:.0f}",
        f"{each.cpu_ms:.1f}",
        f"{100 * each.encoded:.1f}",
        str(each.wakes),
        waking,
        str(each.cameras),
        f"{100 * each.missed:.1f}",
        str(each.cameras_on_time),
    )


def held_json(report: HeldReport) -> bytes:
    """Write the report as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"


def held_svg(streams: Sequence[StreamCosts]) -> bytes:
    """Draw what share of windows is dropped with how many cameras."""
    return line_charts(list(_panels(streams)), _numbers(streams), x_label="cameras").encode()


def _numbers(streams: Sequence[StreamCosts]) -> list[int]:
    most = _BEYOND * max(each.cameras for each in streams)
    return sorted({max(1, round(most * part / _POINTS)) for part in range(1, _POINTS + 1)})


def _panels(streams: Sequence[StreamCosts]) -> Iterator[tuple[str, list[Series]]]:
    for stream in dict.fromkeys(each.stream for each in streams):
        series = []
        for each in streams:
            if each.stream == stream:
                work_s = [ms / 1e3 for ms in each.second_ms]
                outcomes = [simulate(work_s, cameras, each.room) for cameras in _numbers(streams)]
                dropped = [100 * outcome.dropped / outcome.windows for outcome in outcomes]
                series.append(Series(each.mode, dropped, dashed=each.mode == "auto"))
        yield f"{stream}: windows dropped, %", series
