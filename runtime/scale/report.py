"""What lies in a folder of results: recordings done and failed, events by label, losses and rates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

import msgspec

from ovavel.runtime.errors import InputError
from ovavel.runtime.reporting.charts import row_charts
from ovavel.runtime.reporting.page import facts, page, section, table, text
from ovavel.runtime.reporting.text import clock, encodable
from ovavel.runtime.results import parse_json
from ovavel.runtime.scale.done import Done, Failed, ResultFolder, Summary
from ovavel.runtime.scale.worker import summary
from ovavel.runtime.sinks.as_json import to_json_bytes

__all__ = ["FolderReport", "LabelSum", "RecordingRow", "read_folder", "to_html", "to_json"]

_VERSION = 1
_HOUR_S = 3600.0
_BARS = 20
_LONGEST = 32
"""Characters of a label beside its bar."""
_ROWS = 1000
"""Most rows of a table of the page; the JSON file has all."""


class LabelSum(msgspec.Struct, frozen=True, kw_only=True):
    """All events of one label."""

    label: str
    events: int
    recordings: int
    """How many have such events."""
    duration_s: float
    events_per_hour: float
    """Of media."""


class RecordingRow(msgspec.Struct, frozen=True, kw_only=True):
    """One recording that is done."""

    recording: str
    duration_s: float
    events: int
    page: str | None
    """Its HTML page, below the folder; None where there is none."""


class FailedRow(msgspec.Struct, frozen=True, kw_only=True):
    """One recording without results."""

    recording: str
    cause: str
    attempts: int
    """Of localizing it; 0 where its results cannot be read."""


class FolderReport(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="ovavel.report"):
    """Content of report.json."""

    format_version: int = _VERSION
    done: int
    without_record: int
    """How many of those were localized without --shard and --on."""
    failed: tuple[FailedRow, ...]
    requests: int
    """Different bundles and options among the records; 1 unless somebody mixed them."""
    hours: float
    """Of media."""
    events: int
    events_per_hour: float
    labels: tuple[LabelSum, ...]
    """Most events first."""
    lost_s: dict[str, float]
    """Seconds that were lost, by sense and cause."""
    recordings: tuple[RecordingRow, ...]
    """By name."""


def read_folder(where: Path | str) -> FolderReport:
    """Sum up the results below a folder, or below a URL of object storage.

    Raises:
        InputError: there are none, or a record is damaged.
        StorageError: object storage cannot be reached, or refuses.
    """
    folder = ResultFolder(where)
    done: dict[str, Done] = {}
    failed: dict[str, Failed] = {}
    for record in folder.records():
        if isinstance(record, Failed):
            failed[record.recording] = record
        elif record.recording not in done or folder.intact(record, map(Path, record.outputs)):
            done[record.recording] = record  # of two contents of one name, the one whose results are there
    recorded = {name for record in done.values() for name in record.outputs}
    found = [(record.recording, record.summary, _page(record.outputs)) for record in done.values()]
    unreadable: list[FailedRow] = []
    others = 0
    names = set(folder.place.names("", ".ovavel.json", ".ovavel.html"))
    for name in sorted(names):
        if not name.endswith(".json") or encodable(name) in recorded:
            continue
        recording = encodable(name.removesuffix(".ovavel.json"))
        try:
            document = parse_json(folder.place.read(name) or b"", folder.place.shown(name))
        except InputError as error:
            unreadable.append(FailedRow(recording=recording, cause=encodable(str(error)), attempts=0))
            continue
        others += 1
        beside = name.removesuffix("json") + "html"
        parts = summary(document.duration_s, document.events, document.gaps)
        found.append((recording, parts, encodable(beside) if beside in names else None))
    if not (found or failed or unreadable):
        raise InputError(f"{where} holds no results of `ovavel localize`; name the folder that was given with --out")
    rows = [
        FailedRow(recording=each.recording, cause=each.cause, attempts=each.attempts)
        for each in failed.values()
        if each.recording not in done  # it has been localized since, from another content
    ]
    requests = {msgspec.json.encode(record.request) for record in done.values()}
    return _sum_up(found, [*rows, *unreadable], without_record=others, requests=len(requests))


def to_json(report: FolderReport) -> bytes:
    """Write report.json."""
    return to_json_bytes(report, indent=2) + b"\n"


def to_html(report: FolderReport, title: str, *, links: bool = True) -> bytes:
    """Write the page; `links`: it lies in the folder itself, so that it can lead to the pages of recordings."""
    return page(title, *_parts(report, links))


def _parts(report: FolderReport, links: bool) -> Iterator[str]:
    yield facts(
        (
            ("recordings", report.done),
            ("failed", len(report.failed)),
            ("media", f"{report.hours:.2f} h"),
            ("events", report.events),
            ("events an hour", f"{report.events_per_hour:.2f}"),
            ("labels with events", len(report.labels)),
        )
    )
    if report.requests > 1:
        yield section(
            "Mixed results",
            f'<p class="dim">These results were made with {report.requests} different bundles or options.</p>',
        )
    if report.failed:
        head = ("recording", "cause", "attempts")
        yield section(
            "Failed", table(head, [(row.recording, row.cause, row.attempts) for row in report.failed[:_ROWS]])
        )
    yield section("Events by label", *_labels(report))
    if report.lost_s:
        rows = [(cause, f"{lost_s:.1f}", _share(lost_s, report.hours)) for cause, lost_s in report.lost_s.items()]
        yield section("Lost", table(("sense and cause", "seconds", "share of the media, %"), rows))
    yield section("Recordings", _recordings(report.recordings, links))


def _labels(report: FolderReport) -> Iterator[str]:
    if not report.labels:
        yield '<p class="dim">Nothing was both seen and heard.</p>'
        return
    bars = [(_short(each.label), [("seconds of events", each.duration_s)]) for each in report.labels[:_BARS]]
    yield row_charts(bars, unit="s")
    head = ("label", "events", "an hour", "recordings", "seconds", "share of the media, %")
    yield table(
        head,
        [
            (
                each.label,
                each.events,
                f"{each.events_per_hour:.2f}",
                each.recordings,
                f"{each.duration_s:.1f}",
                _share(each.duration_s, report.hours),
            )
            for each in report.labels[:_ROWS]
        ],
    )


def _recordings(rows: tuple[RecordingRow, ...], links: bool) -> str:
    body = "".join(
        f"<tr><td>{_link(row) if links and row.page else text(row.recording)}</td>"
        f'<td class="n">{clock(row.duration_s)}</td><td class="n">{row.events}</td></tr>'
        for row in rows[:_ROWS]
    )
    head = '<tr><th>recording</th><th class="n">length</th><th class="n">events</th></tr>'
    more = len(rows) - _ROWS
    rest = f'<p class="dim">and {more} more; report.json has them all</p>' if more > 0 else ""
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>{rest}'


def _link(row: RecordingRow) -> str:
    return f'<a href="{quote(row.page or "")}">{text(row.recording)}</a>'


def _short(label: str) -> str:
    return label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…"


def _share(part_s: float, hours: float) -> str:
    return f"{100 * part_s / (hours * _HOUR_S):.2f}" if hours else "–"


def _page(outputs: Iterable[str]) -> str | None:
    return next((name for name in outputs if name.endswith(".html")), None)


def _sum_up(
    found: list[tuple[str, Summary, str | None]], failed: list[FailedRow], *, without_record: int, requests: int
) -> FolderReport:
    found.sort(key=lambda each: each[0])
    hours = sum(each.duration_s for _, each, _ in found) / _HOUR_S
    lost_s: defaultdict[str, float] = defaultdict(float)
    sums: dict[str, list[float]] = {}
    for _, each, _ in found:
        for cause, seconds in each.lost_s.items():
            lost_s[cause] += seconds
        for label, events in each.events.items():
            parts = sums.setdefault(label, [0, 0, 0.0])
            parts[0] += events.count
            parts[1] += 1
            parts[2] += events.duration_s
    total = sum(int(parts[0]) for parts in sums.values())
    return FolderReport(
        done=len(found),
        without_record=without_record,
        failed=tuple(sorted(failed, key=lambda row: row.recording)),
        requests=requests,
        hours=round(hours, 6),
        events=total,
        events_per_hour=_rate(total, hours),
        labels=tuple(
            LabelSum(
                label=label,
                events=int(parts[0]),
                recordings=int(parts[1]),
                duration_s=round(parts[2], 6),
                events_per_hour=_rate(parts[0], hours),
            )
            for label, parts in sorted(sums.items(), key=lambda item: (-item[1][0], item[0]))
        ),
        lost_s={cause: round(lost_s[cause], 6) for cause in sorted(lost_s)},
        recordings=tuple(
            RecordingRow(
                recording=name,
                duration_s=each.duration_s,
                events=sum(events.count for events in each.events.values()),
                page=where,
            )
            for name, each, where in found
        ),
    )


def _rate(count: float, hours: float) -> float:
    return round(count / hours, 6) if hours else 0.0
