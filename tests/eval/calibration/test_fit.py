from __future__ import annotations

import csv
import xml.etree.ElementTree as ET

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovavel.eval.accuracy.metrics import score_clips, score_events
from ovavel.eval.accuracy.protocols import fused_labels
from ovavel.eval.calibration.fit import (
    Reliability,
    event_rows,
    fit_calibration,
    fit_margins,
    fit_temperature,
    reliability,
    score_margins,
)
from ovavel.eval.calibration.report import CalibrationReport, SplitReport, to_csv, to_html, to_json, to_svg
from ovavel.runtime.bundle.calibration import Rule
from ovavel.runtime.errors import UsageError
from ovavel.runtime.pipeline.fusion import probabilities
from ovavel.runtime.pipeline.tracker import EventRules, EventTracker
from ovavel.runtime.types import SegmentScores

NAMES = ("dog", "car", "bell", "other")
C = len(NAMES)


def sampled(temperature: float, clips: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores (N, 10, C) as the fusion gives them, and truth drawn from their softmax at `temperature`."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0, 1, (clips, 10, C)).astype(np.float32)
    low, high = scores.min(axis=-1, keepdims=True), scores.max(axis=-1, keepdims=True)
    scores = (scores - low) / (high - low)
    shares = probabilities(scores, temperature).cumsum(axis=-1)
    return scores, (rng.uniform(size=(clips, 10, 1)) > shares).sum(axis=-1).clip(0, C - 1)


@pytest.mark.parametrize("temperature", [0.05, 0.3, 2.0])
def test_the_temperature_that_made_the_truth_is_found(temperature: float) -> None:
    scores, truth = sampled(temperature, clips=2000)
    assert fit_temperature(scores, truth) == pytest.approx(temperature, rel=0.15)


def test_the_fitted_temperature_has_the_smallest_likelihood_loss() -> None:
    scores, truth = sampled(0.2)
    fitted = fit_temperature(scores, truth)
    at = reliability(scores, truth, temperature=fitted).nll
    for factor in (0.5, 0.9, 1.1, 2):
        assert reliability(scores, truth, temperature=fitted * factor).nll > at
    shares = np.take_along_axis(probabilities(scores, fitted), truth[..., None], axis=-1)
    assert at == pytest.approx(-np.log(shares).mean())


def test_correct_scores_are_certain_and_useless_ones_are_not() -> None:
    scores, _ = sampled(1.0)
    assert fit_temperature(scores, scores.argmax(axis=-1)) < 0.01
    assert fit_temperature(scores, scores.argmin(axis=-1)) > 100


def test_the_fit_makes_probabilities_honest() -> None:
    fitted, held_out = sampled(0.1, clips=500), sampled(0.1, clips=500, seed=1)
    calibration = fit_calibration(*fitted, dataset="ab" * 32, names=("dog", "other"), held_out=held_out)
    assert calibration.ece_before > 0.2
    assert calibration.ece_after < 0.03
    assert calibration.segments == 5000
    assert calibration.dataset == "ab" * 32
    # Without clips held out, the errors are those on what was fitted.
    alone = fit_calibration(*fitted, dataset="ab" * 32, names=("dog", "other"))
    assert alone.temperature == calibration.temperature
    assert alone.ece_after == reliability(*fitted, temperature=alone.temperature).ece != calibration.ece_after


def test_the_error_is_the_gap_of_each_bin_weighted_by_its_decisions() -> None:
    # Two classes at temperature 1: probabilities of the winner are 1 / (1 + exp(-margin)).
    claims = np.array([0.6, 0.6, 0.7, 0.9])
    scores = np.zeros((1, 4, 2), np.float32)
    scores[0, :, 0] = np.log(claims / (1 - claims))
    truth = np.array([[0, 1, 0, 0]])
    result = reliability(scores, truth, temperature=1.0, bins=5)  # bins (0.4, 0.6], (0.6, 0.8], (0.8, 1]
    found = {round(b.high, 1): (b.decisions, b.accuracy) for b in result.bins if b.decisions}
    assert sum(b.decisions for b in result.bins) == 4
    assert found[1.0] == (1, 1.0)
    gaps = [abs(b.decisions * (b.probability - b.accuracy)) for b in result.bins]
    assert result.ece == pytest.approx(sum(gaps) / 4)
    assert result.bins[-1].probability == pytest.approx(0.9, abs=1e-6)


def test_decisions_without_evidence_are_uncertain_background() -> None:
    scores = np.zeros((1, 10, C), np.float32)
    result = reliability(scores, np.full((1, 10), C - 1), temperature=0.01)
    assert [(b.decisions, b.probability, b.accuracy) for b in result.bins if b.decisions] == [(10, 1 / C, 1.0)]


def tracked(labels: np.ndarray, margins: np.ndarray, on: float, off: float) -> np.ndarray:
    """(C, T) seconds of the events that the runtime's tracker makes of one clip, and the background."""
    tracker = EventTracker("other", EventRules(start_margin=on, keep_margin=off))
    rows = np.zeros((C, len(labels)), bool)
    news = []
    for i, (label, margin) in enumerate(zip(labels, margins, strict=True)):
        scores = np.zeros(C)
        scores[label] = 1.0
        if label != C - 1:
            scores[-1] = 1.0 - margin
        news += tracker.push(
            [
                SegmentScores(
                    index=i,
                    start_s=float(i),
                    label=NAMES[label],
                    score=1.0,
                    scores=scores,
                    vision_similarity=scores,
                    audio_similarity=scores,
                    context=1,
                    final=True,
                )
            ]
        )
    for event in [*news, *tracker.close()]:
        if event.state == "end":
            rows[NAMES.index(event.label), int(event.start_s) : int(event.end_s)] = True
    rows[-1] = ~rows[:-1].any(axis=0)
    return rows


margins_on_a_grid = st.integers(0, 8).map(lambda k: k / 8)  # exact in binary, so that no comparison rounds


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, C - 1), margins_on_a_grid), min_size=1, max_size=14),
    margins_on_a_grid,
    margins_on_a_grid,
)
def test_many_clips_at_once_make_the_events_of_the_tracker(
    clip: list[tuple[int, float]], one: float, other: float
) -> None:
    on, off = max(one, other), min(one, other)
    labels, margins = (np.array(values) for values in zip(*clip, strict=True))
    both = np.stack([labels, np.roll(labels, 1)]), np.stack([margins, np.roll(margins, 1)])
    rows = event_rows(*both, C, on=on, off=off)
    for found, clip_labels, clip_margins in zip(rows, *both, strict=True):
        np.testing.assert_array_equal(found, tracked(clip_labels, clip_margins, on, off))


