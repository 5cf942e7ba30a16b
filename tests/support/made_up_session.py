"""A made-up session: what a tracker and a localizer would have said of a short recording."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from ovavel.runtime.backends import BackendInfo
from ovavel.runtime.bundle.manifest import Gate
from ovavel.runtime.pipeline.tracker import EventRules
from ovavel.runtime.results import Localization
from ovavel.runtime.session_info import SessionInfo
from ovavel.runtime.types import Event, Gap, Notice, SegmentScores, Update, Window

LABELS = ("dog barking", "race car", "mynah bird singing", "church bell ringing", "chainsaw", "playing violin", "other")

BACKEND = BackendInfo(
    engine="onnxruntime-cpu",
    name="onnxruntime",
    device="cpu",
    provider="CPUExecutionProvider",
    precision={"vision": "fp32", "audio": "fp32", "head": "fp32"},
    threads=2,
    versions={"onnxruntime": "1.23"},
)

GATE = Gate(
    engine="onnxruntime-cpu",
    precision=dict(BACKEND.precision),
    passed=True,
    reference="golden outputs of PyTorch fp32",
    inputs=22,
    min_cosine={"vision": 0.99999996, "audio": 0.9999999},
    max_abs_difference={"vision": 2e-7, "audio": 3e-7, "head": 1e-7},
    decisions=1.0,
    device="a CPU",
    versions={"onnxruntime": "1.23"},
    graphs_sha256=64 * "0",
    failures=(),
)

INFO = SessionInfo(
    id="01890a5d-ac96-774b-bcce-b302099a8057",
    started_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    source="clip.mp4",
    senses=frozenset({"vision", "audio"}),
    live=False,
    labels=LABELS,
    vocabulary_version="v1",
    model="imagebind-huge",
    licence="CC-BY-NC-SA-4.0",
    bundle_sha256="ab" * 32,
    backend=BACKEND,
    gate=GATE,
    lag=5,
    fusion="positive",
    channel="auto",
    rules=EventRules(start_margin=0.0, keep_margin=0.0),
)


def segment(index, label="other", *, final=True, missing=(), seed=0, labels=LABELS):
    """One second in which `label` is both seen and heard."""
    rng = np.random.default_rng([seed, index])
    winner = labels.index(label)
    similarity = rng.uniform(0.02, 0.12, (2, len(labels))).astype(np.float32)
    similarity[:, winner] += rng.uniform(0.15, 0.3, 2).astype(np.float32)
    fused = np.sqrt(similarity[0] * similarity[1])
    scores = (fused - fused.min()) / (fused.max() - fused.min() + 1e-8)
    for row, sense in enumerate(("vision", "audio")):
        if sense in missing:
            similarity[row] = np.nan
    if missing:
        scores = np.zeros_like(scores)
        scores[-1] = 1
        label = labels[-1]
    return SegmentScores(
        index=index,
        start_s=float(index),
        label=label,
        score=float(scores[labels.index(label)]),
        scores=scores,
        vision_similarity=similarity[0],
        audio_similarity=similarity[1],
        context=0 if missing else min(index + 1, 10),
        final=final,
        missing=tuple(missing),
    )


def event(id_, label, start_s, end_s, state="end", peak_score=0.93):
    return Event(
        id=id_,
        label=label,
        start_s=start_s,
        end_s=end_s,
        peak_score=peak_score,
        peak_margin=0.41,
        state=state,
        vocabulary_version="v1",
    )


def window(index, gaps=()):
    return Window(index=index, start_s=float(index), frame=None, waveform=None, captured_s=0.0, gaps=tuple(gaps))


def update(index, label="other", *, events=(), gaps=(), missing=(), missing_before=(), latency_ms=412.0):
    """News of second `index`, which makes the one before it final."""
    before = (segment(index - 1, label, missing=missing_before),) if index else ()
    scores = (*before, segment(index, label, final=False, missing=missing))
    return Update(window=window(index, gaps), scores=scores, events=tuple(events), latency_ms=latency_ms)


def notice(message, time_s=0.0):
    """News of nothing but a notice."""
    notices = (Notice(time_s=time_s, message=message),)
    return Update(window=window(0), scores=(), events=(), latency_ms=None, notices=notices)


def recording(seconds=32, labels=LABELS, picture=None, **changes):
    """A recording in which labels take turns, eight seconds each, with a black stretch between."""
    plan = [labels[(i // 12) % (len(labels) - 1)] if i % 12 < 8 else labels[-1] for i in range(seconds)]
    scores = [
        segment(i, label, labels=labels, missing=("vision",) if i % 12 in (9, 10) else ())
        for i, label in enumerate(plan)
    ]
    starts = [i for i in range(seconds) if plan[i] != labels[-1] and (i == 0 or plan[i - 1] != plan[i])]
    events = [event(n + 1, plan[i], float(i), float(min(i + 8, seconds))) for n, i in enumerate(starts)]
    gaps = [Gap(sense="vision", cause="black", start_s=float(i), duration_s=2.0) for i in range(9, seconds - 1, 12)]
    facts = {"source": "clips/dog & car.mp4", "labels": labels}
    facts |= {name: changes.pop(name) for name in ("source", "model", "licence", "backend") if name in changes}
    fields = {
        "info": replace(INFO, **facts),
        "duration_s": float(seconds),
        "scores": tuple(scores),
        "events": tuple(events),
        "gaps": tuple(gaps),
        "thumbnails": {i: picture(i) for i in range(seconds)} if picture else {},
    }
    return Localization(**{**fields, **changes})
