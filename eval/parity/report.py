"""Report of `ovavel eval parity` as JSON and as an HTML page that shows the worst cases.

Shapes: H, W frame height and width; n samples.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovavel.eval.accuracy.metrics import Scores
from ovavel.eval.parity.clips import Clips, adversarial_frames, adversarial_waveforms
from ovavel.eval.parity.compare import ParityReport
from ovavel.eval.parity.figures import EmbeddingFigures, Place
from ovavel.runtime.bundle.graphs import TEXT_GRAPHS, Graph
from ovavel.runtime.reporting.charts import Histogram, histograms
from ovavel.runtime.reporting.page import facts, page, section, table, text
from ovavel.runtime.reporting.palette import SENSES
from ovavel.runtime.results.thumbnails import thumbnail
from ovavel.runtime.sinks.as_json import to_json_bytes
from ovavel.runtime.types import Window

__all__ = [
    "FLIP_COLUMNS",
    "GRAPH_COLUMNS",
    "MEASURE_COLUMNS",
    "decision_facts",
    "flip_cells",
    "graph_rows",
    "look_again",
    "measure_rows",
    "to_html",
    "to_json",
    "verdict",
]

FORMAT_VERSION = 1
FLIP_COLUMNS = ("where", "reference", "its margin", "candidate", "its margin")
GRAPH_COLUMNS = ("encoder", "inputs", "cosine min", "cosine p1", "cosine mean", "largest difference", "worst on")
MEASURE_COLUMNS = ("", "reference", "candidate", "difference")

_SHOWN = 6
_FLIPS = 12
_WAVE_WIDTH, _WAVE_HEIGHT = 240, 60
_FINEST = -14
"""Exponent of the smallest difference from a cosine of 1 that a histogram shows."""

Look = Callable[[Graph, Place], Window | None]
"""Finds the window of an embedding; None if there is none to show."""


def look_again(clips: Clips) -> Look:
    """Return a function that finds a second of `clips`, or an adversarial input, to show it."""
    frames, waveforms = adversarial_frames(), adversarial_waveforms()

    def look(graph: Graph, place: Place) -> Window | None:
        if place.second is not None:
            return clips.window(place.name, place.second)
        frame = frames.get(place.name) if graph == "vision" else None
        waveform = waveforms.get(place.name) if graph == "audio" else None
        if frame is None and waveform is None:
            return None
        return Window(index=0, start_s=0.0, frame=frame, waveform=waveform, captured_s=0.0)

    return look


def verdict(report: ParityReport) -> str:
    """Summarize in a sentence whether the gate passed, and if not, where it failed."""
    if report.failed_stage is None:
        return f"passed: {report.candidate} agrees with {report.reference}"
    return f"NOT passed: {report.gate.failures[0]}"


def graph_rows(report: ParityReport) -> list[tuple[str, ...]]:
    """Return a row of `GRAPH_COLUMNS` for each encoder."""
    return [
        (
            each.graph,
            str(len(each.places)),
            f"{each.found.cosine.min():.7f}",
            f"{each.p1_cosine:.7f}",
            f"{each.found.cosine.mean():.7f}",
            f"{each.found.away.max():.1e}",
            str(each.places[each.worst(1)[0]]),
        )
        for each in report.embeddings
    ]


def measure_rows(report: ParityReport) -> list[tuple[str, str, str, str]]:
    """Return a row of `MEASURE_COLUMNS` for each measure, in percent."""
    found = report.decisions
    return [
        (f"{name.capitalize()}.", f"{theirs:.2%}", f"{ours:.2%}", f"{100 * (ours - theirs):+.2f}")
        for name, theirs, ours in zip(Scores._fields, found.reference, found.candidate, strict=True)
    ]


def decision_facts(report: ParityReport) -> list[tuple[str, str]]:
    """Return the figures for similarities, scores and decisions, by name."""
    found = report.decisions
    drift = found.drift
    return [
        ("seconds", str(found.seconds)),
        ("top-1 agreement (decisions)", f"{found.alike:.2%}"),
        ("top-5 agreement", f"{found.top5:.2%}"),
        ("event IoU", f"{found.event_iou:.4f}"),
        ("largest similarity difference", f"vision {found.vision_similarity:.1e}, audio {found.audio_similarity:.1e}"),
        ("score drift", f"mean {drift.mean():.1e}, p99 {np.percentile(drift, 99):.1e}, at most {drift.max():.1e}"),
        ("flipped seconds", str(len(found.flips))),
    ]


def flip_cells(report: ParityReport, most: int | None = None) -> list[tuple[str, ...]]:
    """Return a row of `FLIP_COLUMNS` for each flipped second, those clearest to the reference first."""
    return [
        (
            str(flip.place),
            flip.reference,
            f"{flip.reference_margin:.3f}",
            flip.candidate,
            f"{flip.candidate_margin:.3f}",
        )
        for flip in report.decisions.flips[:most]
    ]


def to_json(report: ParityReport) -> bytes:
    """Write all figures, including every flipped second."""
    found = report.decisions
    document: dict[str, Any] = {
        "type": "ovavel.parity",
        "format_version": FORMAT_VERSION,
        "bundle_sha256": report.bundle.sha256,
        "reference": report.reference,
        "candidate": report.candidate,
        "clips": report.clips,
        "passed": report.gate.passed,
        "failed_stage": report.failed_stage,
        "stages": [{"stage": each.stage, "measured": each.summary, "failure": each.failure} for each in report.stages],
        "embeddings": {
            each.graph: {
                "inputs": len(each.places),
                "cosine": {
                    "min": float(each.found.cosine.min()),
                    "p1": each.p1_cosine,
                    "mean": float(each.found.cosine.mean()),
                },
                "max_abs_difference": float(each.found.away.max()),
                "worst": [
                    {
                        "where": str(each.places[i]),
                        "cosine": float(each.found.cosine[i]),
                        "max_abs": float(each.found.away[i]),
                    }
                    for i in each.worst(_SHOWN)
                ],
            }
            for each in report.embeddings
        },
        "decisions": {
            "seconds": found.seconds,
            "alike": found.alike,
            "top5": found.top5,
            "event_iou": found.event_iou,
            "vision_similarity": found.vision_similarity,
            "audio_similarity": found.audio_similarity,
            "score_drift": {
                "mean": float(found.drift.mean()),
                "p99": float(np.percentile(found.drift, 99)),
                "max": float(found.drift.max()),
            },
            "flips": [
                {
                    "clip": flip.place.name,
                    "second": flip.place.second,
                    "reference": flip.reference,
                    "reference_margin": flip.reference_margin,
                    "candidate": flip.candidate,
                    "candidate_margin": flip.candidate_margin,
                }
                for flip in found.flips
            ],
        },
        "truth": "the dataset's" if found.labelled else "the reference's decisions",
        "measures": {
            name: {"reference": theirs, "candidate": ours, "difference": ours - theirs}
            for name, theirs, ours in zip(Scores._fields, found.reference, found.candidate, strict=True)
        },
        "gate": report.gate,
    }
    return to_json_bytes(document, indent=2) + b"\n"


def to_html(report: ParityReport, look: Look) -> bytes:
    """Write the page; `look` finds the windows that are shown."""
    gate = report.gate
    return page(
        f"Parity: {report.candidate} against {report.reference}",
        facts(
            [
                ("bundle", report.bundle.sha256[:12]),
                ("model", report.bundle.manifest.model.name),
                ("device", gate.device),
                ("precision", ", ".join(f"{graph} {precision}" for graph, precision in gate.precision.items())),
                ("versions", ", ".join(f"{name} {number}" for name, number in gate.versions.items())),
                ("compared on", f"{report.clips}, and adversarial inputs"),
            ]
        ),
        section(
            "Gate",
            f"<p><b>{text(verdict(report))}</b></p>",
            table(
                ("stage", "", "measured"),
                [
                    (each.stage, "failed" if each.failure else "ok", each.failure or each.summary)
                    for each in report.stages
                ],
                bold=[i for i, each in enumerate(report.stages) if each.failure],
            ),
            '<p class="dim">Every stage but the last gets the outputs of the reference, so that one fault shows '
            "in one stage. The first failed stage is where to look.</p>",
        ),
        section("Embeddings", table(GRAPH_COLUMNS, graph_rows(report)), _cosine_charts(report.embeddings)),
        section("Decisions", facts(decision_facts(report)), _drift_chart(report), *_measures(report)),
        section("Flipped seconds", *_flips(report, look)),
        *(_worst(each, look) for each in report.embeddings if each.graph not in TEXT_GRAPHS),
    )


def _measures(report: ParityReport) -> Iterator[str]:
    yield table(MEASURE_COLUMNS, measure_rows(report))
    if not report.decisions.labelled:
        yield '<p class="dim">These recordings are not labelled; the reference\'s decisions stand in for the truth.</p>'


def _flips(report: ParityReport, look: Look) -> Iterator[str]:
    flips = report.decisions.flips
    if not flips:
        yield "<p>None.</p>"
        return
    yield table(FLIP_COLUMNS, flip_cells(report))
    cards = []
    for flip in flips[:_FLIPS]:
        summary = f"{flip.reference} ({flip.reference_margin:.3f}) → {flip.candidate} ({flip.candidate_margin:.3f})"
        cards.append(_card(look("vision", flip.place), str(flip.place), summary))
    yield _cards(cards)


def _worst(figures: EmbeddingFigures, look: Look) -> str:
    cards = []
    for i in figures.worst(_SHOWN):
        summary = f"cosine {figures.found.cosine[i]:.7f}, largest difference {figures.found.away[i]:.1e}"
        cards.append(_card(look(figures.graph, figures.places[i]), str(figures.places[i]), summary))
    return section(f"Worst cases of {figures.graph}", _cards(cards))


def _cards(cards: Sequence[str]) -> str:
    return f'<div style="display:flex;flex-wrap:wrap;gap:14px">{"".join(cards)}</div>'


def _card(window: Window | None, where: str, summary: str) -> str:
    parts = []
    if window and window.frame is not None:
        data = b64encode(thumbnail(window.frame)).decode()
        parts.append(f'<img alt="{text(where)}" src="data:image/jpeg;base64,{data}" style="border-radius:6px">')
    if window and window.waveform is not None:
        parts.append(_waveform(window.waveform))
    return (
        f'<figure style="margin:0;width:{_WAVE_WIDTH}px">{"".join(parts)}'
        f'<figcaption style="font-size:13px">{text(where)}<br><span class="dim">{text(summary)}</span></figcaption>'
        "</figure>"
    )


def _waveform(waveform: NDArray[np.float32]) -> str:
    """Draw the first channel of (channels, n) as an SVG of its extremes, column by column."""
    columns = np.array_split(waveform[0], _WAVE_WIDTH)
    middle = _WAVE_HEIGHT / 2
    path = "".join(
        f"M{x} {middle - middle * float(np.clip(part.max(), -1, 1)):.1f}"
        f"V{middle - middle * float(np.clip(part.min(), -1, 1)) + 0.5:.1f}"
        for x, part in enumerate(columns)
    )
    return (
        f'<svg viewBox="0 0 {_WAVE_WIDTH} {_WAVE_HEIGHT}" width="{_WAVE_WIDTH}" height="{_WAVE_HEIGHT}" role="img" '
        f'aria-label="waveform"><path d="{path}" fill="none" stroke="{SENSES["audio"]}" stroke-width="1"/></svg>'
    )


def _cosine_charts(embeddings: Sequence[EmbeddingFigures]) -> str:
    panels = []
    for each in embeddings:
        power = np.log10(np.clip(1 - each.found.cosine, 10.0**_FINEST, 2.0))
        panels.append(Histogram(f"{each.graph}: {len(each.places)} inputs", power, float(_FINEST), 0.5))
    return histograms(panels, x_label="1 − cosine, as a power of ten: further left is closer")


def _drift_chart(report: ParityReport) -> str:
    drift = np.log10(np.clip(report.decisions.drift, 1e-9, 1.0))
    flips = np.array([flip.reference_margin for flip in report.decisions.flips])
    panels = [Histogram(f"score drift of {len(drift)} seconds, as a power of ten", drift, -9.0, 0.0)]
    if len(flips):
        panels.append(Histogram(f"margins of the {len(flips)} flipped seconds", flips, 0.0, 1.0))
    return histograms(panels, x_label="")
