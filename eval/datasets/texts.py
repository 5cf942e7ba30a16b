"""Text embeddings for any words, through a bundle's own vocabulary or text encoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.vocabulary import normalize_text
from ovavel.runtime.errors import VocabularyError

__all__ = ["embed_texts"]

# N texts, D embedding size

_BATCH = 8


def embed_texts(bundle: Bundle, texts: Sequence[str], *, threads: int | None = None) -> NDArray[np.float32]:
    """(N, D) float32 unit-norm embeddings of `texts`: the vocabulary's where it has the name, else the text graph's.

    Raises:
        VocabularyError: a text is not in the vocabulary, and the bundle has no text graph.
    """
    vocabulary = bundle.vocabulary
    known = {normalize_text(name): row for name, row in zip(vocabulary.names, vocabulary.embeddings, strict=True)}
    missing = [text for text in texts if normalize_text(text) not in known]
    if missing:
        if "text" not in bundle.manifest.graphs:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise VocabularyError(
                f"{missing[0]!r}{more} is not in the vocabulary of {bundle.path}, which has no text graph to embed it; "
                "export the bundle again with these names or with its text encoder"
            )
        tokens = bundle.tokenizer().encode(missing)
        backend = open_backend(bundle, device="cpu", threads=threads, graphs=("text",))
        try:
            rows = np.concatenate([backend.text(tokens[i : i + _BATCH]) for i in range(0, len(tokens), _BATCH)])
        finally:
            backend.close()
        known |= dict(zip(map(normalize_text, missing), rows, strict=True))
    return np.stack([known[normalize_text(text)] for text in texts])
