"""Average precision against a literal reading of its definition, in fractions, and against cases by hand."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ovavel.eval.accuracy.average_precision import THRESHOLDS, Events, average_precisions

Row = tuple[int, int, int, int, int]  # recording, label, start, end, score

TIMES = st.tuples(st.integers(0, 11), st.integers(1, 6)).map(lambda x: (x[0], x[0] + x[1]))
ROWS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 1), TIMES, st.integers(0, 3)).map(lambda x: (*x[:2], *x[2], x[3])),
    max_size=9,
)
TRUTH = ROWS.filter(bool)


def events(rows: Sequence[Row]) -> Events:
    recording, label, start, end, score = np.array(rows or np.zeros((0, 5)), np.float64).reshape(-1, 5).T
    return Events(
        recording=recording.astype(np.intp), label=label.astype(np.intp), start_s=start, end_s=end, score=score
    )


def measured(proposals: Sequence[Row], truth: Sequence[Row]) -> dict[int, list[float]]:
    return {label: each.tolist() for label, each in average_precisions(events(proposals), events(truth)).items()}


def iou(a: Row, b: Row) -> Fraction:
    shared = len(set(range(a[2], a[3])) & set(range(b[2], b[3])))
    return Fraction(shared, len(set(range(a[2], a[3])) | set(range(b[2], b[3]))))


def oracle(proposals: Sequence[Row], truth: Sequence[Row], threshold: Fraction) -> Fraction:
    """AP of one class, as it is defined: no cumulative sums, no arrays, no floats."""
    free = sorted(truth, key=lambda row: (row[0], row[2], row[3]))
    count = len(free)
    right: dict[int, bool] = {}
    ranked = sorted(proposals, key=lambda row: (-row[4], row[0], row[2], row[3]))
    for number, proposal in enumerate(ranked):
        covered = [each for each in free if each[0] == proposal[0] and iou(proposal, each) >= threshold]
        right[number] = bool(covered)
        if covered:
            free.remove(max(covered, key=lambda each: iou(proposal, each)))
    curve = []
    for lowest in {row[4] for row in proposals}:
        kept = [number for number, row in enumerate(ranked) if row[4] >= lowest]
        hits = sum(right[number] for number in kept)
        curve.append((hits, Fraction(hits, len(kept))))
    best = [
        max((precision for hits, precision in curve if hits >= wanted), default=Fraction(0))
        for wanted in range(1, count + 1)
    ]
    return sum(best, Fraction(0)) / count


@given(ROWS, TRUTH)
@example([(1, 1, 0, 2, 0), (1, 1, 4, 7, 1)], [(1, 1, 1, 5, 0), (1, 1, 6, 10, 1)])  # covers both as well
def test_it_is_what_the_definition_says(proposals: list[Row], truth: list[Row]) -> None:
    found = measured(proposals, truth)
    assert set(found) == {row[1] for row in truth}
    for label, figures in found.items():
        mine, theirs = ([row for row in rows if row[1] == label] for rows in (proposals, truth))
        expected = [float(oracle(mine, theirs, Fraction(tenths, 10))) for tenths in range(1, 10)]
        assert figures == pytest.approx(expected)


@given(ROWS, TRUTH, st.randoms())
def test_no_order_matters(proposals: list[Row], truth: list[Row], shuffled: random.Random) -> None:
    expected = measured(proposals, truth)
    for rows in (proposals, truth):
        shuffled.shuffle(rows)
    assert measured(proposals, truth) == expected


@given(ROWS, TRUTH)
def test_a_higher_threshold_is_no_easier(proposals: list[Row], truth: list[Row]) -> None:
    for figures in measured(proposals, truth).values():
        assert all(a >= b - 1e-12 for a, b in itertools.pairwise(figures))
        assert all(0 <= each <= 1 + 1e-12 for each in figures)


@given(ROWS, TRUTH)
def test_perfect_proposals_give_1_and_more_below_them_change_nothing(others: list[Row], truth: list[Row]) -> None:
    perfect = [(*row[:4], 9) for row in truth]
    for rows in (perfect, perfect + others):
        for figures in measured(rows, truth).values():
            assert figures == pytest.approx([1.0] * len(THRESHOLDS))


def test_a_second_proposal_for_one_event_is_wrong() -> None:
    truth = [(0, 0, 0, 10, 0), (0, 0, 20, 30, 0)]
    alone = [(0, 0, 0, 10, 3), (0, 0, 20, 30, 1)]
    assert measured(alone, truth)[0] == [1.0] * 9
    # Recall ½ at precision 1, recall 1 at precision 2 of 3.
    assert measured([*alone, (0, 0, 0, 10, 2)], truth)[0] == pytest.approx([(1 + 2 / 3) / 2] * 9)


def test_cases_by_hand() -> None:
    truth = [(0, 0, 0, 10, 0)]
    assert measured([(0, 0, 0, 7, 1)], truth)[0] == [1.0] * 7 + [0.0] * 2  # IoU is 0.7, and that is enough
    assert measured([(0, 0, 4, 14, 1)], truth)[0] == [1.0] * 4 + [0.0] * 5  # 6 of 14
    assert measured([(1, 0, 0, 10, 1)], truth)[0] == [0.0] * 9  # in another recording
    assert measured([(0, 1, 0, 10, 1)], truth) == {0: [0.0] * 9}  # of another class, which has no event
    assert measured([], truth) == {0: [0.0] * 9}
    # The one that is right comes second, or shares its score with the other: ½ either way, never by luck of the order.
    for score in (2, 1):
        assert measured([(0, 0, 50, 60, score), (0, 0, 0, 10, 1)], truth)[0] == [0.5] * 9
    assert measured([(0, 0, 50, 60, 0), (0, 0, 0, 10, 1)], truth)[0] == [1.0] * 9


def test_a_proposal_takes_the_event_that_it_covers_best() -> None:
    truth = [(0, 0, 0, 6, 0), (0, 0, 4, 10, 0)]
    # Both events are within reach of the first proposal; it leaves the one that the second needs.
    assert measured([(0, 0, 3, 10, 2), (0, 0, 0, 6, 1)], truth)[0][:5] == [1.0] * 5
