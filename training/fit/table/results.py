"""What a table holds: its rows with figures, spread and cost, and the rows that are missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version

import msgspec
import numpy as np
from msgspec import Struct

from ovavel.eval.accuracy.bootstrap import LEVEL, RESAMPLES, SEED
from ovavel.eval.accuracy.protocols import PUBLISHED, too_damaged
from ovavel.eval.accuracy.protocols import why_not_published as why_not_of_split
from ovavel.runtime.types import LAG
from ovavel.training.fit.report import MEASURES, PARTS
from ovavel.training.fit.result import DataInfo, RowTable

__all__ = [
    "JOINED",
    "JOINED_LAG",
    "Cost",
    "Gain",
    "Intervals",
    "Line",
    "Missing",
    "PartialTable",
    "Results",
    "Spread",
    "drop_of",
    "gain_of",
    "joined_gain",
    "over_seeds",
    "published_table",
    "spread_of",
    "why_not_published",
]

Intervals = dict[str, dict[str, tuple[float, float]] | None]
"""Part of the clips → measure → lower and upper end; None where the part has fewer than two clips."""
PartialTable = Mapping[str, Mapping[str, float | None] | None]
"""Like `RowTable`, but figures may be unknown."""


JOINED, JOINED_LAG = "joined", LAG
"""Clips that are joined to streams: the name of that part, and the seconds that a decision waits for."""


class Spread(Struct, frozen=True, kw_only=True):
    """A mean over seeds, in [-1, 1]."""

    mean: float
    deviation: float | None = None
    """Sample standard deviation; None for fewer than two seeds."""


class Gain(Struct, frozen=True, kw_only=True):
    """Avg. of a row minus that of another, seed by seed."""

    over: str
    """Name of the other row."""
    parts: dict[str, Spread | None]
    """Part of the clips → gain; None without such clips. "joined": all clips, joined to streams."""


class Cost(Struct, frozen=True, kw_only=True):
    """What a row takes."""

    parameters: int | None = None
    """Of the head, trained or not; 0: none. None: not known."""
    training_s: Spread | None = None
    """Seconds of training steps, the trunk's among them; None: nothing is trained, or it was not measured."""
    window_ms: float | None = None
    """Milliseconds from the embeddings of one window to its decision; None: not measured."""
    window_ratio: float | None = None
    """`window_ms` over that of the paper's head, in the same run."""


class Missing(Struct, frozen=True, kw_only=True):
    """Why a row has no figures."""

    reason: str
    command: str
    """What makes them."""


class Line(Struct, frozen=True, kw_only=True):
    """One method on the test split."""

    name: str
    group: str = ""
    mean: RowTable | None = None
    """Over the seeds; None where the row is missing."""
    deviation: RowTable | None = None
    """Sample standard deviation over the seeds; None for fewer than two."""
    interval: Intervals | None = None
    """Bootstrap interval of each score over the clips; None over several seeds."""
    drop: Spread | None = None
    """Avg. of the seen clips minus Avg. of the unseen ones; None where one kind is not there."""
    joined: Spread | None = None
    """Avg. over all clips, joined to streams and decided with `JOINED_LAG`; None: not measured."""
    gains: tuple[Gain, ...] = ()
    seeds: tuple[int, ...] = ()
    """Empty where nothing is trained."""
    epochs: tuple[int, ...] = ()
    """The selected epoch of each seed."""
    published: str | None = None
    """Name of the corresponding published row."""
    cost: Cost = Cost()
    label: str = ""
    """What a reader has to know of it, such as "benchmark only"."""
    missing: Missing | None = None


class Results(Struct, frozen=True, kw_only=True):
    """Contents of a table."""

    dataset_fingerprint: str
    data: DataInfo
    why_not_published: str
    """Why published figures are not shown; empty where they are."""
    ratios: dict[str, str]
    """Recipe that uses a share of the training clips → description of that share."""
    lines: tuple[Line, ...]
    suite: str | None = None
    remarks: tuple[str, ...] = ()
    """What else a reader has to know, a sentence each."""

    def encode(self) -> bytes:
        """Return the results as JSON, with the published figures where they are comparable."""
        published = {
            name: {"rows": published_table(name), "total_avg": each.total_avg, "source": each.source}
            for name, each in PUBLISHED.items()
        }
        bootstrap = {"level": LEVEL, "resamples": RESAMPLES, "seed": SEED}
        document = {"ovavel": version("ovavel"), "intervals": bootstrap, **msgspec.to_builtins(self)}
        return msgspec.json.format(
            msgspec.json.encode(document | ({} if self.why_not_published else {"published": published})), indent=2
        )


def published_table(name: str) -> PartialTable:
    """Return the figures of a published row; unknown ones are None."""
    measures = [measure.lower() for measure in MEASURES]
    parts = zip(PARTS, PUBLISHED[name].figures, strict=True)
    return {part: dict(zip(measures, figures, strict=True)) for part, figures in parts}


def why_not_published(info: DataInfo) -> str:
    """Return why published figures are not comparable with scores on these clips, or an empty string."""
    assert info.test
    splits = {"test": info.test, "train": info.train, "val": info.val}
    reasons = (too_damaged(name, part.clips, part.damaged) for name, part in splits.items())
    other = why_not_of_split("test", info.classes, info.test.clips + info.test.damaged)
    return other or next(filter(None, reasons), "")


def over_seeds(tables: Sequence[RowTable], reduce: Callable[[list[float]], np.floating] = np.mean) -> RowTable:
    """Reduce each figure of the tables of several seeds to one."""
    return {
        part: {measure: float(reduce([table[part][measure] for table in tables])) for measure in scores}  # type: ignore[index]
        if scores
        else None
        for part, scores in tables[0].items()
    }


def spread_of(values: Sequence[float]) -> Spread | None:
    """Return mean and sample standard deviation; None without values."""
    if not values:
        return None
    return Spread(mean=float(np.mean(values)), deviation=float(np.std(values, ddof=1)) if len(values) > 1 else None)


def drop_of(tables: Sequence[RowTable]) -> Spread | None:
    """Return Avg. of the seen minus Avg. of the unseen clips, seed by seed."""
    pairs = [(table["seen"], table["unseen"]) for table in tables]
    return spread_of([seen["avg"] - unseen["avg"] for seen, unseen in pairs if seen and unseen])


def gain_of(tables: Sequence[RowTable], over: str, others: Sequence[RowTable]) -> Gain:
    """Return how much higher Avg. is than in another row; a row without seeds is compared with each seed."""
    if len(others) == 1:
        others = [others[0]] * len(tables)
    parts: dict[str, Spread | None] = {}
    for part in PARTS:
        pairs = [(own[part], other[part]) for own, other in zip(tables, others, strict=True)]
        parts[part] = spread_of([own["avg"] - other["avg"] for own, other in pairs if own and other])
    return Gain(over=over, parts=parts)


def joined_gain(own: Sequence[float], other: Sequence[float]) -> Spread | None:
    """Return the gain on joined streams, order by order; None where one was not measured."""
    return spread_of([a - b for a, b in zip(own, other, strict=True)]) if own and other else None
