"""OV-AVEBench's table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovavel.eval.accuracy.metrics import Scores
from ovavel.eval.accuracy.protocols import (
    PUBLISHED,
    Rows,
    decide,
    fused_labels,
    score_rows,
    score_rows_agreement,
    too_damaged,
    why_not_published,
)
from ovavel.runtime.backends import HeadOutput
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.errors import UsageError
from ovavel.runtime.pipeline.fusion import cosine_similarity, fused_score

GOLDEN = Path(__file__).parents[2] / "golden"
EXPECTED = json.loads((GOLDEN / "metrics.json").read_text())["results"]
LABELS = dict(np.load(GOLDEN / "metrics.npz"))
CLASSES = 68


def assert_golden(rows: Rows, expected: dict[str, dict[str, float]]) -> None:
    for name, scores in rows._asdict().items():
        np.testing.assert_allclose(scores[:3], [expected[name][k] for k in ("acc", "seg", "eve")], rtol=0, atol=1e-7)


def test_rows_are_the_golden_ones() -> None:
    assert_golden(score_rows(LABELS["pred"], LABELS["gt"], LABELS["seen"], CLASSES), EXPECTED["per_segment"])
    vision, audio = LABELS["vision_argmax"], LABELS["audio_argmax"]
    rows = score_rows_agreement(vision, audio, LABELS["gt"], LABELS["seen"], CLASSES)
    assert_golden(rows, EXPECTED["training_free_with_other"])


def test_a_kind_without_clips_has_no_row() -> None:
    truth = LABELS["gt"][:3]
    perfect = Scores(1.0, 1.0, 1.0, 1.0)
    assert score_rows(truth, truth, np.ones(3, bool), CLASSES) == Rows(perfect, None, perfect)
    assert score_rows(truth, truth, np.zeros(3, bool), CLASSES) == Rows(None, perfect, perfect)
    with pytest.raises(UsageError, match="one bool per clip"):
        score_rows(truth, truth, np.ones(2, bool), CLASSES)


def test_published_rows_add_up() -> None:
    for method, published in PUBLISHED.items():
        for scores in published.rows or ():
            assert scores is not None
            # Each figure is rounded to a tenth of a point; one mean there was made from unrounded ones.
            assert scores.avg == pytest.approx(np.mean(scores[:3]), abs=1.01e-3), method
    assert PUBLISHED["fine-tuned"].total_avg == 0.578
    assert all(
        0 < value < 1 for each in PUBLISHED.values() for part in each.figures for value in part if value is not None
    )
    assert all(len(each.figures) == 3 and {len(part) for part in each.figures} == {4} for each in PUBLISHED.values())
    assert PUBLISHED["training-free"].rows is not None
    assert PUBLISHED["training-free"].rows.unseen == Scores(0.598, 0.473, 0.34, 0.47)


def test_each_published_figure_says_where_it_was_read() -> None:
    tables = {
        "fine-tuned": "Table 2", "fine-tuned without other": "Table 3", "Prob-avg": "Table 4", "Fea-avg": "Table 4",
        "Linear in place of the block": "Table 5", "25 % of the training data": "Table 6",
    }  # fmt: skip
    for method, table in tables.items():
        assert table in PUBLISHED[method].source
    for method, avg in {"two blocks": 0.569, "cross-modal only": 0.465}.items():
        assert PUBLISHED[method].total_avg == avg
        assert "note" in PUBLISHED[method].source
        assert "Table" not in PUBLISHED[method].source
    without = PUBLISHED["fine-tuned without other"]
    assert without.total_avg == 0.47
    assert without.rows is None  # the other eleven figures are not known here


@given(scored=st.integers(0, 6000), damaged=st.integers(0, 6000))
def test_two_percent_may_be_damaged(scored: int, damaged: int) -> None:
    too_many = 50 * damaged > scored + damaged
    assert bool(too_damaged("test", scored, damaged)) == too_many
    if too_many:
        assert too_damaged("val", scored, damaged).startswith(
            f"WARNING: {damaged} of the {scored + damaged} clips of val"
        )


def test_published_figures_are_of_one_split() -> None:
    assert why_not_published("test", 68, 5820) == ""
    for other in (("val", 68, 5820), ("test", 67, 5820), ("test", 68, 5819)):
        assert why_not_published(*other).startswith("No published figures")


def plain_head(audio: np.ndarray, vision: np.ndarray, text: TextEmbeddings) -> HeadOutput:
    heard, seen = cosine_similarity(audio, text.audio), cosine_similarity(vision, text.vision)
    return HeadOutput(heard, seen, fused_score(heard, seen))


@given(clips=st.integers(1, 9), batch=st.integers(1, 11), seed=st.integers(0, 99))
def test_batches_change_nothing(clips: int, batch: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    audio, vision = rng.standard_normal((2, clips, 10, 8), np.float32)
    text = TextEmbeddings.shared(rng.standard_normal((4, 8), np.float32))
    for whole, parts in zip(
        plain_head(audio, vision, text), decide(plain_head, audio, vision, text, batch), strict=True
    ):
        np.testing.assert_allclose(parts, whole, atol=1e-6)


def test_what_does_not_fit_together_is_refused() -> None:
    text = TextEmbeddings.shared(np.ones((4, 8), np.float32))
    for audio, vision in (((0, 10, 8), (0, 10, 8)), ((1, 10, 8), (2, 10, 8)), ((1, 10, 7), (1, 10, 7))):
        with pytest.raises(UsageError, match="must be"):
            decide(plain_head, np.ones(audio, np.float32), np.ones(vision, np.float32), text)
    one = np.ones((1, 10, 8), np.float32)
    with pytest.raises(UsageError, match="at least 1"):
        decide(plain_head, one, one, text, batch=0)


def test_no_positive_product_at_all_is_background() -> None:
    score = np.array([[0.0, 1.0, 0.2], [0.0, 0.0, 0.0], [1.0, 1.0, 0.0]], np.float32)
    assert fused_labels(score).tolist() == [1, 2, 0]
