"""Intervals by the bootstrap over clips."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ovavel.eval.accuracy.bootstrap import interval, intervals


@given(seed=st.integers(0, 99), clips=st.integers(2, 60))
def test_an_interval_holds_the_mean_and_is_the_same_again(seed: int, clips: int) -> None:
    each = np.random.default_rng(seed).random((clips, 4))
    found = interval(each)
    assert found == interval(each)
    assert found
    low, high = np.array(found) + np.array([[-1e-12], [1e-12]])  # means are rounded
    assert (low <= each.mean(axis=0)).all()
    assert (each.mean(axis=0) <= high).all()
    assert (each.min(axis=0) <= low + 2e-12).all()
    assert (high - 2e-12 <= each.max(axis=0)).all()


def test_it_is_as_wide_as_theory_says() -> None:
    each = np.random.default_rng(0).normal(0.5, 0.2, (2000, 1))
    found = interval(each)
    assert found
    width = found[1][0] - found[0][0]
    assert abs(width / (2 * 1.96 * each.std() / np.sqrt(2000)) - 1) < 0.1


def test_parts_are_drawn_by_themselves() -> None:
    each = np.concatenate([np.full((5, 4), 0.2), np.full((5, 4), 0.8)])
    found = intervals(each, np.arange(10) < 5)
    assert found["seen"] == ((0.2,) * 4, (0.2,) * 4)
    assert found["unseen"] == ((0.8,) * 4, (0.8,) * 4)
    assert found["total"]
    assert found["total"][0] < found["total"][1]
    assert interval(each[:1]) is None
