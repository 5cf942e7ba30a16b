"""Events as a table: CSV, and labels for Audacity."""

from __future__ import annotations

import csv
import io

from ovavel.runtime.reporting.text import cell, one_line
from ovavel.runtime.results.localization import Localization

__all__ = ["to_audacity", "to_csv"]


def to_csv(localization: Localization) -> bytes:
    """Write a row per event: start_s, end_s, label, peak_score, peak_margin. UTF-8; text is quoted, a row is a line.

    A label that a spreadsheet would run as a formula has an apostrophe before it, see `cell`. With a calibrated bundle
    there is a last column, peak_probability.
    """
    text = io.StringIO(newline="")
    table = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    calibrated = any(event.peak_probability is not None for event in localization.events)
    columns = ("start_s", "end_s", "label", "peak_score", "peak_margin")
    table.writerow((*columns, "peak_probability") if calibrated else columns)
    table.writerows(
        (
            round(event.start_s, 3),
            round(event.end_s, 3),
            cell(event.label),
            round(event.peak_score, 4),
            round(event.peak_margin, 4),
            *(() if event.peak_probability is None else (round(event.peak_probability, 4),)),
        )
        for event in localization.events
    )
    return text.getvalue().encode()


def to_audacity(localization: Localization) -> bytes:
    """Write a label track: start, end and label with tabs between. UTF-8; labels are as in `to_csv`."""
    return "".join(
        f"{event.start_s:.6f}\t{event.end_s:.6f}\t{cell(one_line(event.label))}\n" for event in localization.events
    ).encode()
