"""Similarities, fused scores and the agreement rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from support.rounding import exact_fusion

from ovavel.runtime.pipeline.fusion import agree, agree_clip, cosine_similarity, fused_score, positive_score

OTHER = 3
similarities = arrays(np.float32, (4, 5), elements=st.floats(-1, 1, width=32))
labels = arrays(np.int64, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=10), elements=st.integers(0, OTHER))


@given(audio=similarities, vision=similarities)
@example(audio=np.ones((4, 5), np.float32), vision=1 - np.eye(4, 5, dtype=np.float32) * np.float32(1e-7))
def test_fused_score_follows_its_formula(audio: np.ndarray, vision: np.ndarray) -> None:
    fused = fused_score(audio, vision)
    assert fused.dtype == np.float32
    expected, bound = exact_fusion(audio, vision)
    assert (np.abs(fused - expected) <= bound).all()


@given(audio=similarities, vision=similarities)
def test_fused_score_is_symmetric_bounded_and_keeps_two_negatives(audio: np.ndarray, vision: np.ndarray) -> None:
    fused = fused_score(audio, vision)
    assert (fused >= 0).all()
    assert (fused <= 1).all()
    np.testing.assert_array_equal(fused, fused_score(vision, audio))
    np.testing.assert_array_equal(fused, fused_score(-audio, -vision))


def test_fused_score_is_the_published_one() -> None:
    golden = np.load(Path(__file__).parents[2] / "golden" / "fusion.npz")
    fused = fused_score(golden["audio_similarity"], golden["vision_similarity"])
    np.testing.assert_allclose(fused, golden["score"], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(fused.argmax(axis=-1), golden["score"].argmax(axis=-1))


def test_two_negative_similarities_win_as_in_the_published_model() -> None:
    fused = fused_score(np.array([-0.9, 0.1, 0.5], np.float32), np.array([-0.9, 0.1, -0.5], np.float32))
    np.testing.assert_allclose(fused, [1, 1 / 9, 0], atol=1e-6)


def test_no_positive_product_scores_nothing() -> None:
    fused = fused_score(np.array([0.5, -0.5], np.float32), np.array([-0.5, 0.5], np.float32))
    np.testing.assert_array_equal(fused, [0, 0])


def test_cosine_similarity_forgets_norms() -> None:
    r = np.random.default_rng(0)
    embeddings, text = r.standard_normal((2, 3, 8)).astype(np.float32), r.standard_normal((5, 8)).astype(np.float32)
    similarity = cosine_similarity(embeddings, text)
    assert similarity.shape == (2, 3, 5)
    np.testing.assert_allclose(similarity, cosine_similarity(20 * embeddings, 0.01 * text), atol=1e-6)
    expected = embeddings[1, 2] @ text[4] / np.linalg.norm(embeddings[1, 2]) / np.linalg.norm(text[4])
    np.testing.assert_allclose(similarity[1, 2, 4], expected, atol=1e-6)
    np.testing.assert_allclose(cosine_similarity(text, text).diagonal(), 1, atol=1e-6)
    assert not cosine_similarity(np.zeros((1, 8), np.float32), text).any()


def test_embedding_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"\(2, 8\).*\(5, 9\)"):
        cosine_similarity(np.zeros((2, 8), np.float32), np.zeros((5, 9), np.float32))


@given(vision=labels, data=st.data())
def test_agreement_names_what_both_senses_name(vision: np.ndarray, data: st.DataObject) -> None:
    audio = data.draw(arrays(np.int64, vision.shape, elements=st.integers(0, OTHER)))
    per_segment, per_clip = agree(vision, audio, OTHER), agree_clip(vision, audio, OTHER)
    for v_clip, a_clip, segments, clip in zip(vision, audio, per_segment, per_clip, strict=True):
        first = next((v for v, a in zip(v_clip, a_clip, strict=True) if v == a), OTHER)
        assert segments.tolist() == [v if v == a else OTHER for v, a in zip(v_clip, a_clip, strict=True)]
        assert clip.tolist() == [first if v == a else OTHER for v, a in zip(v_clip, a_clip, strict=True)]


def test_without_negatives_two_senses_against_a_class_do_not_make_it_likely() -> None:
    audio = np.array([0.2, -0.9, 0.5, 0.1], np.float32)
    vision = np.array([0.3, -0.9, -0.5, 0.1], np.float32)
    assert fused_score(audio, vision).argmax() == 1, "as published"
    score = positive_score(audio, vision)
    assert score.argmax() == 0
    assert score[1] == score[2] == 0


@given(similarities.map(np.abs), similarities.map(np.abs))
def test_where_nothing_is_negative_both_fusions_are_one(audio: np.ndarray, vision: np.ndarray) -> None:
    np.testing.assert_array_equal(positive_score(audio, vision), fused_score(audio, vision))
