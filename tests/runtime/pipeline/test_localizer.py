from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovavel.runtime.backends import HeadOutput, open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.calibration import Rule
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.errors import UsageError
from ovavel.runtime.pipeline.fusion import cosine_similarity, fused_score
from ovavel.runtime.pipeline.localizer import BUFFER, Localizer, deciding_head
from ovavel.runtime.results.recording import localize_recording
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.types import FusionKind, Segment, SegmentScores

D = 16
DEMO = Path(__file__).parents[3] / "eval" / "demo" / "assets"
NAMES = ("dog barking", "car", "bell", "other")


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


TEXT = unit(np.random.default_rng(0).standard_normal((len(NAMES), D)))
VOCABULARY = Vocabulary(names=NAMES, embeddings=TextEmbeddings.shared(TEXT))


def head(audio: np.ndarray, vision: np.ndarray, text: TextEmbeddings) -> HeadOutput:
    """A head whose every output depends on every segment it sees, as attention does."""
    assert audio.shape == vision.shape
    assert audio.shape[0] == 1
    assert audio.dtype == np.float32
    features = [unit(x + x.mean(axis=1, keepdims=True)) for x in (audio, vision)]
    similarities = [cosine_similarity(x, text.vision) for x in features]
    return HeadOutput(*similarities, fused_score(*similarities))


def segment(index: int, *, vision: bool = True, audio: bool = True) -> Segment:
    rng = np.random.default_rng(index)
    embeddings = unit(TEXT[index % 3] + 0.3 * rng.standard_normal((2, D)))
    return Segment(
        index=index,
        start_s=float(index),
        vision=embeddings[0] if vision else None,
        audio=embeddings[1] if audio else None,
    )


def same(a: SegmentScores, b: SegmentScores) -> bool:
    arrays = ("scores", "vision_similarity", "audio_similarity")
    return (a.label, a.score, a.context) == (b.label, b.score, b.context) and all(
        np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True) for name in arrays
    )


def test_ten_pushes_equal_the_offline_clip_bit_for_bit() -> None:
    clip = [segment(i) for i in range(10)]
    localizer = Localizer(head, VOCABULARY, lag=BUFFER - 1)
    for s in clip:
        pushed = localizer.push(s)
    offline = Localizer(head, VOCABULARY).score(clip)
    assert len(pushed) == 10
    assert all(same(a, b) for a, b in zip(pushed, offline, strict=True))
    assert [s.final for s in pushed] == [True] + [False] * 9


@given(
    st.lists(st.sampled_from(["both", "vision", "audio", "none"]), min_size=1, max_size=30),
    st.integers(0, BUFFER - 1),
    st.integers(10, 12),
)
def test_every_second_is_final_exactly_once_in_order_with_its_lag(senses: list[str], lag: int, buffer: int) -> None:
    localizer = Localizer(head, VOCABULARY, lag=lag, buffer=buffer)
    final: list[int] = []
    for i, sense in enumerate(senses):
        scores = localizer.push(segment(i, vision=sense in ("both", "vision"), audio=sense in ("both", "audio")))
        assert [s.index for s in scores] == list(range(max(0, i - lag), i + 1))
        assert all(s.final == (s.index <= i - lag) for s in scores)
        final += [s.index for s in scores if s.final]
    final += [s.index for s in localizer.flush()]
    assert final == list(range(len(senses)))
    assert localizer.flush() == []


def test_earlier_seconds_are_revised_as_context_arrives() -> None:
    localizer = Localizer(head, VOCABULARY)
    first = localizer.push(segment(0))[0]
    assert first.context == 1
    revised = localizer.push(segment(1))[0]
    assert revised.context == 2
    assert not np.array_equal(first.scores, revised.scores)


