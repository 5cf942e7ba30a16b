"""What is compared with PyTorch, and what each precision is held to."""

from __future__ import annotations

import numpy as np
import pytest

from ovavel.runtime.backends import HeadOutput
from ovavel.runtime.pipeline.fusion import fused_score
from ovavel.runtime.verification.compare import (
    FURTHEST,
    EmbeddingDifferences,
    check_embeddings,
    check_score,
    check_similarity,
    compare_embeddings,
    compare_heads,
    embedding_failure,
)
from ovavel.runtime.verification.requirements import REQUIREMENTS, loosest, requirement


def failure(precision: str, cosine: float, away: float) -> str | None:
    return embedding_failure(
        REQUIREMENTS[precision], EmbeddingDifferences(np.array([cosine]), np.array([away])), ["black"]
    )


def test_requirements_by_precision() -> None:
    for precision, cosine in (("fp32", 0.999999), ("fp16", 0.999), ("bf16", 0.999), ("int8", 0.99), ("fp8", 0.99)):
        assert REQUIREMENTS[precision].min_cosine == cosine
        assert failure(precision, cosine, 1e-7) is None
        assert "black" in (failure(precision, cosine - 1e-5, 1e-7) or "")
    assert "differs by 1.0e-05" in (failure("fp32", 1.0, 1e-5) or "")
    assert failure("fp16", 1.0, 1e-2) is None
    assert "not finite" in (failure("int8", -1.0, 2.0) or "")
    assert requirement("int4-something") == REQUIREMENTS["int8"]
    assert loosest(["fp32", "int8", "fp16"]) == REQUIREMENTS["int8"]


@pytest.fixture
def rows() -> np.ndarray:
    rows = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_embeddings_of_another_size_have_the_largest_difference(rows: np.ndarray) -> None:
    found = compare_embeddings(rows[:, :4], rows)
    assert (found.cosine == -1).all()
    assert (found.away == FURTHEST).all()
    assert "not finite" in (check_embeddings("vision", REQUIREMENTS["int8"], found, ["a", "b", "c"]).failure or "")


def head(audio: np.ndarray, vision: np.ndarray) -> HeadOutput:
    return HeadOutput(audio, vision, fused_score(audio, vision))


def test_scores_are_compared_for_equal_similarities(rows: np.ndarray) -> None:
    theirs = head(rows, rows[::-1])
    ours = head(rows + np.float32(0.01), rows[::-1])
    found = compare_heads(ours, theirs)
    assert found.audio_similarity == found.similarity == pytest.approx(0.01, abs=1e-6)
    assert found.vision_similarity == found.score == 0
    assert compare_heads(ours._replace(score=ours.score + np.float32(0.5)), theirs).score == pytest.approx(0.5)
    assert check_similarity({"a clip": found.similarity}, REQUIREMENTS["fp32"]).failure
    assert not check_similarity({"a clip": found.similarity}, REQUIREMENTS["int8"]).failure


def test_a_head_of_another_shape_or_with_non_finite_output_has_the_largest_difference(rows: np.ndarray) -> None:
    theirs = head(rows, rows)
    broken = rows.copy()
    broken[1, 0] = np.nan
    assert compare_heads(head(broken, rows), theirs) == (FURTHEST, 0, FURTHEST)
    assert compare_heads(head(rows[:2], rows[:2]), theirs).similarity == FURTHEST
    assert check_score({"a clip": float("nan")}, REQUIREMENTS["int8"]).failure
