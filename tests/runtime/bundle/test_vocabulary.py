"""Names and tokens against the original implementation, and every name that must be refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.golden_weights import GOLDEN
from support.vocabularies import read_vocabulary

from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import EMBEDDINGS, NAMES, Tokenizer, Vocabulary, check_names, normalize_text
from ovavel.runtime.errors import BundleError, VocabularyError
from ovavel.training.models.tokenizer import clip_tokenizer

START, END = 49_406, 49_407


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_bytes(clip_tokenizer())
    return Tokenizer.open(path)


def unit(rows: int, size: int = 8, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((rows, size)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def vocabulary(*names: str) -> Vocabulary:
    return Vocabulary(names=names, embeddings=TextEmbeddings.shared(unit(len(names))))


def test_tokens_are_those_of_the_original(tokenizer: Tokenizer) -> None:
    texts = json.loads((GOLDEN / "dev_tokens.json").read_text(encoding="utf-8"))["texts"]
    with np.load(GOLDEN / "dev_tokens.npz") as file:
        expected = file["tokens"]
    tokens = tokenizer.encode(texts)
    assert tokens.dtype == np.int64
    np.testing.assert_array_equal(tokens, expected)


def test_control_tokens_in_a_text_are_plain_text(tokenizer: Tokenizer) -> None:
    (row,) = tokenizer.encode(["<|endoftext|>a dog<|startoftext|>"])
    assert np.count_nonzero(row == START) == 1
    assert np.count_nonzero(row == END) == 1
    assert row[np.flatnonzero(row)[-1]] == END


def test_no_texts_give_no_rows(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode([]).shape == (0, 77)


@given(texts=st.lists(st.text(max_size=200), min_size=1, max_size=5))
def test_any_text_gives_a_whole_row(tokenizer: Tokenizer, texts: list[str]) -> None:
    rows = tokenizer.encode(texts)
    for row, count in zip(rows, tokenizer.count(texts), strict=True):
        kept = min(count, 75)
        assert row[0] == START
        assert row[1 + kept] == END
        assert not row[2 + kept :].any()
        assert (row[1 : 1 + kept] < START).all()


@given(text=st.text(max_size=60))
def test_normal_text_has_single_spaces_inside_only(text: str) -> None:
    normal = normalize_text(text)
    assert normal == " ".join(normal.split())


def test_a_tokenizer_of_another_length_and_vocabulary(tmp_path: Path) -> None:
    content = json.loads(clip_tokenizer())
    content["padding"]["strategy"]["Fixed"] = content["truncation"]["max_length"] = 5
    content["model"] = {**content["model"], "vocab": {"a": 0, "b</w>": 1, "ab</w>": 2, "<s>": 3, "</s>": 4, "b": 5}}
    content["model"]["merges"] = [["a", "b</w>"]]
    for template in ("single", "pair"):
        content["post_processor"][template][0]["SpecialToken"]["id"] = "<s>"
        content["post_processor"][template][2]["SpecialToken"]["id"] = "</s>"
    content["post_processor"]["special_tokens"] = {
        name: {"id": name, "ids": [index], "tokens": [name]} for name, index in (("<s>", 3), ("</s>", 4))
    }
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    tokenizer = Tokenizer.open(path)
    assert tokenizer.max_tokens == 3
    assert tokenizer.encode(["ab", "ab ab ab ab"]).tolist() == [[3, 2, 4, 0, 0], [3, 2, 2, 2, 4]]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{}", b'{"version": "1.0"}'])
def test_a_damaged_tokenizer_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=re.escape(str(path))):
        Tokenizer.open(path)


@pytest.mark.parametrize("part", ["padding", "truncation"])
def test_a_tokenizer_without_a_length_is_refused(tmp_path: Path, part: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(clip_tokenizer()), part: None}))
    with pytest.raises(BundleError, match="one length"):
        Tokenizer.open(path)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "at least one name"),
        (["dog", ""], "a name is empty"),
        (["dog", " \t "], "a name is empty"),
        (["dog", "\u200b\x07"], r"the name '\u200b\x07' holds U+200B (ZERO WIDTH SPACE), which is invisible"),
        (["a\nb"], r"the name 'a\nb' holds U+000A (a control character)"),
        (["dog\n"], "holds U+000A"),
        (["\ud800"], "holds U+D800"),
        (["\ufeffdog"], "holds U+FEFF (ZERO WIDTH NO-BREAK SPACE)"),
        (["dog\u202egnikrab"], "holds U+202E (RIGHT-TO-LEFT OVERRIDE)"),
        (["do\u200dg"], "holds U+200D (ZERO WIDTH JOINER)"),
        (["\u3164"], "holds U+3164 (HANGUL FILLER)"),
        (["dog\x1b[31m"], "holds U+001B"),
        (["do\xadg"], "holds U+00AD (SOFT HYPHEN)"),
        (["dog", "dog"], "'dog' is given twice"),
        (["Dog  Barking", "dog barking"], "the same name as 'Dog  Barking'"),
        (["caf\u00e9", "cafe\u0301"], "the same name"),
        (["dog", "other"], "is the background"),
        (["OTHER "], "is the background"),
        (["word " * 76], "has 76 tokens, and at most 75 are read"),
    ],
)
def test_names_that_cannot_be_used(tokenizer: Tokenizer, names: list[str], words: str) -> None:
    with pytest.raises(VocabularyError, match=re.escape(words)):
        check_names(names, tokenizer=tokenizer, background="other")


def test_names_that_can_be_used(tokenizer: Tokenizer) -> None:
    names = (" dog barking ", "Vogelgezwitscher", "犬の鳴き声", "🎻 playing violin", "word " * 75)
    assert check_names(names, tokenizer=tokenizer, background="other") == tuple(name.strip() for name in names)


def test_ten_thousand_names(tokenizer: Tokenizer, tmp_path: Path) -> None:
    names = check_names([f"event number {n}" for n in range(10_000)], tokenizer=tokenizer, background="other")
    vocabulary = Vocabulary(names=(*names, "other"), embeddings=TextEmbeddings.shared(unit(10_001, 64)))
    vocabulary.save(tmp_path)
    again = read_vocabulary(tmp_path)
    assert again.names == vocabulary.names
    assert again.version == vocabulary.version
    assert again.index("Event Number 9999") == 9999


def test_version_follows_names_and_embeddings() -> None:
    first = vocabulary("dog", "car", "other")
    assert re.fullmatch("[0-9a-f]{12}", first.version)
    assert vocabulary("dog", "car", "other").version == first.version
    assert vocabulary("car", "dog", "other").version != first.version
    assert Vocabulary(names=first.names, embeddings=TextEmbeddings.shared(unit(3, seed=1))).version != first.version


def test_a_vocabulary_never_changes() -> None:
    rows = unit(2)
    made = Vocabulary(names=("dog", "other"), embeddings=TextEmbeddings.shared(rows))
    rows[0] = 0
    assert made.embeddings.vision[0].any()
    with pytest.raises(ValueError, match="read-only"):
        made.embeddings.vision[0] = 0


@pytest.mark.parametrize(
    ("names", "embeddings"),
    [
        ((), unit(0)),
        (("dog", "dog"), unit(2)),
        (("dog\u200b", "other"), unit(2)),
        (("dog", "other"), unit(3)),
        (("dog", "other"), 2 * unit(2)),
        (("dog", "other"), np.full((2, 8), np.nan, np.float32)),
    ],
)
def test_what_does_not_fit_together_is_no_vocabulary(names: tuple[str, ...], embeddings: np.ndarray) -> None:
    with pytest.raises(VocabularyError):
        Vocabulary(names=names, embeddings=TextEmbeddings.shared(embeddings))


def test_adding_and_removing_keep_the_background_last() -> None:
    first = vocabulary("dog", "car", "other")
    more = first.added(["bird"], TextEmbeddings.shared(unit(1, seed=2)))
    assert more.names == ("dog", "car", "bird", "other")
    np.testing.assert_array_equal(more.embeddings.vision[-1], first.embeddings.vision[-1])
    fewer = more.removed(["Car", "bird"])
    assert fewer.names == ("dog", "other")
    np.testing.assert_array_equal(fewer.embeddings.vision, first.embeddings.vision[[0, 2]])


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["other"], "cannot be removed"),
        (["dgo"], "did you mean 'dog'?"),
        (["zebra"], "ovavel vocab list"),
        (["dog", "car"], "needs at least one name"),
    ],
)
def test_what_cannot_be_removed(names: list[str], words: str) -> None:
    with pytest.raises(VocabularyError, match=re.escape(words)):
        vocabulary("dog", "car", "other").removed(names)


def test_pickled_embeddings_are_not_read(tmp_path: Path) -> None:
    vocabulary("dog", "other").save(tmp_path)
    np.savez(tmp_path / "vocabulary.npz", both=np.array([{"a": 1}, 2], dtype=object), allow_pickle=True)
    with pytest.raises(BundleError, match="vocabulary"):
        read_vocabulary(tmp_path)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("vocabulary.json", b'{"names": ["dog", "other"], "more": 1}'),
        ("vocabulary.json", b'["dog", "other"]'),
        ("vocabulary.json", b"\xff"),
        ("vocabulary.npz", b""),
        ("vocabulary.npz", b"\x93NUMPY\x01\x00"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, file: str, content: bytes) -> None:
    vocabulary("dog", "other").save(tmp_path)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(BundleError, match=re.escape(str(tmp_path))):
        read_vocabulary(tmp_path)


def sums(count: int, size: int) -> st.SearchStrategy[np.ndarray]:
    """Unit rows, now and then the same ones again."""
    return st.integers(0, 3).map(lambda seed: unit(count, size, seed=seed))


@st.composite
def vocabularies(draw: st.DrawFn, shared: bool) -> Vocabulary:
    count = draw(st.integers(2, 6))
    audio = draw(sums(count, 5))
    embeddings = TextEmbeddings.shared(audio) if shared else TextEmbeddings(audio, draw(sums(count, 3)))
    return Vocabulary(names=(*(f"name {i}" for i in range(count - 1)), "other"), embeddings=embeddings)


def same(a: Vocabulary, b: Vocabulary) -> bool:
    arrays = (np.array_equal(a.embeddings.of(s), b.embeddings.of(s)) for s in ("audio", "vision"))
    return a.names == b.names and all(arrays) and a.version == b.version


@pytest.mark.parametrize("shared", [True, False])
@given(data=st.data())
def test_a_vocabulary_is_added_to_removed_from_and_comes_back(shared: bool, data: st.DataObject) -> None:
    first = data.draw(vocabularies(shared))
    files = first.encode()
    again = Vocabulary.decode(files[NAMES], files[EMBEDDINGS], where="here")
    assert same(again, first)
    assert again.embeddings.is_shared == shared
    assert Vocabulary.decode(*again.encode().values(), where="here").encode() == files
    count = data.draw(st.integers(1, 3))
    sizes = first.embeddings.sizes
    arrays = [unit(count, size, seed=9) for size in sizes]
    new = [f"new {i}" for i in range(count)]
    more = first.added(new, TextEmbeddings.shared(arrays[0]) if shared else TextEmbeddings(*arrays))
    assert (more.names[-1], len(more), more.embeddings.sizes) == ("other", len(first) + count, sizes)
    for sense in ("audio", "vision"):
        np.testing.assert_array_equal(more.embeddings.of(sense)[-1], first.embeddings.of(sense)[-1])
        np.testing.assert_array_equal(
            more.embeddings.of(sense)[more.index("new 0")], (arrays[0] if shared or sense == "audio" else arrays[1])[0]
        )
    assert more.agrees_with(first)
    assert first.agrees_with(more)
    assert same(more.removed(new), first)


def test_two_arrays_that_are_equal_are_stored_once() -> None:
    rows = unit(3)
    two = Vocabulary(names=("dog", "car", "other"), embeddings=TextEmbeddings(rows, rows.copy()))
    one = Vocabulary(names=two.names, embeddings=TextEmbeddings.shared(rows))
    assert two.embeddings.is_shared
    assert two.version == one.version
    assert two.encode() == one.encode()


def test_either_sense_may_disagree() -> None:
    audio, vision = unit(3, 5), unit(3, 3)
    first = Vocabulary(names=("dog", "car", "other"), embeddings=TextEmbeddings(audio, vision))
    for sense, other in enumerate((unit(3, 5, seed=1), unit(3, 3, seed=1))):
        arrays = [other if i == sense else each for i, each in enumerate((audio, vision))]
        changed = Vocabulary(names=first.names, embeddings=TextEmbeddings(*arrays))
        assert not changed.agrees_with(first)
        assert changed.version != first.version
    with pytest.raises(VocabularyError, match="do not fit together"):
        Vocabulary(names=first.names, embeddings=TextEmbeddings(audio, vision[:2]))
    with pytest.raises(VocabularyError, match="norm 1"):
        Vocabulary(names=first.names, embeddings=TextEmbeddings(audio, 2 * vision))