def test_events_of_plain_decisions_score_as_the_clips_do() -> None:
    rng = np.random.default_rng(0)
    predicted, truth = rng.integers(0, C, (2, 50, 10))
    rows = predicted[:, None, :] == np.arange(C)[:, None]
    assert score_events(rows, truth) == pytest.approx(score_clips(predicted, truth, C).eve)
    with pytest.raises(UsageError, match="must be"):
        score_events(rows[:, :, :9], truth)


def test_margins_that_keep_narrow_false_alarms_out_are_found() -> None:
    """Events stand 0.6 above the background at their start and 0.4 later, false alarms 0.3."""
    truth = np.full((20, 10), C - 1)
    scores = np.zeros((20, 10, C), np.float32)
    scores[..., -1] = 1.0
    truth[:10, 2:6] = 0
    scores[:10, 2:6] = (1, 0, 0, 0.6)
    scores[:10, 2] = (1, 0, 0, 0.4)
    scores[5:, 7:9] = (0, 1, 0, 0.7)
    assert fused_labels(scores)[5, 7] == 1
    on, off, eve = fit_margins(scores, truth)
    assert 0.3 < on <= 0.6
    assert off <= 0.4
    assert eve == score_margins(scores, truth, on=on, off=off) == 1.0
    assert score_margins(scores, truth, on=0.0, off=0.0) < 0.8


def test_margins_stay_at_zero_without_a_gain() -> None:
    scores, _ = sampled(1.0, clips=20)
    truth = fused_labels(scores)
    truth[:] = truth[:, :1]  # one event or none in each clip
    scores[:] = scores[:, :1]
    assert fit_margins(scores, truth)[:2] == (0.0, 0.0)


@pytest.mark.parametrize("shape", [(0, 10), (3, 9), (3,)])
def test_truth_that_does_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    scores = np.zeros((3 if shape[0] else 0, 10, C), np.float32)
    for fit in (fit_temperature, fit_margins, lambda s, t: reliability(s, t, temperature=1.0)):
        with pytest.raises(UsageError, match="clips, segments"):
            fit(scores, np.zeros(shape, int))


def test_the_report_can_be_read_and_shown() -> None:
    scores, truth = sampled(0.2)
    calibration = fit_calibration(scores, truth, dataset="ab" * 32, names=("dog", "other"))

    def look(split: str) -> SplitReport:
        before, after = (reliability(scores, truth, temperature=t) for t in (1.0, calibration.temperature))
        assert isinstance(before, Reliability)
        return SplitReport(
            split=split,
            clips=400,
            damaged={"<i>": "cut short"},
            segments=4000,
            acc=0.5,
            before=before,
            after=after,
            eve_before=0.4,
            eve_after=0.5,
        )

    report = CalibrationReport(
        calibration=calibration,
        dataset="ab" * 32,
        classes=C,
        bundle_sha256="cd" * 32,
        model="<script>",
        ran="Only the head ran.",
        lag=9,
        fitted=look("val"),
        held_out=look("test"),
        rule=Rule(kind="positive"),
    )
    assert msgspec.json.decode(to_json(report), type=CalibrationReport) == report
    drawn = ET.fromstring(to_svg(report)).findall(".//{http://www.w3.org/2000/svg}g")
    shown = [len([r for r in g if r.tag.endswith("rect")]) for g in drawn]
    assert shown == [sum(b.decisions > 0 for b in r.bins) for r in (report.held_out.before, report.held_out.after)]
    html = to_html(report).decode()
    assert "<script" not in html
    assert "Only the head ran." in html
    rows = list(csv.DictReader(to_csv(report).decode().splitlines()))
    found = {(row["split"], row["calibration"], row["figure"]): row["value"] for row in rows if not row["low"]}
    assert float(found["test", "after", "ece"]) == report.held_out.after.ece
    assert float(found["val", "before", "eve"]) == 0.4
    assert "<i>" not in html
    assert "&lt;i&gt;" in html
