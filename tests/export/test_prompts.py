"""A bundle exported with prompts: its vocabulary is averaged, and it still verifies itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ovavel.eval.datasets.texts import embed_texts
from ovavel.export.bundle import BundleContents, write_bundle
from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.pipeline.texts import encode_texts
from ovavel.runtime.verification.compare import check_vocabulary
from ovavel.runtime.verification.golden import Golden
from ovavel.training.models.imagebind.model import ImageBindConfig

PROMPTS = ("a photo of {}", "the sound of {}")


def test_prompts_at_export(tmp_path: Path, tiny_weights: Path, exported_bundle: Path) -> None:
    names = Bundle.open(exported_bundle).vocabulary.names[:-1]
    contents = BundleContents(tiny_weights, names, config=ImageBindConfig.tiny(), prompts=PROMPTS)
    bundle = write_bundle(contents, tmp_path / "bundle")  # the self-check at its end includes the vocabulary
    assert bundle.vocabulary.prompts == PROMPTS
    golden, plain = Golden.load(bundle), Bundle.open(exported_bundle).vocabulary
    assert check_vocabulary(golden, bundle.vocabulary).failure is None
    assert check_vocabulary(golden, plain).failure, "bare names are not what was exported"
    np.testing.assert_allclose(bundle.vocabulary.embeddings.vision[-1], plain.embeddings.vision[-1], atol=1e-6)
    backend = open_backend(bundle, device="cpu", threads=1, graphs=("text",))
    try:
        expected = encode_texts(backend, bundle.tokenizer, [*names, "new words"], batch=4, prompts=PROMPTS)
    finally:
        backend.close()
    np.testing.assert_allclose(bundle.vocabulary.embeddings.vision[:-1], expected.vision[:-1], atol=1e-5)
    # Words that the vocabulary lacks are read in its prompts.
    np.testing.assert_allclose(embed_texts(bundle, ["new words"]).vision[0], expected.vision[-1], atol=1e-5)
    assert Bundle.open(bundle.path).vocabulary.prompts == PROMPTS
