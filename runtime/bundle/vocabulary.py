"""Class names, their tokens and their text embeddings."""

from __future__ import annotations

import functools
import hashlib
import html
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.bundle.graphs import SENSES
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.errors import BundleError, VocabularyError
from ovavel.runtime.reporting.text import shown_name
from ovavel.runtime.system.untrusted import brief, read_json

__all__ = [
    "EMBEDDINGS",
    "NAMES",
    "TOKENIZER",
    "Tokenizer",
    "Vocabulary",
    "check_names",
    "normalize_text",
]

# N texts, L tokens in a text's row (77 for ImageBind), C classes with the background last, D embedding size of a sense

NAMES = "vocabulary.json"
EMBEDDINGS = "vocabulary.npz"
TOKENIZER = "tokenizer.json"

_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories that no name needs: control, direction and width characters, lone surrogates, separators."""
_BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
"""Invisible characters of other categories: two names that look the same would be two classes."""

_LONGEST_ROW = 4096
"""Longest row, in tokens, that a tokenizer may pad texts to; CLIP's has 77."""

_OUTER = " \t\xa0\u3000"
"""White space that is stripped from a name."""


@functools.lru_cache(maxsize=65_536)
def normalize_text(text: str) -> str:
    """Return `text` as CLIP's tokenizer sees it (docs/method.md, Text): repaired, unescaped, single spaces, lower case.

    Names that are the same in this form are the same name, whatever tokenizer reads them.
    """
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return re.sub(r"\s+", " ", text).strip().lower()


