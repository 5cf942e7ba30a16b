"""The exported tokenizer against a plain implementation of byte-pair encoding."""

from __future__ import annotations

import gzip
import itertools
import json
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovavel.runtime.bundle.vocabulary import Tokenizer
from ovavel.runtime.errors import ExportError
from ovavel.training.models import tokenizer as tokenizer_module
from ovavel.training.models.tokenizer import clip_tokenizer


@pytest.fixture(scope="module")
def content() -> dict:
    return json.loads(clip_tokenizer())


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_bytes(clip_tokenizer())
    return Tokenizer.open(path)


@pytest.fixture(scope="module")
def ranks() -> dict[tuple[str, ...], int]:
    packed = (resources.files("ovavel.training.models") / "bpe_simple_vocab_16e6.txt.gz").read_bytes()
    return {
        tuple(line.split()): rank for rank, line in enumerate(gzip.decompress(packed).decode().split("\n")[1:48895])
    }


def test_the_vocabulary_has_49408_tokens(content: dict) -> None:
    ids = content["model"]["vocab"]
    assert sorted(ids.values()) == list(range(49_408))
    assert (ids["!"], ids["!</w>"], ids["<|startoftext|>"], ids["<|endoftext|>"]) == (0, 256, 49_406, 49_407)


def test_special_tokens_inside_a_text_are_ordinary_text(content: dict) -> None:
    assert content["added_tokens"] == []


@settings(deadline=None)
@given(word=st.text(alphabet="abcdefghijklmnopqrstuvwxyzäöüßñ犬", min_size=1, max_size=24))
def test_words_are_merged_in_the_order_of_the_merges(
    tokenizer: Tokenizer, content: dict, ranks: dict[tuple[str, ...], int], word: str
) -> None:
    signs = dict(zip(_bytes(), list(content["model"]["vocab"])[:256], strict=True))
    parts = [signs[byte] for byte in word.encode()]
    parts[-1] += "</w>"
    while pairs := [pair for pair in itertools.pairwise(parts) if pair in ranks]:
        best = min(pairs, key=ranks.__getitem__)
        index = 0
        while index < len(parts) - 1:
            if (parts[index], parts[index + 1]) == best:
                parts[index : index + 2] = ["".join(best)]
            index += 1
    expected = [content["model"]["vocab"][part] for part in parts]
    assert tokenizer.encode([word])[0, 1 : 1 + len(expected)].tolist() == expected
    assert tokenizer.count([word]) == [len(expected)]


def _bytes() -> list[int]:
    """Return the bytes in the order of their tokens: those printable in Latin-1 first."""
    printable = [code for code in range(256) if 33 <= code <= 126 or (161 <= code <= 255 and code != 173)]
    return printable + [code for code in range(256) if code not in printable]


@pytest.mark.parametrize(
    ("text", "count"), [("don't", 2), ("2024", 4), ("a-b", 3), ("it's we'll", 4), ("!!!", 1), ("3.5", 3)]
)
def test_words_are_split_as_in_the_original(tokenizer: Tokenizer, text: str, count: int) -> None:
    assert tokenizer.count([text]) == [count]


def test_a_damaged_merges_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bpe_simple_vocab_16e6.txt.gz").write_bytes(b"something else")
    monkeypatch.setattr(tokenizer_module.resources, "files", lambda _package: tmp_path)
    with pytest.raises(ExportError, match="reinstall ovavel"):
        clip_tokenizer.__wrapped__()  # an earlier test has read the file
