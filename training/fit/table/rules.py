"""Rows of decision rules: on the embeddings as they are, and on the paper's head; on clips, and on joined streams.

What a rule has to fit is fitted on validation, for each head by itself. The result of each rule is kept in a file, so
that it is not measured again.

Shapes: N clips, T segments per clip, C classes with the background last.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

import msgspec
import numpy as np
from msgspec import Struct

from ovavel.eval.accuracy.metrics import each_clip, score_clips
from ovavel.eval.accuracy.protocols import decide, score_rows
from ovavel.eval.calibration.rules import fit_rule, has_to_be_fitted
from ovavel.eval.streaming.measure import joined_labels
from ovavel.runtime.backends import HeadOutput
from ovavel.runtime.bundle.bundle import file_entry
from ovavel.runtime.bundle.calibration import Rule
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.pipeline.fusion import fused_labels
from ovavel.runtime.pipeline.localizer import Head as RuntimeHead
from ovavel.runtime.pipeline.localizer import deciding_head
from ovavel.runtime.pipeline.rules.apply import evidence_of, named_rule, rule_scores
from ovavel.runtime.pipeline.rules.evidence import Evidence
from ovavel.runtime.pipeline.rules.registry import RULES
from ovavel.runtime.system.files import atomic_write
from ovavel.runtime.system.progress import Progress, no_progress
from ovavel.runtime.system.untrusted import read_json
from ovavel.training.fit.data import Data, Part
from ovavel.training.fit.decide import runtime_head
from ovavel.training.fit.result import RowTable, row_table
from ovavel.training.fit.table.results import (
    JOINED,
    JOINED_LAG,
    Cost,
    Gain,
    Intervals,
    Line,
    drop_of,
    gain_of,
    joined_gain,
    over_seeds,
    spread_of,
)
from ovavel.training.fit.table.suites import RULE_BASES, Row
from ovavel.training.fit.table.texts import OtherTexts
from ovavel.training.fit.table.untrained import interval_of
from ovavel.training.heads.base import load_head
from ovavel.training.heads.temporal import TemporalHead

__all__ = ["RULES_FOLDER", "measure_rules", "rule_window"]

RULES_FOLDER = "rules"
"""In the folder of a table."""

_Names: TypeAlias = Mapping[tuple[str, str], str]
"""Source and `Row.rule_key` → row."""


class _Kept(Struct, frozen=True, kw_only=True):
    """What one rule gives with one head."""

    identity: tuple[str, ...]
    """Of all that it depends on."""
    rule: Rule
    table: RowTable
    joined: tuple[float, ...]
    """Avg. of all clips, joined in the order of each seed; empty where the rule is not for streams."""
    interval: Intervals


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Where similarities come from."""

    head: RuntimeHead
    identity: str
    folder: Path
    orders: tuple[int, ...]
    """Seeds of the orders in which clips are joined."""


def measure_rules(
    rows: Sequence[Row],
    data: Data,
    heads: Mapping[int, Path],
    out: Path,
    *,
    seeds: Sequence[int],
    texts: OtherTexts,
    progress: Progress = no_progress,
) -> dict[str, Line]:
    """Measure the rules of `rows` on the test split; returns a line for each.

    Args:
        rows: those with a rule are taken; one that lacks its texts is missing.
        data: with a test split.
        heads: seed → file of the paper's head.
        out: folder of the table; results are kept in `rules` in it.
        seeds: of the orders in which clips are joined, for rules on the embeddings.
        texts: for rows with other texts.
        progress: called after each step of a fit.
    """
    sources = {
        "rule": [
            _Source(
                head=runtime_head(TemporalHead(0)),
                identity="embeddings",
                folder=out / RULES_FOLDER / "embeddings",
                orders=tuple(seeds),
            )
        ],
        "rule on head": [
            _Source(
                head=runtime_head(load_head(file)),
                identity=file_entry(file).sha256,
                folder=out / RULES_FOLDER / f"seed-{seed}",
                orders=(seed,),
            )
            for seed, file in heads.items()
        ],
    }
    asked = [row for row in rows if row.rule and not texts.missing(row)]
    total = sum(len(sources[row.source]) for row in asked)
    done, found = 0, dict[str, list[_Kept]]()
    digest = _digest(data) if asked else ""
    for kind, places in sources.items():
        for source in places:
            measure = _Measure(source, data, digest, texts)
            for row in asked:
                if row.source == kind:
                    report = _counted(progress, done, total, row.name)
                    found.setdefault(row.name, []).append(measure.kept(row, report))
                    done += 1
    names: _Names = {(row.source, row.rule_key): row.name for row in asked}
    lines = {row.name: _line(row, found, names, heads) for row in asked}
    gone = {row.name: texts.missing(row) for row in rows if row.rule}
    return lines | {name: Line(name=name, missing=missing) for name, missing in gone.items() if missing}


def rule_window(row: Row, data: Data, head: RuntimeHead, kept_in: Path, texts: OtherTexts) -> RuntimeHead:
    """Return `head` with the scores of a rule that `measure_rules` has measured, to be timed."""
    kept = _read(kept_in / f"{row.rule_key}.json")
    rule = kept.rule if kept else named_rule(row.rule or "")[0]
    return deciding_head(head, rule, data.names, texts.further(row))


