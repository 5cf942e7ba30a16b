"""The vocabulary that lies in a folder, read without the rest of the bundle."""

from __future__ import annotations

from pathlib import Path

from ovavel.runtime.bundle.vocabulary import EMBEDDINGS, NAMES, Vocabulary


def read_vocabulary(folder: Path) -> Vocabulary:
    """Read back what `Vocabulary.save` wrote."""
    names, embeddings = ((folder / name).read_bytes() for name in (NAMES, EMBEDDINGS))
    return Vocabulary.decode(names, embeddings, where=str(folder))
