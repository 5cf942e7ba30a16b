"""Texts for the demo world's encoders: phrases about the world, and a tokenizer trained on them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ovavel.eval.demo.world.kinds import KINDS, THINGS

__all__ = ["CAPTIONS", "demo_tokenizer"]

_EMPTY = "nothing but the background"
_TOKENS = 400
_CONTEXT = 77


class Captions(NamedTuple):
    """Phrases of one form. Exactly one of them fits each segment."""

    texts: tuple[str, ...]
    of_kind: NDArray[np.int64]
    """Index of the phrase that fits each of `KINDS`; the last entry is for an empty second."""


def _captions(form: str) -> Captions:
    phrases = [
        form.format(size=kind.size, thing=kind.thing, does=THINGS[kind.thing], speed=kind.speed) for kind in KINDS
    ]
    texts = tuple(dict.fromkeys([*phrases, _EMPTY]))
    return Captions(texts, np.array([texts.index(phrase) for phrase in [*phrases, _EMPTY]]))


CAPTIONS = tuple(
    _captions(form)
    for form in (
        "{size} {thing} {does} {speed}",
        "{thing}",
        "{thing} {does}",
        "{size} {thing}",
        "{thing} {does} {speed}",
    )
)
"""The whole phrase, which is the class name, then parts of it."""


def demo_tokenizer() -> bytes:
    """Return a `tokenizer.json`: byte-level BPE trained on the world's phrases, truncated and padded to 77 tokens.

    It encodes any text, so any name can be searched for; the encoders never learn words from outside the world.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    start, end = "<start>", "<end>"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_TOKENS - 2, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    texts = sorted({text for captions in CAPTIONS for text in captions.texts} | {"other"})
    tokenizer.train_from_iterator(texts, trainer)
    vocabulary = tokenizer.get_vocab()
    ids = {start: len(vocabulary), end: len(vocabulary) + 1}  # the text tower reads out the token with the highest id
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=list(ids.items())
    )
    tokenizer.enable_truncation(_CONTEXT)
    tokenizer.enable_padding(length=_CONTEXT, pad_id=0, pad_token=tokenizer.id_to_token(0))
    text: str = tokenizer.to_str()
    return text.encode()
