"""RoBERTa's tokenizer as a bundle's `tokenizer.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ovavel.runtime.errors import InputError, UsageError
from ovavel.training.models.clap.config import TextSize

__all__ = ["CONTEXT", "roberta_tokenizer"]

CONTEXT = 77
"""Tokens in a row, as CLAP was trained with."""

_FILE = "tokenizer.json"
_ONE_SPACE = {
    "type": "Sequence",
    "normalizers": [
        {"type": "Strip", "strip_left": True, "strip_right": True},
        {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
    ],
}
"""Case and characters stay as they are."""


def roberta_tokenizer(folder: Path, size: TextSize) -> bytes:
    """Return the `tokenizer.json` of the weights in `folder`, truncating and padding to 77 tokens.

    Names of control tokens inside a text become ordinary characters.

    Raises:
        InputError: there is no such file, or it is not a tokenizer.
        UsageError: the tokenizer belongs to another model.
    """
    import tokenizers

    path = folder / _FILE
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        padding = size.pad_token_id
        content |= {
            "truncation": {"direction": "Right", "max_length": CONTEXT, "strategy": "LongestFirst", "stride": 0},
            "padding": {
                "strategy": {"Fixed": CONTEXT},
                "direction": "Right",
                "pad_to_multiple_of": None,
                "pad_id": padding,
                "pad_type_id": 0,
                "pad_token": "<pad>",
            },
            # They would be matched inside a user's text.
            "added_tokens": [],
            "normalizer": content.get("normalizer") or _ONE_SPACE,
        }
        data = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
        opened = tokenizers.Tokenizer.from_str(data.decode())
        row = opened.encode("a").ids
    except OSError as error:
        raise InputError(
            f"cannot read CLAP's tokenizer {path}: {error.strerror or error}. Fetch the whole folder"
        ) from error
    except Exception as error:  # tokenizers raises nothing narrower
        raise InputError(f"{path} is not a tokenizer.json ({error})") from error
    tokens = 1 + max(*row, *opened.get_vocab().values())
    if tokens > size.vocab_size or len(row) != CONTEXT or opened.num_special_tokens_to_add(is_pair=False) != 2:
        raise UsageError(
            f"the tokenizer {path} has {tokens} tokens, and the text tower {size.vocab_size}, each text between a "
            f"start and an end token and padded with {padding}: they do not belong together"
        )
    return data
