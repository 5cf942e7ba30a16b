"""Texts → embeddings for each sense, through one text encoder or through one for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.system.progress import Progress, no_progress

if TYPE_CHECKING:
    from ovavel.runtime.backends import Backend
    from ovavel.runtime.bundle.vocabulary import Tokenizer
    from ovavel.runtime.types import Sense

__all__ = ["encode_texts"]


def encode_texts(
    backend: Backend,
    tokenizer: Callable[[Sense], Tokenizer],
    texts: Sequence[str],
    *,
    batch: int,
    progress: Progress = no_progress,
) -> TextEmbeddings:
    """Embed N `texts` for both senses, each text encoder once.

    Args:
        backend: opened with the text graphs (`backend.encoders.text_graphs`).
        tokenizer: gives a sense's tokenizer, as `Bundle.tokenizer` does.
        texts: N texts, at least one.
        batch: texts to embed at once.
        progress: called with the texts that are done, each counted once for every text encoder.
    """
    senses = backend.encoders.text_senses
    found = {}
    for number, sense in enumerate(senses):
        tokens, rows = tokenizer(sense).encode(texts), []
        for start in range(0, len(tokens), batch):
            progress("reading names", number * len(texts) + start, len(senses) * len(texts))
            rows.append(backend.text(tokens[start : start + batch], sense))
        found[sense] = np.concatenate(rows)
    return TextEmbeddings(found.get("audio", found["vision"]), found["vision"])
