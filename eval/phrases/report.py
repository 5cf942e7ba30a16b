"""Report of `ovavel vocab try`: JSON, and an HTML page with a timeline for every recording."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from ovavel.eval.phrases.trial import Phrase, Recording, Trial
from ovavel.runtime.backends import BackendInfo
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.reporting.page import facts, lane, page, section, table, text
from ovavel.runtime.reporting.text import names_text
from ovavel.runtime.sinks.as_json import to_json_bytes

__all__ = ["COLUMNS", "cells", "to_html", "to_json", "verdict"]

COLUMNS = ("", "phrase", "seconds won", "elsewhere", "F", "lead", "margin", "seen", "heard", "strongest other")
"""Titles of the table of phrases."""

_HINT = (
    "Seconds won: seconds of the event that would get this name if it were added on its own; elsewhere: seconds "
    "without the event that would get it. F: F score of these seconds, 1 at best. Lead: mean fused score over the "
    "strongest other class; above 0 it wins. Margin: over the background. Seen, heard: mean cosine with picture and "
    "sound after the temporal head."
)


def cells(phrase: Phrase) -> tuple[str, ...]:
    """Return a row of the table of phrases, in the order of `COLUMNS`."""
    numbers = (phrase.lead, phrase.margin, phrase.vision_similarity, phrase.audio_similarity)
    return (
        str(phrase.rank),
        phrase.phrase + (" (in the vocabulary)" if phrase.in_vocabulary else ""),
        f"{phrase.won_s} of {phrase.event_s}",
        str(phrase.elsewhere_s),
        f"{phrase.f:.2f}",
        *(f"{number:+.3f}" for number in numbers),
        phrase.rival,
    )


def verdict(trial: Trial) -> str:
    """Recommend a phrase in a sentence, with any ties, or report that none works."""
    best = [phrase for phrase in trial.phrases if phrase.rank == 1]
    first = best[0]
    if not trial.works:
        why = (
            "none of them would win a second of the event"
            if not any(phrase.won_s for phrase in trial.phrases)
            else f"the best, {first.phrase!r}, would win {first.won_s} of {first.event_s} s of the event and "
            f"{first.elsewhere_s} s elsewhere"
        )
        advice = (
            "Try other words for what is both seen and heard: these are no closer to it than the background"
            if first.rival == trial.background
            else f"{first.rival!r} is closer; try other words, or leave it out with --without if it means the same"
        )
        return f"No phrase works: {why}. {advice}."
    if len(best) > 1:
        return f"A tie: {', '.join(repr(phrase.phrase) for phrase in best)} work equally well."
    elsewhere = f", and {first.elsewhere_s} s elsewhere" if first.elsewhere_s else ""
    return f"Best: {first.phrase!r}, which would win {first.won_s} of {first.event_s} s of the event{elsewhere}."


def to_json(trial: Trial, recordings: Sequence[Recording], bundle: Bundle, backend: BackendInfo) -> bytes:
    """Write all figures, second by second; null for a second without one of the senses."""
    document = {
        "ovavel": version("ovavel"),
        "bundle": {"path": str(bundle.path), "sha256": bundle.sha256, "model": bundle.manifest.model.name},
        "backend": backend,
        "works": trial.works,
        "verdict": verdict(trial),
        "recordings": [
            {
                "path": recording.name,
                "seconds": len(recording.segments),
                "seconds_without_a_sense": recording.missing_s,
                "event": recording.event.tolist(),
                "labels_before": before,
            }
            for recording, before in zip(recordings, trial.before, strict=True)
        ],
        "phrases": [
            {name: getattr(phrase, name) for name in _SUMS}
            | {
                "recordings": [
                    {"path": clip.name, "labels": clip.labels, "rivals": clip.rivals}
                    | {name: _numbers(getattr(clip, name)) for name in _CURVES}
                    for clip in phrase.clips
                ]
            }
            for phrase in trial.phrases
        ],
    }
    return to_json_bytes(document, indent=2) + b"\n"


_SUMS = (
    *("phrase", "label", "rank", "in_vocabulary", "won_s", "event_s", "elsewhere_s", "f"),
    *("lead", "margin", "vision_similarity", "audio_similarity", "rival"),
)
_CURVES = ("lead", "margin", "vision_similarity", "audio_similarity")


def _numbers(values: NDArray[np.float32]) -> list[float | None]:
    return [None if math.isnan(value) else round(value, 5) for value in values.tolist()]


def to_html(trial: Trial, recordings: Sequence[Recording], bundle: Bundle, backend: BackendInfo) -> bytes:
    """Write the table, and for each recording and phrase the winner of each second."""
    names = (
        ("bundle", f"{bundle.path.name} {bundle.sha256[:12]}"),
        ("model", bundle.manifest.model.name),
        ("vocabulary", names_text(len(bundle.vocabulary))),
        ("ran on", f"{backend.device}, {backend.name} {backend.provider}"),
        ("ovavel", version("ovavel")),
    )
    best = [i for i, phrase in enumerate(trial.phrases) if phrase.rank == 1 and trial.works]
    return page(
        "Which words work",
        facts(names),
        section(
            verdict(trial),
            table(COLUMNS, [cells(phrase) for phrase in trial.phrases], bold=best),
            f'<p class="dim">{text(_HINT)}</p>',
        ),
        *(section(recording.name, "".join(_lanes(trial, recordings, n))) for n, recording in enumerate(recordings)),
        '<p class="dim">Green: the phrase wins a second of the event; red: it wins elsewhere; hatched: it misses a '
        "second of the event, which goes to the class named. Blue: where the event is. A pale cell is a second outside "
        "the event.</p>",
    )


def _lanes(trial: Trial, recordings: Sequence[Recording], n: int) -> Iterator[str]:
    event = recordings[n].event.tolist()
    seconds = f"{len(event)} s" + (
        f", {recordings[n].missing_s} of them without picture or sound" if recordings[n].missing_s else ""
    )
    yield f'<p class="dim">{seconds}</p>'
    yield lane("event", [("true" if on else "none", "event" if on else "") for on in event])
    yield lane("without any of them", [("none", label) for label in trial.before[n]])
    for phrase in trial.phrases:
        clip = phrase.clips[n]
        seconds_of_lane = []
        for on, label in zip(event, clip.labels, strict=True):
            won = label == phrase.label
            kind = ("right" if won else "miss") if on else ("wrong" if won else "none")
            seconds_of_lane.append((kind, label))
        yield lane(phrase.phrase, seconds_of_lane)
