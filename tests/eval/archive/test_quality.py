"""Ranking names that nobody configured, measured as live localization is."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
from support.archives import unit
from support.demo_copies import BUNDLE

from ovavel.eval.archive.quality import average_precision, measure
from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle.bundle import Bundle


def test_average_precision() -> None:
    truth = np.array([True, False, True, False])
    assert average_precision(np.array([4.0, 3.0, 2.0, 1.0]), truth) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(np.ones(4), truth) == 0.5, "a ranking that says nothing"


def test_clips_that_look_and_sound_like_a_name_are_ranked_first() -> None:
    bundle = Bundle.open(BUNDLE)
    texts, random = bundle.vocabulary.embeddings, np.random.default_rng(0)
    truth = np.array([[row] * 10 for row in (3, 7, 3, 60)])
    vision, audio = (
        unit(texts.of(sense)[truth] + 0.3 * unit(random.normal(size=(4, 10, 64)))) for sense in ("vision", "audio")
    )
    names = [bundle.vocabulary.names[row] for row in (3, 7)]
    with closing(open_backend(bundle, graphs=("head",))) as backend:
        found = measure(bundle, backend, audio, vision, truth, names)
    assert found.names == tuple(names)
    assert found.search.min() > 0.9
    assert found.live.min() > 0.9
