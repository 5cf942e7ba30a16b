"""CLIP's byte-pair encoding as a `tokenizer.json` (docs/method.md, Text)."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from ovavel.runtime.errors import ExportError, InputError, UsageError

__all__ = ["clip_tokenizer", "model_tokenizer"]

CONTEXT_LENGTH = 77
MERGES_SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"

_TOKENS = 49_408
_START, _END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+)"
"""Pieces that are encoded separately: a contraction's ending, a run of letters, a digit, a run of other characters."""


@cache
def clip_tokenizer() -> bytes:
    """Return CLIP's `tokenizer.json` with 49 408 tokens, truncating and padding to 77.

    Start and end tokens are added around each text, but their names inside a text are ordinary characters.

    Raises:
        ExportError: the merges file of this installation is not the published one.
    """
    packed = (resources.files("ovavel.training.models") / "bpe_simple_vocab_16e6.txt.gz").read_bytes()
    if hashlib.sha256(packed).hexdigest() != MERGES_SHA256:
        raise ExportError("the byte-pair merges file of this installation is damaged; reinstall ovavel")
    lines = gzip.decompress(packed).decode("utf-8").splitlines()
    characters = _byte_characters()
    # After its header, the published file holds more merges than fit the published vocabulary.
    merges = [tuple(line.split()) for line in lines[1 : 1 + _TOKENS - 2 * len(characters) - 2]]
    pieces = [*characters, *(character + _WORD_END for character in characters)]
    tokens = [*pieces, *("".join(pair) for pair in merges), _START, _END]
    ids = {token: index for index, token in enumerate(tokens)}
    template = [{"SpecialToken": {"id": _START, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    template.append({"SpecialToken": {"id": _END, "type_id": 0}})
    content: dict[str, Any] = {
        "version": "1.0",
        "truncation": {
            "direction": "Right",
            "max_length": CONTEXT_LENGTH,
            "strategy": "LongestFirst",
            "stride": 0,
        },
        "padding": {
            "strategy": {"Fixed": CONTEXT_LENGTH},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": tokens[0],
        },
        # No added tokens: they would be matched inside a user's text.
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": _WORDS}, "behavior": "Removed", "invert": True},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": template,
            "pair": template,
            "special_tokens": {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in (_START, _END)},
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": _WORD_END,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": ids,
            "merges": [list(pair) for pair in merges],
        },
    }
    return json.dumps(content, ensure_ascii=False).encode("utf-8")


def model_tokenizer(path: str | os.PathLike[str] | None, *, model: str, vocabulary: int) -> bytes:
    """Return the `tokenizer.json` of a model (None: CLIP's), checked to produce only tokens that the model has.

    Args:
        path: the file.
        model: name of the model, for the message.
        vocabulary: how many tokens it knows.

    Raises:
        InputError: the file cannot be read, or is not a tokenizer.
        UsageError: the tokenizer belongs to another model.
    """
    import tokenizers

    try:
        data = clip_tokenizer() if path is None else Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the tokenizer {path}: {error.strerror or error}") from error
    try:
        tokenizer = tokenizers.Tokenizer.from_str(data.decode())
        row = tokenizer.encode("a").ids
    except Exception as error:  # tokenizers raises nothing narrower
        raise InputError(f"{path} is not a tokenizer.json ({error})") from error
    # Control tokens need not be in the vocabulary, so an encoded text is checked too.
    size = 1 + max(*row, *tokenizer.get_vocab().values())
    if size > vocabulary or len(row) != CONTEXT_LENGTH:
        raise UsageError(
            f"the tokenizer {path or 'of CLIP'} has {size} tokens in rows of {len(row)}, and the model {model!r} "
            f"takes {vocabulary} in rows of {CONTEXT_LENGTH}: give the model's tokenizer as --tokenizer"
        )
    return data


def _byte_characters() -> list[str]:
    """Return the 256 printable characters that represent the bytes, in the order of their token ids.

    Bytes printable in Latin-1 represent themselves and come first; the others use the code points from 256 on.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = 256 - len(printable)
    return [chr(code) for code in printable] + [chr(256 + offset) for offset in range(others)]
