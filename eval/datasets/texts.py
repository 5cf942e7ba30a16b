"""Text embeddings for any words, through a bundle's own vocabulary or text encoder."""

from __future__ import annotations

from collections.abc import Sequence

from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import normalize_text
from ovavel.runtime.errors import VocabularyError
from ovavel.runtime.pipeline.texts import encode_texts

__all__ = ["embed_texts"]

_BATCH = 8


def embed_texts(bundle: Bundle, texts: Sequence[str], *, threads: int | None = None) -> TextEmbeddings:
    """Unit-norm embeddings of `texts`: the vocabulary's where it has the name, else the text encoders'.

    The text encoders read them in the vocabulary's prompts, where it has any.

    Raises:
        VocabularyError: a text is not in the vocabulary, and the bundle has no text encoder.
    """
    vocabulary = bundle.vocabulary
    rows = {normalize_text(name): row for row, name in enumerate(vocabulary.names)}
    embeddings = vocabulary.embeddings
    missing = [text for text in texts if normalize_text(text) not in rows]
    if missing:
        graphs = bundle.manifest.encoders.text_graphs
        if not set(graphs) <= bundle.manifest.graphs.keys():
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise VocabularyError(
                f"{missing[0]!r}{more} is not in the vocabulary of {bundle.path}, which has no text graph to embed it; "
                "export the bundle again with these names or with its text encoder"
            )
        backend = open_backend(bundle, device="cpu", threads=threads, graphs=graphs)
        try:
            found = encode_texts(backend, bundle.tokenizer, missing, batch=_BATCH, prompts=vocabulary.prompts)
        finally:
            backend.close()
        rows |= {normalize_text(text): len(embeddings) + row for row, text in enumerate(missing)}
        embeddings = TextEmbeddings.joined([embeddings, found])
    return embeddings[[rows[normalize_text(text)] for text in texts]]