@pytest.mark.parametrize(("vision", "audio", "missing"), [(1, 0, "audio"), (0, 1, "vision"), (0, 0, "vision audio")])
def test_a_second_without_a_sense_is_background_and_says_so(vision: int, audio: int, missing: str) -> None:
    localizer = Localizer(head, VOCABULARY)
    localizer.push(segment(0))
    before, lacking = localizer.push(segment(1, vision=bool(vision), audio=bool(audio)))
    assert before.context == 1  # the lacking second is no context for others
    assert (lacking.label, lacking.score, lacking.context) == ("other", 1.0, 0)
    assert lacking.missing == tuple(missing.split())
    assert np.isnan(lacking.vision_similarity).all() == (not vision)
    assert np.isnan(lacking.audio_similarity).all() == (not audio)
    if vision:
        np.testing.assert_allclose(lacking.vision_similarity, TEXT @ segment(1).vision, rtol=1e-6)


def test_no_evidence_at_all_is_background_not_the_first_class() -> None:
    def opposed(audio: np.ndarray, vision: np.ndarray, text: TextEmbeddings) -> HeadOutput:
        shape = (*audio.shape[:2], len(text))
        plus = np.full(shape, 0.5, np.float32)
        return HeadOutput(plus, -plus, np.zeros(shape, np.float32))

    scores = Localizer(opposed, VOCABULARY, lag=0).push(segment(0))[0]
    assert (scores.label, scores.score) == ("other", 0.0)


def test_a_new_vocabulary_rescores_what_is_not_final() -> None:
    localizer = Localizer(head, VOCABULARY, lag=5)
    localizer.push(segment(0))
    localizer.vocabulary = Vocabulary(names=("bell", "other"), embeddings=TextEmbeddings.shared(TEXT[2:]))
    scores = localizer.push(segment(1))
    assert [len(s.scores) for s in scores] == [2, 2]
    assert {s.label for s in scores} <= {"bell", "other"}


def test_a_hole_in_the_stream_is_refused() -> None:
    localizer = Localizer(head, VOCABULARY)
    localizer.push(segment(0))
    with pytest.raises(ValueError, match="segment 2 does not follow segment 0"):
        localizer.push(segment(2))


@pytest.mark.parametrize("lag", [10, -1])
def test_a_lag_that_cannot_be_is_refused(lag: int) -> None:
    with pytest.raises(UsageError, match="lag must be"):
        Localizer(head, VOCABULARY, buffer=10, lag=lag)


def test_a_buffer_without_segments_is_refused() -> None:
    with pytest.raises(ValueError, match="a buffer holds"):
        Localizer(head, VOCABULARY, buffer=0, lag=0)


def test_a_bundle_decides_by_its_own_fusion_unless_another_is_asked_for() -> None:
    def head(audio: np.ndarray, vision: np.ndarray, text: TextEmbeddings) -> HeadOutput:
        audio, vision = (np.array([[row]], np.float32) for row in ([0.2, -0.9, 0.1], [0.3, -0.9, 0.1]))
        return HeadOutput(audio, vision, fused_score(audio, vision))

    one, text = np.zeros((1, 1, 4), np.float32), TextEmbeddings.shared(np.zeros((3, 4), np.float32))
    published = deciding_head(head, Rule(kind="published"))(one, one, text)
    np.testing.assert_array_equal(published.score, head(one, one, text).score)
    output = deciding_head(head, Rule(kind="positive"))(one, one, text)
    assert output.score.argmax() == 0
    np.testing.assert_array_equal(output.audio_similarity, head(one, one, text).audio_similarity)


def test_scores_of_another_fusion_have_no_probability() -> None:
    bundle = Bundle.open(DEMO / "bundle")
    own = bundle.manifest.fusion.decision
    other: FusionKind = "published" if own == "positive" else "positive"
    backend = open_backend(bundle, device="cpu", threads=1)
    try:
        found = {
            kind: localize_recording(bundle, MediaSource(DEMO / "clip.mp4"), backend=backend, fusion=kind)
            for kind in (None, own, other)
        }
    finally:
        backend.close()
    assert [e.peak_probability for e in found[None].events] == [e.peak_probability for e in found[own].events]
    assert all(event.peak_probability for event in found[None].events)
    assert found[other].events
    assert not any(event.peak_probability for event in found[other].events)
