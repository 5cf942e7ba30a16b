"""Draws `docs/economy.svg` from what `ovavel eval economy` wrote: what hours of days took and saved, by cause.

Usage: python docs/economy_picture.py docs/economy.svg FOLDER...
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from ovavel.eval.economy.report import EconomyReport, hour_parts
from ovavel.runtime.reporting.charts import row_charts


def main(out: str, *folders: str) -> None:
    """Draw a row for each hour of each group of days, rule and mode."""
    rows = []
    for folder in folders:
        report = msgspec.json.decode((Path(folder) / "economy.json").read_bytes(), type=EconomyReport)
        for each in report.comparisons:
            streams = [s for s in report.streams if (s.group, s.mode) == (each.group, each.mode)]
            for number in range(max(len(stream.hours) for stream in streams)):
                hours = [stream.hours[number] for stream in streams if number < len(stream.hours)]
                name = f"{each.group.removesuffix(' days')}, {report.rule}, {each.mode}, hour {number + 1}"
                rows.append((name, hour_parts(hours, report.work)))
    Path(out).write_text(row_charts(rows, unit="GFLOP a second"), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
