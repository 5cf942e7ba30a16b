"""Context vectors give the similarities that live watching decides on."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.archives import unit
from support.demo_copies import BUNDLE

from ovavel.runtime.archive.contexts import ContextVectors, identity_texts
from ovavel.runtime.backends import HeadOutput, open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.errors import UsageError
from ovavel.runtime.pipeline.fusion import cosine_similarity, fused_score
from ovavel.runtime.pipeline.localizer import Localizer
from ovavel.runtime.types import Segment


def stream(kinds: list[str], sizes: tuple[int, int]) -> list[Segment]:
    random = np.random.default_rng(len(kinds))
    return [
        Segment(
            index=t,
            start_s=float(t),
            audio=None if "a" in kind else unit(random.normal(size=sizes[0])),
            vision=None if "v" in kind else unit(random.normal(size=sizes[1])),
        )
        for t, kind in enumerate(kinds)
    ]


@settings(max_examples=25, deadline=None)
@given(kinds=st.lists(st.sampled_from(["", "", "", "a", "v", "av"]), max_size=25), lag=st.integers(0, 9))
def test_products_with_texts_are_the_final_similarities(kinds: list[str], lag: int) -> None:
    bundle = Bundle.open(BUNDLE)
    with closing(open_backend(bundle, graphs=("head",), threads=1)) as backend:
        localizer = Localizer(backend.head, bundle.vocabulary, lag=lag)
        vectors = ContextVectors(backend.head, backend.encoders.sizes, lag=lag)
        scores, contexts = [], []
        for segment in stream(kinds, backend.encoders.sizes):
            scores += [each for each in localizer.push(segment) if each.final]
            contexts += vectors.push(segment)
        scores, contexts = scores + localizer.flush(), contexts + vectors.flush()
    assert [each.index for each in scores] == [each.segment for each in contexts] == list(range(len(kinds)))
    texts = bundle.vocabulary.embeddings
    for score, context in zip(scores, contexts, strict=True):
        for vector, rows, similarity in (
            (context.audio, texts.audio, score.audio_similarity),
            (context.vision, texts.vision, score.vision_similarity),
        ):
            if vector is None:
                assert np.isnan(similarity).all()
            else:
                assert np.abs(rows @ vector - similarity).max() < 1e-6
                assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_senses_with_spaces_of_their_own() -> None:
    """The identity of one has rows of zeros where the other has more components."""

    def head(audio: np.ndarray, vision: np.ndarray, text: TextEmbeddings) -> HeadOutput:
        similarity = cosine_similarity(audio, text.audio), cosine_similarity(vision, text.vision)
        return HeadOutput(*similarity, fused_score(*similarity))

    for sizes in ((5, 8), (8, 5)):
        assert len(identity_texts(*sizes)) == 8
        (segment,) = stream([""], sizes)
        (context,) = ContextVectors(head, sizes, lag=0).push(segment)
        assert context.audio == pytest.approx(segment.audio, abs=1e-6)
        assert context.vision == pytest.approx(segment.vision, abs=1e-6)


def test_a_lag_beyond_the_buffer_is_refused() -> None:
    with pytest.raises(UsageError, match="lag must be"):
        ContextVectors(lambda *_: None, (4, 4), lag=10)  # type: ignore[arg-type, return-value]
