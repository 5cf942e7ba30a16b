"""Report of `ovavel eval score`: the table beside the published figures, JSON, CSV, and one HTML page.

Shapes: N clips, T segments per clip, C classes with the background last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from ovavel.eval.accuracy.bootstrap import LEVEL, RESAMPLES, SEED, Interval, intervals
from ovavel.eval.accuracy.detection import SHOWN, Detection, MeanAP
from ovavel.eval.accuracy.llm.figures import LLMRun
from ovavel.eval.accuracy.metrics import Scores
from ovavel.eval.accuracy.protocols import PUBLISHED, Rows
from ovavel.eval.accuracy.score import ASKED, Report
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.reporting.csv_table import csv_table

__all__ = [
    "MAP_HEAD",
    "MEASURES",
    "PARTS",
    "class_results",
    "clip_scores",
    "confusion",
    "interval_note",
    "interval_rows",
    "map_rows",
    "method",
    "note",
    "table_rows",
    "to_csv",
    "to_json",
    "top_confusions",
]

MEASURES = ("Acc", "Seg", "Eve", "Avg")
PARTS = ("seen", "unseen", "total")
MAP_HEAD = ("method", *(f"{threshold:g}" for threshold in SHOWN), "mean of 0.1 to 0.9")
"""Titles of `map_rows`."""
_CONFUSIONS = 20


class ClassResult(NamedTuple):
    """The clips of one class."""

    name: str
    seen: bool
    clips: int
    scores: Scores


def method(report: Report, protocol: str) -> str:
    """Name of our row in the table."""
    if report.llm and protocol in ASKED:
        return report.llm.method(ASKED[protocol])
    assert report.bundle
    model = report.bundle.manifest.model
    layers = model.head_layers
    blocks = f"{layers or 'no'} block{'' if layers == 1 else 's'}"
    return {
        "fused": f"ovavel fused, {blocks if model.head == 'temporal' else model.head}",
        "fused-positive": "ovavel fused, no negatives",
        "agreement": "ovavel agreement",
        "agreement-without-other": "ovavel agreement, no other",
    }.get(protocol, f"ovavel {protocol}")


def table_rows(report: Report) -> list[tuple[str, ...]]:
    """Rows of the table: a method and its 12 figures in points; published ones first, where they are of this split."""
    published = [(name, each.rows) for name, each in PUBLISHED.items() if each.rows] if report.as_published else []
    ours = [(method(report, result.protocol), result.rows) for result in report.results]
    return [(name, *_points(rows)) for name, rows in (*published, *ours)]


def _points(rows: Rows) -> Iterator[str]:
    for scores in rows:
        yield from ("–",) * 4 if scores is None else (f"{100 * value:.1f}" for value in scores)


def note(report: Report) -> str:
    """Describe the published rows, or explain why there are none."""
    if report.as_published:
        return f"The rows not of ovavel are the published figures on this split ({PUBLISHED['fine-tuned'].source})."
    return report.why_not_published


def interval_rows(report: Report) -> list[tuple[str, ...]]:
    """For each of our rows: the method, and the ends of the 12 intervals in points, such as "56.1–58.0"."""
    return [
        (method(report, result.protocol), *(text for part in PARTS for text in _ends(found[part])))
        for result, found in zip(report.results, _intervals(report), strict=True)
    ]


def map_rows(report: Report) -> list[tuple[str, ...]]:
    """For each of our rows: the method, and its mAP in points; none where no recording is whole."""
    return [
        (name, *(f"{100 * found.at[threshold]:.1f}" for threshold in SHOWN), f"{100 * found.average:.1f}")
        for name, found in _mean_aps(report)
    ]


def _mean_aps(report: Report) -> list[tuple[str, MeanAP]]:
    if not report.detection or not report.detection.results:
        return []
    names = (method(report, each.protocol) for each in report.results)
    return list(zip(names, report.detection.results, strict=True))


def interval_note() -> str:
    """Describe the intervals."""
    return (
        f"Intervals: {LEVEL:.0%} of {RESAMPLES} draws of as many clips with replacement (bootstrap, percentiles, seed "
        f"{SEED}). They are about the clips; another seed of training moves scores too."
    )


def _intervals(report: Report) -> list[dict[str, Interval | None]]:
    seen = np.array([clip.seen for clip in report.clips])
    return [intervals(result.each(report.truth, len(report.names)), seen) for result in report.results]


def _ends(found: Interval | None) -> Iterator[str]:
    if found is None:
        yield from ("–",) * len(MEASURES)
    else:
        yield from (f"{100 * low:.1f}–{100 * high:.1f}" for low, high in zip(*found, strict=True))


def class_results(report: Report) -> list[ClassResult]:
    """The first protocol's scores by class, in the order of the names; classes without a clip are left out."""
    found = []
    for name in report.names:
        keep = np.array([clip.category == name for clip in report.clips])
        if keep.any():
            scores = report.results[0].score(keep, report.truth, len(report.names))
            seen = report.clips[int(keep.argmax())].seen
            found.append(ClassResult(name, seen, int(keep.sum()), scores))
    return found


def clip_scores(report: Report) -> list[Scores]:
    """The first protocol's scores of each clip."""
    return [Scores(*row) for row in report.results[0].each(report.truth, len(report.names)).tolist()]


def confusion(report: Report) -> NDArray[np.intp]:
    """(C, C) segments by true class (row) and decided class (column), in the first protocol."""
    n_classes = len(report.names)
    pairs = report.one_truth * n_classes + report.results[0].labels
    counts: NDArray[np.intp] = np.bincount(pairs.ravel(), minlength=n_classes**2).reshape(n_classes, n_classes)
    return counts


