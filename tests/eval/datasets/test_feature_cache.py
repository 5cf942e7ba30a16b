"""The reader of the feature cache, with caches written by hand."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from support.encoders import encoders

from ovavel.eval.datasets.audio_passes import AudioPasses, passes_name
from ovavel.eval.datasets.feature_cache import (
    CACHE,
    FORMAT_VERSION,
    SEGMENTS,
    TEXT,
    CacheInfo,
    ClipRecord,
    Damage,
    FeatureCache,
    ShardIndex,
    shard_names,
)
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.errors import DatasetError

D = 4
INFO = CacheInfo(
    model="imagebind_tiny",
    weights_sha256="0" * 64,
    graphs_sha256=None,
    tokenizer_sha256="1" * 64,
    backend="torch",
    device="cpu",
    precision="fp32",
    encoders=encoders(D),
    dataset_fingerprint="dataset",
    shard_clips=2,
    names=("dog", "cat", "other"),
    clips={"test": 1, "train": 3},
)
BROKEN = Damage(kind="no sound", message="train/b has no sound")


def clip(split: str, name: str) -> Any:
    return SimpleNamespace(split=split, name=name)


def embedding(split: str, name: str, sense: int) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(f"{split} {name} {sense}".encode()).digest()[:8])
    return np.random.default_rng(seed).standard_normal((SEGMENTS, D)).astype(np.float32)


def noisy(name: str, count: int) -> np.ndarray:
    """The passes of a training clip."""
    return np.stack([embedding("train", f"{name} {number}", 0) for number in range(count)])


def write_cache(out: Path, info: CacheInfo, clips: Sequence[tuple[str, str]], damaged: set[tuple[str, str]]) -> Path:
    root = out / info.fingerprint[:16]
    root.mkdir(parents=True)
    (root / TEXT).write_bytes(TextEmbeddings.shared(np.eye(len(info.names), D, dtype=np.float32)).encode())
    (root / CACHE).write_bytes(msgspec.json.encode(info))
    for split in info.clips:
        names = [name for where, name in clips if where == split]
        for number, start in enumerate(range(0, len(names), info.shard_clips)):
            ours = names[start : start + info.shard_clips]
            good = [name for name in ours if (split, name) not in damaged]
            rows = [np.concatenate([embedding(split, name, sense) for sense in range(2)], axis=1) for name in good]
            data = io.BytesIO()
            np.save(data, np.array(rows, np.float32).reshape(len(good), SEGMENTS, 2 * D))
            array, index = shard_names(split, number)
            (root / array).write_bytes(data.getvalue())
            passes_sha256 = None
            if passes := info.passes_of(split):
                found = np.array([noisy(name, passes.count) for name in good], np.float32)
                file = root / passes_name(split, number)
                np.save(file, found.reshape(len(good), passes.count, SEGMENTS, D))
                passes_sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
            records = tuple(
                ClipRecord(name=n, bytes=1, sha256="2" * 64, damage=BROKEN if (split, n) in damaged else None)
                for n in ours
            )
            sha256 = hashlib.sha256(data.getvalue()).hexdigest()
            content = ShardIndex(split=split, array_sha256=sha256, passes_sha256=passes_sha256, clips=records)
            (root / index).write_bytes(msgspec.json.encode(content))
    return root


CLIPS = (("train", "a"), ("train", "b"), ("train", "c"), ("test", "a"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_cache(tmp_path / "out", INFO, CLIPS, {("train", "b")})


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_every_clip_comes_back_whatever_the_shards_and_the_order(data: st.DataObject) -> None:
    counts = {split: data.draw(st.integers(0, 7)) for split in ("test", "train")}
    clips = [(split, f"clip {n}") for split, count in counts.items() for n in range(count)]
    damaged = data.draw(st.sets(st.sampled_from(clips)) if clips else st.just(set()))
    info = replace(INFO, clips=counts, shard_clips=data.draw(st.integers(1, 8)))
    asked = data.draw(st.lists(st.sampled_from(clips), max_size=12) if clips else st.just([]))
    with TemporaryDirectory() as folder:
        cache = FeatureCache.open(write_cache(Path(folder), info, clips, damaged))
        features = cache.load([clip(*each) for each in asked])
    present = [each for each in asked if each not in damaged]
    assert [(c.split, c.name) for c in features.clips] == present
    assert [(c.split, c.name) for c in features.damaged] == [each for each in asked if each in damaged]
    assert set(cache.damaged) == damaged
    assert features.audio.shape == features.vision.shape == (len(present), SEGMENTS, D)
    for index, each in enumerate(present):
        assert (features.audio[index] == embedding(*each, 0)).all()
        assert (features.vision[index] == embedding(*each, 1)).all()


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_every_pass_comes_back_whatever_the_shards_and_the_order(data: st.DataObject) -> None:
    names = [f"clip {number}" for number in range(data.draw(st.integers(1, 7)))]
    damaged = data.draw(st.sets(st.sampled_from(names), max_size=len(names) - 1))
    made = AudioPasses(count=data.draw(st.integers(1, 3)), drop_path=0.1)
    info = replace(INFO, clips={"test": 1, "train": len(names)}, shard_clips=data.draw(st.integers(1, 8)), passes=made)
    asked = data.draw(st.lists(st.sampled_from([name for name in names if name not in damaged]), min_size=1))
    chosen = data.draw(st.lists(st.integers(0, made.count - 1), min_size=len(asked), max_size=len(asked)))
    with TemporaryDirectory() as folder:
        clips = [("test", "a"), *(("train", name) for name in names)]
        root = write_cache(Path(folder), info, clips, {("train", name) for name in damaged})
        cache = FeatureCache.open(root)
        assert cache.info == info
        assert cache.audio_passes([clip("test", "a")]) is None
        reader = cache.audio_passes([clip("train", name) for name in asked])
        assert reader
        assert reader.count == made.count
        found = reader.take(np.array(chosen))
    assert found.dtype == np.float32
    for name, number, values in zip(asked, chosen, found, strict=True):
        assert np.array_equal(values, noisy(name, made.count)[number])


def test_the_folder_of_the_only_cache_will_do(root: Path) -> None:
    cache = FeatureCache.open(root.parent)
    assert cache.path == root
    assert cache.info == INFO
    assert cache.names == INFO.names
    assert (len(cache.text), cache.text.sizes) == (3, (D, D))
    assert cache.damaged[("train", "b")] == BROKEN


def test_the_user_chooses_between_two_caches(root: Path) -> None:
    write_cache(root.parent, replace(INFO, precision="bf16"), CLIPS, set())
    with pytest.raises(DatasetError, match=r"holds 2 feature caches.*in bf16.*dataset of 4 clips"):
        FeatureCache.open(root.parent)


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda _path: None])
def test_no_cache_at_all(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "none")
    with pytest.raises(DatasetError, match="`ovavel train features` makes one"):
        FeatureCache.open(tmp_path / "none")


def test_a_clip_that_is_not_there_yet_is_named(root: Path) -> None:
    (root / "train-00001.json").unlink()
    cache = FeatureCache.open(root)
    assert len(cache.load([clip("train", "a"), clip("train", "b")]).clips) == 1
    with pytest.raises(DatasetError, match=r"lacks 2 of 3 clips \(train/c, val/x\).*--splits train val"):
        cache.load([clip("train", "a"), clip("train", "c"), clip("val", "x")])


def test_an_altered_array_is_refused(root: Path) -> None:
    array = root / "train-00000.npy"
    data = bytearray(array.read_bytes())
    data[-1] ^= 1
    array.write_bytes(data)
    cache = FeatureCache.open(root)
    assert len(cache.load([clip("train", "c")]).clips) == 1
    with pytest.raises(DatasetError, match=r"train-00000.npy was modified"):
        cache.load([clip("train", "a")])


@pytest.mark.parametrize("content", [None, b"", b"\x93NUMPY", b"PK\x03\x04"])
@pytest.mark.parametrize("name", [CACHE, TEXT, "train-00000.json", "train-00000.npy"])
def test_a_damaged_file_is_named_with_what_to_do(root: Path, name: str, content: bytes | None) -> None:
    (root / name).unlink()
    if content is not None:
        (root / name).write_bytes(content)
    with pytest.raises(DatasetError, match=r"run `ovavel train features` again|`ovavel train features` makes one"):
        FeatureCache.open(root).load([clip("train", "a")])


def test_text_of_another_size_is_refused(root: Path) -> None:
    (root / TEXT).write_bytes(TextEmbeddings.shared(np.eye(2, D, dtype=np.float32)).encode())
    with pytest.raises(DatasetError, match="does not fit"):
        FeatureCache.open(root)


def test_another_format_is_refused(root: Path) -> None:
    (root / CACHE).write_bytes(msgspec.json.encode(replace(INFO, format_version=FORMAT_VERSION + 1)))
    with pytest.raises(DatasetError, match="format version"):
        FeatureCache.open(root)


CHANGES = {
    "format_version": FORMAT_VERSION + 1,
    "model": "imagebind_huge",
    "weights_sha256": "3" * 64,
    "graphs_sha256": "3" * 64,
    "tokenizer_sha256": "3" * 64,
    "backend": "onnxruntime",
    "device": "cuda",
    "precision": "fp16",
    "encoders": encoders(8),
    "dataset_fingerprint": "another",
    "shard_clips": 3,
    "names": ("dog", "other"),
    "clips": {"test": 1, "train": 4},
    "passes": AudioPasses(count=2, drop_path=0.1),
}


def test_the_fingerprint_covers_every_field() -> None:
    assert set(CHANGES) == set(CacheInfo.__struct_fields__)
    fingerprints = {replace(INFO, **{name: value}).fingerprint for name, value in CHANGES.items()}
    assert len(fingerprints | {INFO.fingerprint}) == len(CHANGES) + 1
