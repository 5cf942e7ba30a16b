"""Comparison of streams watched with economy and without.

Shapes: N stretches of ten seconds, T seconds of one, C classes with the background last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from msgspec import Struct

from ovavel.eval.accuracy.metrics import score_clips
from ovavel.eval.datasets.clip_media import SEGMENTS
from ovavel.eval.economy.events import EventShift, compare_events, event_f_score
from ovavel.eval.economy.runs import Hour, StreamRun
from ovavel.eval.economy.streams import Stream
from ovavel.runtime.bundle.graphs import Graph
from ovavel.runtime.economy.work import Work, work_of
from ovavel.runtime.types import EconomyMode

__all__ = [
    "Comparison",
    "Disagreement",
    "Measures",
    "StreamResult",
    "compare_runs",
    "cost",
    "published_work",
    "summarize",
]

_LISTED = 40

_PUBLISHED = {"embedding_size": 1024, "vision": {"width": 1280, "blocks": 32}, "audio": {"width": 768, "blocks": 12}}


class Measures(Struct, frozen=True, kw_only=True):
    """Agreement with the truth, each in [0, 1]: of stretches of ten seconds, and of the events of the whole stream."""

    acc: float
    seg: float
    eve: float
    avg: float
    events: float | None
    """F score of the events, matched where label and half of both together agree; None where they are not known."""


class Disagreement(Struct, frozen=True, kw_only=True):
    """Seconds in a row that were decided differently."""

    stream: str
    start_s: int
    seconds: int
    full: str
    economy: str


class StreamResult(Struct, frozen=True, kw_only=True):
    """One stream with one economy against the same stream without."""

    group: str
    name: str
    mode: EconomyMode
    note: str
    """See `StreamRun.note`."""
    seconds: int
    same: int
    """Seconds with the same final decision."""
    events: EventShift
    full: Measures | None
    """Measures without economy; None where there are no labels."""
    economy: Measures | None
    hours: tuple[Hour, ...]
    full_hours: tuple[Hour, ...]
    skipped: dict[str, int]
    wake_ms: tuple[float, ...]
    usual_ms: float
    full_ms: float
    """Median time of a decision without economy."""
    audited: int
    audits_failed: int
    drift_p99: float | None
    drift_max: float | None
    disagreements: tuple[Disagreement, ...]
    """The first of them."""


class Comparison(Struct, frozen=True, kw_only=True):
    """Several streams of one group with one economy."""

    group: str
    mode: EconomyMode
    note: str
    """See `StreamRun.note`; the same for all streams."""
    streams: int
    seconds: int
    same: float
    """Share of the seconds with the same final decision."""
    events: int
    """Events without economy."""
    event_f: float
    """F score of the events, those without economy being the truth."""
    moved: int
    """Of these, events that match one with economy, with another start or another end."""
    lost: int
    """Of these, events that match none."""
    start_s: float
    """Mean absolute difference of the starts of events that match."""
    end_s: float
    full: Measures | None
    """Means over the streams; None where there are no labels."""
    economy: Measures | None
    cost: float
    """Operations of the encoders as a share of those without economy, for encoders of the published ImageBind's
    size in the precision that ran."""
    cost_deviation: float
    """Standard deviation of it over the streams."""
    pictures_encoded: float
    """Share of the pictures that were encoded."""
    pictures_reused: float
    """Share that kept an earlier embedding: still pictures."""
    sounds_reused: float
    """Share of the sounds that kept an earlier embedding."""
    busy: float
    """Time from windows to decisions, as a share of that without economy, on this machine."""
    cpu: float
    """Time of all processor cores, likewise."""
    cpu_ms: float
    """The same time for a second of the streams."""
    full_cpu_ms: float
    wakes: int
    wake_ms: float | None
    """Median time of a decision for which several pictures had to be encoded at once; None where none had to."""
    wake_p99_ms: float | None
    usual_ms: float
    full_ms: float
    audited: int
    audits_failed: int
    drift_p99: float | None
    """Largest of the streams' 99th percentiles of 1 - cosine, found by audits."""
    drift_max: float | None


def compare_runs(stream: Stream, full: StreamRun, economy: StreamRun, names: Sequence[str]) -> StreamResult:
    """Compare a run with economy to one without. `names` are the class names, background last.

    Raises:
        ValueError: the runs are not equally long.
    """
    pairs = list(zip(full.labels, economy.labels, strict=True))
    return StreamResult(
        group=stream.group,
        name=stream.name,
        mode=economy.mode,
        note=economy.note,
        seconds=len(pairs),
        same=sum(a == b for a, b in pairs),
        events=compare_events(full.events, economy.events),
        full=_measures(stream, full, names),
        economy=_measures(stream, economy, names),
        hours=economy.hours,
        full_hours=full.hours,
        skipped=economy.skipped,
        wake_ms=economy.wake_ms,
        usual_ms=economy.usual_ms,
        full_ms=full.usual_ms,
        audited=economy.audited,
        audits_failed=economy.audits_failed,
        drift_p99=economy.drift_p99,
        drift_max=economy.drift_max,
        disagreements=tuple(_disagreements(stream.name, pairs))[:_LISTED],
    )


