"""The measures of OV-AVEBench."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ovavel.eval.accuracy.metrics import Scores, score_agreement, score_clips
from ovavel.runtime.errors import UsageError

GOLDEN = Path(__file__).parents[2] / "golden"
PUBLISHED = json.loads((GOLDEN / "metrics.json").read_text())["results"]
LABELS = dict(np.load(GOLDEN / "metrics.npz"))
CLASSES = 68
OTHER = 3
clips = arrays(np.int64, (4, 6), elements=st.integers(0, OTHER))


def part(name: str) -> np.ndarray:
    return {"total": np.ones_like(LABELS["seen"]), "seen": LABELS["seen"], "unseen": ~LABELS["seen"]}[name]


@pytest.mark.parametrize("name", ["total", "seen", "unseen"])
def test_per_segment_scores_are_the_published_ones(name: str) -> None:
    keep = part(name)
    scores = score_clips(LABELS["pred"][keep], LABELS["gt"][keep], CLASSES)
    expected = PUBLISHED["per_segment"][name]
    np.testing.assert_allclose(scores[:3], [expected[k] for k in ("acc", "seg", "eve")], rtol=0, atol=1e-7)
    assert scores.avg == pytest.approx(np.mean(scores[:3]), abs=1e-12)


@pytest.mark.parametrize("name", ["total", "seen", "unseen"])
def test_agreement_scores_are_the_published_ones(name: str) -> None:
    keep = part(name)
    scores = score_agreement(LABELS["vision_argmax"][keep], LABELS["audio_argmax"][keep], LABELS["gt"][keep], CLASSES)
    expected = PUBLISHED["training_free_with_other"][name]
    np.testing.assert_allclose(scores[:3], [expected[k] for k in ("acc", "seg", "eve")], rtol=0, atol=1e-7)


def plain(predicted: list[int], truth: list[int]) -> tuple[float, float, float]:
    """One clip, written out as the definition reads."""

    def runs(row: list[bool]) -> list[set[int]]:
        found: list[set[int]] = []
        for t, on in enumerate(row):
            if on and t and row[t - 1]:
                found[-1].add(t)
            elif on:
                found.append({t})
        return found

    def f(tp: int, fp: int, fn: int) -> float:
        return 2 * tp / (2 * tp + fn + fp)

    seg, eve = [], []
    for c in sorted({*predicted, *truth}):
        p, g = [x == c for x in predicted], [x == c for x in truth]
        tp = sum(a and b for a, b in zip(p, g, strict=True))
        seg.append(f(tp, sum(p) - tp, sum(g) - tp))
        match = [[len(a & b) / len(a | b) >= 0.5 for b in runs(g)] for a in runs(p)]
        hits = sum(any(row) for row in match)
        eve.append(f(hits, len(match) - hits, sum(not any(row[j] for row in match) for j in range(len(runs(g))))))
    acc = float(np.mean([a == b for a, b in zip(predicted, truth, strict=True)]))
    return acc, float(np.mean(seg)), float(np.mean(eve))


@given(predicted=clips, truth=clips)
def test_scores_follow_their_definition(predicted: np.ndarray, truth: np.ndarray) -> None:
    expected = np.mean([plain(p.tolist(), g.tolist()) for p, g in zip(predicted, truth, strict=True)], axis=0)
    np.testing.assert_allclose(score_clips(predicted, truth, OTHER + 1)[:3], expected, atol=1e-12)


@given(truth=clips)
def test_the_truth_itself_is_perfect(truth: np.ndarray) -> None:
    assert score_clips(truth, truth, OTHER + 1) == Scores(1.0, 1.0, 1.0, 1.0)


@settings(max_examples=50)
@given(predicted=clips, truth=clips, order=st.permutations(range(4)), names=st.permutations(range(OTHER + 1)))
def test_neither_the_order_of_clips_nor_the_names_matter(
    predicted: np.ndarray, truth: np.ndarray, order: list[int], names: list[int]
) -> None:
    scores = score_clips(predicted, truth, OTHER + 1)
    renamed = np.array(names)
    np.testing.assert_allclose(score_clips(predicted[order], truth[order], OTHER + 1), scores, atol=1e-12)
    np.testing.assert_allclose(score_clips(renamed[predicted], renamed[truth], OTHER + 1), scores, atol=1e-12)


def test_a_hand_made_clip() -> None:
    truth = np.array([[0, 0, 0, 0, 3, 3, 3, 3, 3, 3]])
    late = np.array([[3, 3, 0, 0, 3, 3, 3, 3, 3, 3]])
    # Class 0: one run of two inside one of four, IoU 1/2: a match. Background: a false run of two beside a true one.
    scores = score_clips(late, truth, 4)
    assert scores.acc == pytest.approx(0.8)
    assert scores.seg == pytest.approx((4 / 6 + 12 / 14) / 2)
    assert scores.eve == pytest.approx((1 + 2 / 3) / 2)
    wrong = np.where(late == 0, 1, late)
    assert score_clips(wrong, truth, 4).eve == pytest.approx((0 + 0 + 2 / 3) / 3)


def test_agreeing_on_the_background_is_of_no_class() -> None:
    truth = np.full((1, 4), OTHER)
    scores = score_agreement(truth, truth, truth, OTHER + 1)
    assert scores == Scores(1.0, 0.0, 0.0, 1 / 3)
    # Agreement on class 1 first: the later agreement on class 2 takes its name.
    vision, audio = np.array([[1, 0, 2, 0]]), np.array([[1, 2, 2, 1]])
    assert score_agreement(vision, audio, np.array([[1, OTHER, 1, OTHER]]), OTHER + 1).avg == 1.0


@pytest.mark.parametrize(
    ("predicted", "truth", "said"),
    [
        (np.zeros((2, 3), int), np.zeros((2, 4), int), r"\(2, 3\).*\(2, 4\)"),
        (np.zeros((0, 3), int), np.zeros((0, 3), int), "not empty"),
        (np.zeros(3, int), np.zeros(3, int), r"\(3,\)"),
        (np.zeros((1, 3)), np.zeros((1, 3), int), "float64"),
        (np.full((1, 3), 4), np.zeros((1, 3), int), "class 4"),
        (np.zeros((1, 3), int), np.full((1, 3), -1), "class -1"),
    ],
)
def test_invalid_labels_are_refused(predicted: np.ndarray, truth: np.ndarray, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        score_clips(predicted, truth, OTHER + 1)
