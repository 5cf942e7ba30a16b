"""A bundle on OV-AVEBench, by every protocol."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from support.eval.scored import NAMES, split_of

from ovavel.eval.accuracy.metrics import score_agreement
from ovavel.eval.accuracy.protocols import decide, fused_labels
from ovavel.eval.accuracy.score import score_protocol
from ovavel.eval.datasets.encode import Encoded
from ovavel.runtime.backends import Backend, HeadOutput
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.cli import main
from ovavel.runtime.pipeline.fusion import agree_clip, cosine_similarity, fused_score
from ovavel.runtime.pipeline.localizer import Localizer
from ovavel.runtime.types import Segment

pytestmark = pytest.mark.slow


def test_a_batch_is_decided_like_the_localizer(
    encoded: Encoded, text: TextEmbeddings, backend: Backend, bundle: Bundle
) -> None:
    features = encoded.features
    localizer = Localizer(backend.head, Vocabulary(names=NAMES, embeddings=text))
    output = decide(backend.head, features.audio, features.vision, text)
    labels = fused_labels(output.score)
    for n in range(len(features.clips)):
        clip = zip(features.audio[n], features.vision[n], strict=True)
        segments = [Segment(index=t, start_s=float(t), vision=v, audio=a) for t, (a, v) in enumerate(clip)]
        for t, scores in enumerate(localizer.score(segments)):
            assert scores.label == NAMES[labels[n, t]]
            np.testing.assert_allclose(scores.scores, output.score[n, t], atol=1e-5)
    assert bundle.vocabulary.names != NAMES  # so the text encoder had its part


def silent_head(audio: np.ndarray, vision: np.ndarray, text: TextEmbeddings) -> HeadOutput:
    """What is seen is the opposite of what is heard: no class ever has a positive product."""
    heard = np.abs(cosine_similarity(audio, text.audio))
    return HeadOutput(heard, -heard, fused_score(heard, -heard))


def test_no_evidence_is_background_in_both(encoded: Encoded, text: TextEmbeddings) -> None:
    features = encoded.features
    truth = np.zeros((len(features.clips), 10), np.intp)
    result = score_protocol("fused", split_of(features, truth), silent_head, text)
    assert (result.labels == len(NAMES) - 1).all()
    segments = [
        Segment(index=t, start_s=float(t), vision=features.vision[0, t], audio=features.audio[0, t]) for t in range(10)
    ]
    scores = Localizer(silent_head, Vocabulary(names=NAMES, embeddings=text)).score(segments)
    assert {each.label for each in scores} == {"other"}


def test_agreement_uses_the_embeddings_directly(encoded: Encoded, text: TextEmbeddings) -> None:
    features = encoded.features
    truth = np.random.default_rng(0).integers(0, 5, (4, 10))

    def no_head(*_: np.ndarray) -> HeadOutput:
        raise AssertionError("training-free")

    for protocol, names in (("agreement", 5), ("agreement-without-other", 4)):
        vision, audio = ((each @ text.vision[:names].T).argmax(-1) for each in (features.vision, features.audio))
        result = score_protocol(protocol, split_of(features, truth), no_head, text)
        np.testing.assert_array_equal(result.labels, agree_clip(vision, audio, 4))
        assert result.rows.total == score_agreement(vision, audio, truth, 5)
        keep = np.array([True, False, True, False])
        assert result.score(keep, truth, 5) == score_agreement(vision[keep], audio[keep], truth[keep], 5)


def test_inputs_that_cannot_be_scored_are_refused(
    data: Path, exported_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in data.glob("ovave_*.csv"):
        shutil.copy(file, bare)
    shutil.copy(data / "released_ovavel_dataset_anno.json", bare)
    bundle = ["--bundle", str(exported_bundle), "--threads", "1"]
    wrong = {
        "all 8 clips are damaged": ["--data", str(bare), *bundle],
        "annotation": ["--data", str(tmp_path), *bundle],
        "no bundle": ["--data", str(data), "--bundle", str(tmp_path / "gone")],
        "ovavel train features": ["--data", str(data), *bundle, "--features", str(tmp_path)],
        "--weights is for": ["--data", str(data), *bundle, "--weights", "x"],
        "which protocols": ["--data", str(data), *bundle, "--protocols"],
        "--out is a folder": ["--data", str(bare), *bundle, "--out", str(bare / "ovave_dataset_meta.csv")],
    }
    for said, words in wrong.items():
        assert main(["eval", "score", "--out", str(tmp_path / "out"), *words]) > 0
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error
    assert not list((tmp_path / "out").iterdir())