class Tokenizer:
    """CLIP's byte-pair encoding, or any other that a `tokenizer.json` describes with a fixed length.

    Texts are normalised as CLIP's are, unless the file describes a normalizer of its own.
    """

    def __init__(self, rows: Any, *, context_length: int) -> None:
        self._rows = rows
        self.context_length = context_length
        """L, the tokens in a row with the start and end tokens."""
        self.max_tokens = context_length - rows.num_special_tokens_to_add(is_pair=False)
        """How many tokens a text may have, without start and end, before it is truncated."""

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Tokenizer:
        """Read a `tokenizer.json`.

        Raises:
            BundleError: it is not such a file, or does not define the length to which texts are truncated and padded.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise BundleError(f"{path} is not a tokenizer file ({error}); export or copy the bundle again") from error
        return cls.decode(data, where=str(path))

    @classmethod
    def decode(cls, data: bytes, *, where: str) -> Tokenizer:
        """Read the content of a `tokenizer.json`; `where` names it in errors.

        Raises:
            BundleError: as `open`.
        """
        import tokenizers

        try:
            text = data.decode("utf-8")
            rows = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # tokenizers raises nothing narrower
            raise BundleError(
                f"{where} is not a tokenizer file ({brief(error)}); export or copy the bundle again"
            ) from error
        length = rows.padding["length"] if rows.padding else None
        if not length or not rows.truncation or rows.truncation["max_length"] != length:
            raise BundleError(f"{where} does not truncate and pad texts to one length; export the bundle again")
        if length > _LONGEST_ROW or (rows.padding or {}).get("pad_to_multiple_of"):
            raise BundleError(f"{where} pads texts to far more than {_LONGEST_ROW} tokens; export the bundle again")
        return cls(rows, context_length=length)

    def encode(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return the tokens (N, L) of `texts`: start, text, end, padding. Longer texts are truncated before the end.

        Names of control tokens inside a text are plain text.
        """
        encodings = self._rows.encode_batch(self._normalized(texts))
        return np.array([encoding.ids for encoding in encodings], dtype=np.int64).reshape(-1, self.context_length)

    @functools.cached_property
    def _whole(self) -> Any:
        """The same one, without truncation and padding."""
        import tokenizers

        whole = tokenizers.Tokenizer.from_str(self._rows.to_str())
        whole.no_padding()
        whole.no_truncation()
        return whole

    def count(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has before truncation, without start and end."""
        encodings = self._whole.encode_batch(self._normalized(texts), add_special_tokens=False)
        return [len(encoding.ids) for encoding in encodings]

    def _normalized(self, texts: Sequence[str]) -> list[str]:
        """A file with a normalizer does it itself; CLIP's has none, since it repairs texts as no such file can say."""
        return list(texts) if self._rows.normalizer is not None else [normalize_text(text) for text in texts]


def check_names(names: Iterable[str], *, tokenizer: Tokenizer, background: str) -> tuple[str, ...]:
    """Return `names` without surrounding white space, if they can form a vocabulary with `background`.

    Raises:
        VocabularyError: there is none, or one is empty, partly invisible, too long, a duplicate or the background.
            Names that are the same text to the tokenizer, such as "Dog  Barking" and "dog barking", are duplicates.
    """
    stripped = tuple(name.strip(_OUTER) for name in names)
    if not stripped:
        raise VocabularyError("a vocabulary needs at least one name; give one name per line")
    seen = {normalize_text(background): background}
    for name in stripped:
        _check_visible(name)
        key = normalize_text(name)
        if not key:
            raise VocabularyError("a name is empty; leave it out")
        if key == normalize_text(background):
            raise VocabularyError(f"{name!r} is the background, which is always in a vocabulary; leave it out")
        if key in seen:
            again = "given twice" if seen[key] == name else f"the same name as {seen[key]!r}"
            raise VocabularyError(f"{name!r} is {again}; leave one out")
        seen[key] = name
    for name, count in zip(stripped, tokenizer.count(stripped), strict=True):
        if count == 0:
            raise VocabularyError(f"the name {name!r} contains nothing that the tokenizer can read; leave it out")
        if count > tokenizer.max_tokens:
            raise VocabularyError(
                f"the name {name[:40] + '…'!r} has {count} tokens, and at most {tokenizer.max_tokens} are read; "
                "shorten it"
            )
    return stripped


def _check_visible(name: str) -> None:
    """Refuse a name with an invisible character, and name that. Raises VocabularyError."""
    for sign in name:
        if unicodedata.category(sign) in _INVISIBLE or _BLANK.match(sign):
            what = unicodedata.name(sign, "a control character")
            raise VocabularyError(
                f"the name '{shown_name(name)}' holds U+{ord(sign):04X} ({what}), which is invisible; leave it out"
            )


class _Names(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Content of `vocabulary.json`."""

    names: tuple[str, ...]
    background_texts: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Vocabulary:
    """Names in class order, the background last, with their text embeddings. Immutable."""

    names: tuple[str, ...]
    """C names, each once."""
    embeddings: TextEmbeddings
    """(C, D) float32 for each sense, unit norm, read-only."""
    background_texts: tuple[str, ...] = ()
    """K further texts of the background, which compete as one class with it (docs/method.md, Decision rules)."""
    background_embeddings: TextEmbeddings | None = None
    """(K, D) float32 for each sense, unit norm, read-only; None where there is no further text."""
    prompts: tuple[str, ...] = ()
    """Sentences with {} in the place of the name, whose embeddings are averaged; without any, names are used as they
    are."""
    version: str = field(init=False)
    """First 12 hex digits of a SHA-256 over names and embeddings, those of the background's further texts included."""

    def __post_init__(self) -> None:
        names, texts, prompts = tuple(self.names), tuple(self.background_texts), tuple(self.prompts)
        for text in (*names, *texts, *prompts):
            _check_visible(text)
        if not names or len({*names, *texts}) != len(names) + len(texts):
            raise VocabularyError("a vocabulary needs names, and each text once")
        embeddings, further = self.embeddings.checked(len(names)), self.background_embeddings
        digest = hashlib.sha256(msgspec.json.encode(names) + embeddings.raw)
        if (further is not None) != bool(texts):
            raise VocabularyError("the further texts of the background and their embeddings do not fit together")
        if further is not None:
            further = further.checked(len(texts))
            digest.update(msgspec.json.encode(texts) + further.raw)
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "embeddings", embeddings)
        object.__setattr__(self, "background_texts", texts)
        object.__setattr__(self, "background_embeddings", further)
        object.__setattr__(self, "prompts", prompts)
        object.__setattr__(self, "version", digest.hexdigest()[:12])

    def __len__(self) -> int:
        """C, including the background."""
        return len(self.names)

    @property
    def background(self) -> str:
        """The name that stands for no event."""
        return self.names[-1]

    def index(self, name: str) -> int:
        """Class index of `name`, ignoring case and white space.

        Raises:
            VocabularyError: there is no such name; the closest one is suggested.
        """
        if name in self.names:
            return self.names.index(name)
        keys = [normalize_text(known) for known in self.names]
        key = normalize_text(name)
        if key in keys:
            return keys.index(key)
        import difflib

        near = difflib.get_close_matches(key, keys, n=1)
        hint = (
            f"; did you mean {self.names[keys.index(near[0])]!r}?" if near else "; `ovavel vocab list` shows the names"
        )
        raise VocabularyError(f"{name!r} is not in the vocabulary{hint}")

    def agrees_with(self, other: Vocabulary) -> bool:
        """Whether both have the same background, and the same embeddings for the names they share."""
        if self.background != other.background or self.embeddings.sizes != other.embeddings.sizes:
            return False
        rows = {name: row for row, name in enumerate(other.names)}
        both = [(row, rows[name]) for row, name in enumerate(self.names) if name in rows]
        ours, theirs = (list(column) for column in zip(*both, strict=True))  # the background at least
        return all(np.array_equal(self.embeddings.of(s)[ours], other.embeddings.of(s)[theirs]) for s in SENSES)

    def added(self, names: Sequence[str], embeddings: TextEmbeddings) -> Vocabulary:
        """Return a vocabulary with `names` and their N `embeddings` before the background."""
        return replace(
            self,
            names=(*self.names[:-1], *names, self.background),
            embeddings=TextEmbeddings.joined([self.embeddings[:-1], embeddings, self.embeddings[-1:]]),
        )

    def background_added(self, texts: Sequence[str], embeddings: TextEmbeddings) -> Vocabulary:
        """Return a vocabulary with N further `texts` of the background and their `embeddings`."""
        there = [] if self.background_embeddings is None else [self.background_embeddings]
        return replace(
            self,
            background_texts=(*self.background_texts, *texts),
            background_embeddings=TextEmbeddings.joined([*there, embeddings]),
        )

    def removed(self, names: Sequence[str]) -> Vocabulary:
        """Return a vocabulary without `names`, some of which may be further texts of the background.

        Raises:
            VocabularyError: one of them is unknown or the background, or no name would be left.
        """
        keys = {normalize_text(name) for name in names}
        texts = [row for row, text in enumerate(self.background_texts) if normalize_text(text) not in keys]
        known = {normalize_text(text) for text in self.background_texts}
        gone = {self.index(name) for name in names if normalize_text(name) not in known}
        if len(self) - 1 in gone:
            raise VocabularyError(f"{self.background!r} is the background and cannot be removed")
        kept = [index for index in range(len(self)) if index not in gone]
        if len(kept) == 1:
            raise VocabularyError("a vocabulary needs at least one name besides the background; add another one first")
        return replace(
            self,
            names=tuple(self.names[index] for index in kept),
            embeddings=self.embeddings[kept],
            background_texts=tuple(self.background_texts[row] for row in texts),
            background_embeddings=self.background_embeddings[texts] if self.background_embeddings and texts else None,
        )

    def encode(self) -> dict[str, bytes]:
        """Return the content of its two files, by file name."""
        written = _Names(names=self.names, background_texts=self.background_texts, prompts=self.prompts)
        listing = msgspec.json.format(msgspec.json.encode(written), indent=2) + b"\n"
        further = [] if self.background_embeddings is None else [self.background_embeddings]
        return {NAMES: listing, EMBEDDINGS: TextEmbeddings.joined([self.embeddings, *further]).encode()}

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `vocabulary.json` and `vocabulary.npz` into `folder`. In a bundle, use `Bundle.save_vocabulary`."""
        for name, data in self.encode().items():
            (Path(folder) / name).write_bytes(data)

    @classmethod
    def decode(cls, names: bytes, embeddings: bytes, *, where: str) -> Vocabulary:
        """Read the content of `vocabulary.json` and `vocabulary.npz`; `where` names their folder in errors.

        Raises:
            BundleError: one of them is damaged, or they do not fit together.
        """
        try:
            read, rows = read_json(names, _Names), TextEmbeddings.decode(embeddings)
            count = len(read.names)
            return cls(
                names=read.names,
                embeddings=rows[:count],
                background_texts=read.background_texts,
                background_embeddings=rows[count:] if len(rows) > count else None,
                prompts=read.prompts,
            )
        except (ValueError, VocabularyError) as error:
            raise BundleError(
                f"the vocabulary in {where} cannot be read ({error}); export or copy the bundle again"
            ) from error