class _Measure:
    """Rules with one head."""

    def __init__(self, source: _Source, data: Data, digest: str, texts: OtherTexts) -> None:
        self._source, self._data, self._digest, self._texts = source, data, digest, texts
        self._evidence: dict[tuple[str, str], Evidence] = {}

    def kept(self, row: Row, progress: Progress) -> _Kept:
        """Return the result of a row's rule: from its file, or a new one, which is written there."""
        source, data = self._source, self._data
        assert data.test
        assert row.rule
        file = source.folder / f"{row.rule_key}.json"
        also = (_hash(self._names(row), self._texts.further(row)),) if row.texts else ()
        orders = map(str, source.orders)
        identity = (version("ovavel"), self._digest, source.identity, row.rule_key, *also, *orders)
        before = _read(file)
        if before and before.identity == identity:
            return before
        if row.fitted or has_to_be_fitted(row.rule):
            given = self._seen("val", data.val, row)
            rule = fit_rule(row.rule, given, data.val.truth, data.names, progress=progress)
        else:
            rule = named_rule(row.rule)[0]
        rule = self._texts.rule(row, rule)
        classes = len(data.names)
        evidence = evidence_of(rule, self._seen("test", data.test, row), classes, data.names)
        labels = fused_labels(rule_scores(rule, evidence))
        streams = () if RULES[rule.kind].not_live else source.orders
        result = _Kept(
            identity=identity,
            rule=rule,
            table=row_table(score_rows(labels, data.test.truth, data.test.seen, classes)),
            joined=tuple(self._joined(rule, row, order) for order in streams),
            interval=interval_of(each_clip(labels, data.test.truth, classes), data.test),
        )
        source.folder.mkdir(parents=True, exist_ok=True)
        atomic_write(file, msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
        return result

    def _names(self, row: Row) -> TextEmbeddings:
        return self._texts.names(row, self._data.text)

    def _joined(self, rule: Rule, row: Row, order: int) -> float:
        data = self._data
        assert data.test
        head = deciding_head(self._source.head, rule, data.names, self._texts.further(row))
        test = data.test
        labels = joined_labels(head, test.audio, test.vision, self._names(row), lag=JOINED_LAG, seed=order)
        return score_clips(labels, test.truth, len(data.names)).avg

    def _seen(self, split: str, part: Part, row: Row) -> Evidence:
        further = self._texts.further(row)
        key = split, "further" if further else row.texts
        if key not in self._evidence:
            names = self._names(row)
            texts = TextEmbeddings.joined([names, further]) if further else names
            output: HeadOutput = decide(self._source.head, part.audio, part.vision, texts)
            self._evidence[key] = Evidence(output.audio_similarity, output.vision_similarity, part.vision)
        return self._evidence[key]


def _hash(*texts: TextEmbeddings | None) -> str:
    return hashlib.sha256(b"".join(each.raw for each in texts if each)).hexdigest()


def _digest(data: Data) -> str:
    """Return a hash of all that rules see; the training clips, of which rows take different shares, are not in it."""
    digest = hashlib.sha256("\0".join(data.names).encode())
    for part in (data.val, data.test):
        if part:
            for array in (part.audio, part.vision, part.truth):
                digest.update(np.ascontiguousarray(array).data)
    for array in data.text.arrays.values():
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _read(file: Path) -> _Kept | None:
    with contextlib.suppress(OSError, ValueError):
        return read_json(file.read_bytes(), _Kept)
    return None


def _line(row: Row, found: Mapping[str, Sequence[_Kept]], names: _Names, heads: Mapping[int, Path]) -> Line:
    kept = found[row.name]
    on_heads = row.source == "rule on head"
    tables, joined = [each.table for each in kept], [each for one in kept for each in one.joined]
    gains = []
    for base in RULE_BASES:
        name = names.get((row.source, base))
        if name and name != row.name:
            others = found[name]
            gain = gain_of(tables, name, [each.table for each in others])
            streams = joined_gain(joined, [each for one in others for each in one.joined])
            gains.append(Gain(over=name, parts={**gain.parts, JOINED: streams}))
    several = len(tables) > 1
    parameters = load_head(next(iter(heads.values()))).parameter_count if on_heads else 0
    return Line(
        name=row.name,
        mean=over_seeds(tables),
        deviation=over_seeds(tables, lambda values: np.std(values, ddof=1)) if several else None,
        interval=None if several else kept[0].interval,
        drop=drop_of(tables),
        joined=spread_of(joined),
        gains=tuple(gains),
        seeds=tuple(heads) if on_heads else (),
        published=row.published,
        cost=Cost(parameters=parameters),
    )


def _counted(progress: Progress, before: int, rows: int, name: str) -> Progress:
    """Return a progress for one of so many rows."""

    def report(what: str, done: float | None = None, total: float | None = 1.0, note: str = "") -> None:  # noqa: ARG001
        progress("measuring rules", before + (done or 0.0) / (total or 1.0), rows, name)

    return report
