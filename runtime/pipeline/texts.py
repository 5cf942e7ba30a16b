"""Names in files; texts → embeddings for each sense, through one text encoder or one for each, with prompts or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.errors import InputError, VocabularyError
from ovavel.runtime.reporting.text import shown_name
from ovavel.runtime.system.paths import check_path
from ovavel.runtime.system.progress import Progress, no_progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ovavel.runtime.backends import Backend
    from ovavel.runtime.bundle.vocabulary import Tokenizer
    from ovavel.runtime.types import Sense

__all__ = ["averaged", "encode_texts", "read_names", "sentences"]

_PLACE = "{}"


def read_names(path: Path, background: str = "other") -> list[str]:
    """Read one name per line; blank lines, lines that start with # and the background as the last name are left out.

    Raises:
        InputError: the file cannot be read, or is not UTF-8 text.
    """
    check_path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # splitlines() also splits at U+2028 and the like
    except OSError as error:
        raise InputError(f"cannot read the vocabulary {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"the vocabulary {path} is not UTF-8 text; give one name per line") from error
    names = [name for line in lines if (name := line.strip(" \t")) and not name.startswith("#")]
    return names[:-1] if names[-1:] == [background] else names


def sentences(names: Sequence[str], prompts: Sequence[str], tokenizers: Sequence[Tokenizer]) -> list[str]:
    """Put N `names` into K `prompts`: N · K sentences, those of a name one after the other; the names without prompts.

    Raises:
        VocabularyError: a prompt has no place for the name or several, comes twice, or a sentence has more tokens than
            one of the `tokenizers` reads.
    """
    if not prompts:
        return list(names)
    for prompt in prompts:
        if prompt.count(_PLACE) != 1:
            raise VocabularyError(
                f"the prompt '{shown_name(prompt)}' must have one {_PLACE} for the name, as 'a photo of {{}}' has"
            )
    if len(set(prompts)) < len(prompts):
        raise VocabularyError("a prompt is given twice; leave one out")
    found = [prompt.replace(_PLACE, name) for name in names for prompt in prompts]
    for tokenizer in tokenizers:
        for sentence, count in zip(found, tokenizer.count(found), strict=True):
            if count > tokenizer.max_tokens:
                raise VocabularyError(
                    f"'{shown_name(sentence)}' has {count} tokens, and at most {tokenizer.max_tokens} are read; "
                    "shorten the name or the prompt"
                )
    return found


def averaged(embeddings: TextEmbeddings, prompts: int) -> TextEmbeddings:
    """Average the unit embeddings of each name's sentences (docs/method.md, Text): (N · K, D) → (N, D), unit norm."""
    if prompts <= 1:
        return embeddings

    def mean(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        unit = rows.astype(np.float64)
        unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
        total = unit.reshape(-1, prompts, rows.shape[1]).sum(axis=1)
        total /= np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
        found: NDArray[np.float32] = total.astype(np.float32)
        return found

    if embeddings.is_shared:
        return TextEmbeddings.shared(mean(embeddings.audio))
    return TextEmbeddings(mean(embeddings.audio), mean(embeddings.vision))


def encode_texts(
    backend: Backend,
    tokenizer: Callable[[Sense], Tokenizer],
    texts: Sequence[str],
    *,
    batch: int,
    prompts: Sequence[str] = (),
    progress: Progress = no_progress,
) -> TextEmbeddings:
    """Embed N `texts` for both senses, each text encoder once.

    Args:
        backend: opened with the text graphs (`backend.encoders.text_graphs`).
        tokenizer: gives a sense's tokenizer, as `Bundle.tokenizer` does.
        texts: N texts, at least one.
        batch: texts to embed at once.
        prompts: sentences with {} in the place of a text, whose embeddings are averaged; the text itself without any.
        progress: called with the texts that are done, each counted once for every text encoder and prompt.

    Raises:
        VocabularyError: a prompt cannot be used; see `sentences`.
    """
    senses = backend.encoders.text_senses
    tokenizers = {sense: tokenizer(sense) for sense in senses}
    read = sentences(texts, prompts, list(tokenizers.values()))
    found = {}
    for number, sense in enumerate(senses):
        tokens, rows = tokenizers[sense].encode(read), []
        for start in range(0, len(tokens), batch):
            progress("reading names", number * len(read) + start, len(senses) * len(read))
            rows.append(backend.text(tokens[start : start + batch], sense))
        found[sense] = np.concatenate(rows)
    return averaged(TextEmbeddings(found.get("audio", found["vision"]), found["vision"]), len(prompts))
