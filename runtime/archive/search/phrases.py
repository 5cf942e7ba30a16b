"""Phrases → text embeddings, kept between searches: the text encoder may take seconds to load."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ovavel.runtime.archive.search.query import Texts
from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import normalize_text
from ovavel.runtime.errors import OvavelError, VocabularyError
from ovavel.runtime.pipeline.texts import encode_texts
from ovavel.runtime.system.files import atomic_write, cache_folder, check_private, make_private_folder
from ovavel.runtime.system.progress import Progress, no_progress

if TYPE_CHECKING:
    from ovavel.runtime.bundle.bundle import Bundle

__all__ = ["embed_phrases"]

_BATCH = 8
_MOST_BYTES = 1_000_000
_MOST_KEPT = 4096
"""Phrases, some 40 MB of them at full size: whoever may search a service adds to them."""


def embed_phrases(
    bundle: Bundle, phrases: Sequence[str], *, threads: int | None = None, progress: Progress = no_progress
) -> Texts:
    """Embed `phrases` as the bundle embeds names, with its prompts; those of its vocabulary are there already.

    What was embedded once is read from the cache, without opening the text encoder.

    Raises:
        VocabularyError: there is none, or one cannot be used.
        BundleError: the bundle has no text encoder.
    """
    if not phrases:
        raise VocabularyError('which phrases? For example: ovavel search "glass breaking" --archive DIR --bundle DIR')
    checked = bundle.check_names(phrases)
    names = {normalize_text(name): row for row, name in enumerate(bundle.vocabulary.names)}
    found: dict[str, TextEmbeddings] = {}
    for phrase in checked:
        row = names.get(normalize_text(phrase))
        kept = _read(_place(bundle, phrase)) if row is None else bundle.vocabulary.embeddings[row : row + 1]
        if kept is not None and kept.sizes == bundle.manifest.encoders.sizes and len(kept) == 1:
            found[phrase] = kept
    if left := [phrase for phrase in checked if phrase not in found]:
        backend = open_backend(bundle, device="cpu", threads=threads, graphs=bundle.manifest.encoders.text_graphs)
        with closing(backend):
            embeddings = encode_texts(
                backend, bundle.tokenizer, left, batch=_BATCH, prompts=bundle.vocabulary.prompts, progress=progress
            )
        for row, phrase in enumerate(left):
            found[phrase] = embeddings[row : row + 1]
            _keep(_place(bundle, phrase), found[phrase])
        _prune()
    return Texts(phrases=checked, embeddings=TextEmbeddings.joined([found[phrase] for phrase in checked]))


def _place(bundle: Bundle, phrase: str) -> Path:
    """Where the embeddings of `phrase` are kept: a hash of all that decides on them."""
    encoders, files = bundle.manifest.encoders, bundle.manifest.files
    digest = hashlib.sha256()
    for graph in encoders.text_graphs:
        for name in bundle.graph_files(graph, bundle.precision(graph, "onnxruntime-cpu")):
            digest.update(files[name].sha256.encode())
    for each in (*(files[name].sha256 for name in encoders.tokenizers), *bundle.vocabulary.prompts, phrase):
        digest.update(each.encode() + b"\0")
    return _folder() / f"{digest.hexdigest()}.npz"


def _folder() -> Path:
    return cache_folder() / "phrases"


def _read(path: Path) -> TextEmbeddings | None:
    try:
        check_private(path)
        with path.open("rb") as file:
            return TextEmbeddings.decode(file.read(_MOST_BYTES))
    except (OSError, ValueError, OvavelError):  # embedding it again is always right
        return None


def _keep(path: Path, embeddings: TextEmbeddings) -> None:
    with suppress(OvavelError):  # a cache that cannot be written only costs time
        make_private_folder(path.parent)
        atomic_write(path, embeddings.encode(), private=True)


def _prune() -> None:
    """Remove the oldest phrases beyond `_MOST_KEPT`."""
    with suppress(OSError):  # another process prunes them too; what is left goes the next time
        files = sorted(_folder().iterdir(), key=lambda file: file.stat().st_mtime_ns)
        for file in files[:-_MOST_KEPT]:
            file.unlink()