def summarize(results: Sequence[StreamResult], work: Work) -> Comparison:
    """Sum up the streams of one group with one economy; `work` is that of a picture and a sound."""
    seconds, matched = (sum(values) for values in zip(*((r.seconds, r.events.matched) for r in results), strict=True))
    wakes = np.array([ms for r in results for ms in r.wake_ms])
    both = sum(r.events.full + r.events.economy for r in results)
    costs = [cost(r.hours, work) for r in results]
    return Comparison(
        group=results[0].group,
        mode=results[0].mode,
        note=results[0].note,
        streams=len(results),
        seconds=seconds,
        same=sum(r.same for r in results) / seconds,
        events=sum(r.events.full for r in results),
        event_f=2 * matched / both if both else 1.0,
        moved=sum(r.events.moved for r in results),
        lost=sum(r.events.full - r.events.matched for r in results),
        start_s=sum(r.events.start_s * r.events.matched for r in results) / max(1, matched),
        end_s=sum(r.events.end_s * r.events.matched for r in results) / max(1, matched),
        full=_mean([r.full for r in results]),
        economy=_mean([r.economy for r in results]),
        cost=cost([hour for r in results for hour in r.hours], work),
        cost_deviation=float(np.std(costs)),
        pictures_encoded=_share(results, "encoded", "pictures"),
        pictures_reused=_share(results, "reused", "pictures"),
        sounds_reused=_share(results, "sounds_reused", "sounds"),
        busy=_ratio(results, "busy_s"),
        cpu=_ratio(results, "cpu_s"),
        cpu_ms=1e3 * sum(hour.cpu_s for r in results for hour in r.hours) / seconds,
        full_cpu_ms=1e3 * sum(hour.cpu_s for r in results for hour in r.full_hours) / seconds,
        wakes=len(wakes),
        wake_ms=float(np.median(wakes)) if len(wakes) else None,
        wake_p99_ms=float(np.quantile(wakes, 0.99)) if len(wakes) else None,
        usual_ms=float(np.median([r.usual_ms for r in results])),
        full_ms=float(np.median([r.full_ms for r in results])),
        audited=sum(r.audited for r in results),
        audits_failed=sum(r.audits_failed for r in results),
        drift_p99=max((r.drift_p99 for r in results if r.drift_p99 is not None), default=None),
        drift_max=max((r.drift_max for r in results if r.drift_max is not None), default=None),
    )


def published_work(precision: Mapping[Graph, str]) -> Work:
    """Operations of encoders of the published ImageBind's size in `precision` (docs/method.md, Encoders)."""
    work = work_of(_PUBLISHED, precision)
    assert work is not None
    return work


def cost(hours: Iterable[Hour], work: Work) -> float:
    """Operations of the encoders as a share of those that encode every picture and sound."""
    done = whole = 0.0
    for hour in hours:
        done += work.of(hour.encoded, hour.sounds - hour.sounds_reused)
        whole += work.of(hour.pictures, hour.sounds)
    return done / whole if whole else 1.0


def _measures(stream: Stream, run: StreamRun, names: Sequence[str]) -> Measures | None:
    if stream.truth is None:
        return None
    places = {name: place for place, name in enumerate(names)}
    labels = np.array([places[label] for label in run.labels], np.intp)
    scores = score_clips(labels[: len(stream.truth) * SEGMENTS].reshape(-1, SEGMENTS), stream.truth, len(names))
    events = None if stream.events is None else event_f_score(stream.events, run.events)
    return Measures(**scores._asdict(), events=events)


def _disagreements(stream: str, pairs: Sequence[tuple[str, str]]) -> Iterable[Disagreement]:
    second = 0
    while second < len(pairs):
        end = second + 1
        while end < len(pairs) and pairs[end] == pairs[second]:
            end += 1
        full, economy = pairs[second]
        if full != economy:
            yield Disagreement(stream=stream, start_s=second, seconds=end - second, full=full, economy=economy)
        second = end


def _mean(measures: Sequence[Measures | None]) -> Measures | None:
    known = [each for each in measures if each is not None]
    if not known:
        return None
    acc, seg, eve, avg = np.mean([(each.acc, each.seg, each.eve, each.avg) for each in known], axis=0).tolist()
    events = [each.events for each in known if each.events is not None]
    return Measures(acc=acc, seg=seg, eve=eve, avg=avg, events=float(np.mean(events)) if events else None)


def _share(results: Sequence[StreamResult], name: str, of: str) -> float:
    part, whole = (float(sum(getattr(hour, each) for r in results for hour in r.hours)) for each in (name, of))
    return part / max(1.0, whole)


def _ratio(results: Sequence[StreamResult], name: str) -> float:
    economy, full = (
        float(sum(getattr(hour, name) for hours in sides for hour in hours))
        for sides in ([r.hours for r in results], [r.full_hours for r in results])
    )
    return economy / full if full else 1.0