def top_confusions(report: Report, counts: NDArray[np.intp]) -> list[tuple[str, str, int, float]]:
    """True class, decided class, segments, share of the true class's segments; most segments first."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_CONFUSIONS]
    pairs = [divmod(int(index), len(counts)) for index in order if wrong.flat[index]]
    return [
        (
            report.names[true],
            report.names[said],
            int(counts[true, said]),
            float(counts[true, said] / counts[true].sum()),
        )
        for true, said in pairs
    ]


def to_json(report: Report) -> bytes:
    """Everything, down to the decision on every segment in the first protocol."""
    counts = confusion(report)
    kinds = Counter(record.kind for record in report.damaged)
    document = {
        "ovavel": version("ovavel"),
        "dataset": {
            "root": report.root,
            "fingerprint": report.dataset_fingerprint,
            "split": report.split,
            "names": report.names,
            "clips": len(report.clips) + len(report.damaged),
            "scored": len(report.clips),
            "damaged": {"count": len(report.damaged), "kinds": kinds, "clips": report.damaged},
        },
        "bundle": _bundle(report.bundle) if report.bundle else None,
        "llm": _llm(report.llm) if report.llm else None,
        "ran": report.ran,
        "backend": report.backend,
        "features": {"path": str(report.cache.path), "info": report.cache.info} if report.cache else None,
        "results": [
            {"protocol": result.protocol, "method": method(report, result.protocol), "rule": result.rule}
            | {part: scores and scores._asdict() for part, scores in result.rows._asdict().items()}
            | {"intervals": {part: found[part] and _named(found[part]) for part in PARTS}}
            for result, found in zip(report.results, _intervals(report), strict=True)
        ],
        "intervals": {"level": LEVEL, "resamples": RESAMPLES, "seed": SEED},
        **({"detection": _detection(report, report.detection)} if report.detection else {}),
        "why_not_published": report.why_not_published,
        "published": {
            name: {part: scores and scores._asdict() for part, scores in each.rows._asdict().items()}
            for name, each in PUBLISHED.items()
            if each.rows and report.as_published
        },
        "details_of": report.results[0].protocol,
        "classes": [
            {"name": each.name, "seen": each.seen, "clips": each.clips, **each.scores._asdict()}
            for each in class_results(report)
        ],
        "confusions": [
            {"truth": true, "decided": said, "segments": segments, "share": share}
            for true, said, segments, share in top_confusions(report, counts)
        ],
        "clips": [
            {"name": clip.name, "category": clip.category, "seen": clip.seen, **scores._asdict()}
            | {"truth": truth, "decided": decided}
            for clip, scores, truth, decided in zip(
                report.clips,
                clip_scores(report),
                _truths(report),
                report.results[0].labels.tolist(),
                strict=True,
            )
        ],
    }
    return msgspec.json.encode(document) + b"\n"


def _bundle(bundle: Bundle) -> dict[str, object]:
    model = bundle.manifest.model
    return {
        "path": str(bundle.path),
        "sha256": bundle.sha256,
        "model": model.name,
        "weights_sha256": model.weights_sha256,
        "head": model.head,
        "head_layers": model.head_layers,
        "head_sha256": model.head_sha256,
        "made_with": bundle.manifest.ovavel_version,
    }


def _detection(report: Report, detection: Detection) -> dict[str, object]:
    return {
        "recordings": detection.recordings,
        "left_out": detection.left_out,
        "events": detection.events,
        "results": [
            {
                "method": name,
                "map": {f"{threshold:g}": value for threshold, value in found.at.items()},
                "average": found.average,
                "classes": found.classes,
            }
            for name, found in _mean_aps(report)
        ],
    }


def _llm(run: LLMRun) -> dict[str, object]:
    figures = [
        {"method": run.method(each.question), **asdict(each), "invalid_share": each.invalid} for each in run.figures
    ]
    return {**asdict(run), "figures": figures}


def _truths(report: Report) -> list[list[object]]:
    """Of each clip and second the true class, or all of them where events may overlap."""
    if report.truth.ndim == 2:
        return [list(clip) for clip in report.truth.tolist()]
    return [[np.flatnonzero(second).tolist() for second in clip] for clip in report.truth]


def _named(found: Interval | None) -> dict[str, tuple[float, float]]:
    assert found
    return dict(zip(Scores._fields, zip(*found, strict=True), strict=True))


def to_csv(report: Report) -> bytes:
    """The table: a row for each method, part of the clips and measure, in [0, 1]; intervals for our own rows."""
    rows: list[tuple[object, ...]] = [("method", "published", "clips", "measure", "value", "low", "high")]
    ours = zip(report.results, _intervals(report), strict=True)
    for result, found in ours:
        for part, scores in result.rows._asdict().items():
            ends = found[part]
            for i, measure in enumerate(Scores._fields if scores else ()):
                low, high = (ends[0][i], ends[1][i]) if ends else ("", "")
                rows.append((method(report, result.protocol), "no", part, measure, scores[i], low, high))
    if llm := report.llm:
        rows += [(llm.method(each.question), "no", "total", "invalid", each.invalid, "", "") for each in llm.figures]
    for name, found_ap in _mean_aps(report):
        values = {f"mAP@{threshold:g}": value for threshold, value in found_ap.at.items()} | {"mAP": found_ap.average}
        rows += [(name, "no", "recordings", measure, value, "", "") for measure, value in values.items()]
    for name, each in PUBLISHED.items() if report.as_published else ():
        for part, scores in each.rows._asdict().items() if each.rows else ():
            rows += [(name, "yes", part, measure, scores[i], "", "") for i, measure in enumerate(Scores._fields)]
    return csv_table(rows)
