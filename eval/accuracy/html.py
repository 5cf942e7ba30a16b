"""The report of a scored split as a page of HTML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovavel.eval.accuracy.llm.figures import HEAD
from ovavel.eval.accuracy.metrics import Scores
from ovavel.eval.accuracy.report import (
    MAP_HEAD,
    MEASURES,
    PARTS,
    class_results,
    clip_scores,
    confusion,
    interval_note,
    interval_rows,
    map_rows,
    method,
    note,
    table_rows,
    top_confusions,
)
from ovavel.eval.accuracy.score import Report
from ovavel.runtime.backends import BackendInfo
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.reporting.page import facts, lane, page, section, table, text
from ovavel.runtime.reporting.palette import RIGHT, WRONG
from ovavel.runtime.reporting.text import names_text

__all__ = ["to_html"]

_EXAMPLES = 12


def to_html(report: Report) -> bytes:
    """The page: table, damaged clips, classes, confusions, best and worst clips."""
    rows, first, counts = table_rows(report), report.results[0], confusion(report)
    ours = range(len(rows) - len(report.results), len(rows))
    head = ("method", *(f"{part} {measure}" for part in PARTS for measure in MEASURES))
    classes = sorted(class_results(report), key=lambda each: -each.scores.avg)
    shown = method(report, first.protocol)
    return page(
        f"{'OV-AVEBench' if report.as_published else Path(report.root).name}, {report.split} split",
        facts(_facts(report)),
        section(
            "Scores",
            table(head, rows, bold=ours),
            f'<p class="{"warning" if note(report).startswith("WARNING") else "dim"}">{text(note(report))}</p>',
            f'<p class="dim">{text(report.ran)}</p>',
        ),
        section("Intervals", table(head, interval_rows(report)), f'<p class="dim">{text(interval_note())}</p>'),
        _mean_ap(report),
        section("Answers", table(HEAD, report.llm.rows)) if report.llm else "",
        _damaged(report),
        section(
            f"Classes: {shown}",
            table(
                ("class", "", "clips", *MEASURES),
                [
                    (each.name, "seen" if each.seen else "unseen", str(each.clips), *_percent(each.scores))
                    for each in classes
                ],
            ),
        ),
        section(
            f"Confusions: {shown}",
            table(
                ("true class", "decided", "segments", "% of the true class"),
                [(a, b, str(n), f"{100 * share:.1f}") for a, b, n, share in top_confusions(report, counts)],
            ),
            '<p class="dim">Every class: rows are the truth, columns what was decided; the stronger the colour, the '
            "larger the share of the row. The background is last.</p>",
            _heat_map(report, counts),
        ),
        *_examples(report),
    )


def _mean_ap(report: Report) -> str:
    if not report.detection:
        return ""
    found = f'<p class="dim">{text(report.detection.counted)}</p>'
    return section("mAP at temporal IoU", found, table(MAP_HEAD, map_rows(report)))


def _percent(scores: Scores) -> tuple[str, ...]:
    return tuple(f"{100 * value:.1f}" for value in scores)


def _facts(report: Report) -> Iterator[tuple[str, object]]:
    yield "scored", report.counted
    yield "dataset", f"{report.root}, annotations {report.dataset_fingerprint[:12]}"
    yield "vocabulary", names_text(len(report.names))
    versions = {"ovavel": version("ovavel")}
    if report.llm:
        yield "asked", f"{report.llm.model} at {report.llm.server}"
    if report.bundle and report.backend:
        versions |= dict(report.backend.versions)
        yield from _engine(report, report.bundle, report.backend)
    yield "versions", ", ".join(f"{k} {v}" for k, v in versions.items())


def _engine(report: Report, bundle: Bundle, info: BackendInfo) -> Iterator[tuple[str, object]]:
    yield "bundle", f"{bundle.path.name} {bundle.sha256[:12]}"
    yield "model", bundle.manifest.model.name
    if report.cache:
        made = report.cache.info
        yield "embeddings", f"cache {report.cache.path.name}, {made.backend} {made.precision} on {made.device}"
        yield "head ran on", f"{info.device}, {info.name} {info.provider}"
    else:
        yield "ran on", f"{info.device}, {info.name} {info.provider}"
        yield "precision", ", ".join(f"{graph} {precision}" for graph, precision in info.precision.items())


def _damaged(report: Report) -> str:
    if not report.damaged:
        return ""
    rows = [(each.kind, f"{each.split}/{each.category}/{each.name}", each.message) for each in report.damaged]
    return section(f"Damaged clips, left out: {len(rows)}", table(("kind", "clip", "what is wrong"), sorted(rows)))


def _heat_map(report: Report, counts: NDArray[np.intp]) -> str:
    cell, left, top = 12, 190, 130
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = len(counts) * cell
    labels = "".join(
        f'<text x="{left - 5}" y="{top + i * cell + 9}" text-anchor="end">{text(name[:32])}</text>'
        f'<text transform="translate({left + i * cell + 9} {top - 5}) rotate(-90)">{text(name[:22])}</text>'
        for i, name in enumerate(report.names)
    )
    cells = "".join(
        f'<rect x="{left + said * cell}" y="{top + true * cell}" width="{cell - 1}" height="{cell - 1}" '
        f'fill="{RIGHT if true == said else WRONG}" opacity="{0.08 + 0.92 * share[true, said]:.2f}"><title>'
        f"{text(report.names[true])} as {text(report.names[said])}: {counts[true, said]} segments</title></rect>"
        for true, said in np.argwhere(counts).tolist()
    )
    return (
        f'<svg class="heat" viewBox="0 0 {left + size} {top + size}" width="{left + size}" role="img" '
        'font-size="9" font-family="system-ui,sans-serif" fill="currentColor"><title>confusion of classes</title>'
        f'<rect x="{left}" y="{top}" width="{size}" height="{size}" fill="none" stroke="currentColor" opacity=".25"/>'
        f"{labels}{cells}</svg>"
    )


def _examples(report: Report) -> Iterator[str]:
    scores = clip_scores(report)
    background = len(report.names) - 1
    eventful = np.flatnonzero((report.one_truth != background).any(axis=1)).tolist()
    best = sorted(eventful, key=lambda i: -scores[i].avg)
    worst = sorted(range(len(scores)), key=lambda i: scores[i].avg)
    key = (
        '<p class="dim">Blue: an event. Green: decided as it is. Red: another class, or an event where there is none. '
        "Hatched: an event that was missed. One clip for each class.</p>"
    )
    for title, order in (("Best clips", best), ("Worst clips", worst)):
        chosen = _one_a_class(report, order)[:_EXAMPLES]
        yield section(title, key, "".join(_clip(report, i, scores[i]) for i in chosen))


def _one_a_class(report: Report, order: Sequence[int]) -> list[int]:
    first: dict[str, int] = {}
    for i in order:
        first.setdefault(report.clips[i].category, i)
    return list(first.values())


def _clip(report: Report, i: int, scores: Scores) -> str:
    background, clip = len(report.names) - 1, report.clips[i]
    truth, decided = report.one_truth[i].tolist(), report.results[0].labels[i].tolist()

    def named(c: int) -> str:
        return report.names[c]

    kinds = [
        ("none" if true == background else "right") if true == said else ("miss" if said == background else "wrong")
        for true, said in zip(truth, decided, strict=True)
    ]
    figures = ", ".join(f"{measure} {value}" for measure, value in zip(MEASURES, _percent(scores), strict=True))
    seen = "seen" if clip.seen else "unseen"
    return (
        f'<p class="dim">{text(clip.category)} / {text(clip.name)} ({seen}): {figures}</p>'
        + lane("truth", [("none" if c == background else "true", named(c)) for c in truth])
        + lane("decided", [(kind, named(c)) for kind, c in zip(kinds, decided, strict=True)])
    )
