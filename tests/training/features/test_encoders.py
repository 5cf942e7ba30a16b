"""Encoders of a checkpoint and of a bundle."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from support.training.caches import TINY

from ovavel.runtime.errors import InputError, UsageError
from ovavel.training.demo_world.captions import demo_tokenizer
from ovavel.training.features.encoders import bundle_encoders, checkpoint_encoders
from ovavel.training.models.tokenizer import clip_tokenizer, model_tokenizer


def test_the_vocabulary_of_a_bundle_is_ignored(tiny_bundle: Path) -> None:
    from ovavel.runtime.bundle.bundle import Bundle

    before = bundle_encoders(tiny_bundle, device="cpu", threads=1).graphs_sha256
    bundle = Bundle.open(tiny_bundle)
    bundle.save_vocabulary(bundle.vocabulary.removed(["race car"]))
    assert bundle_encoders(tiny_bundle, device="cpu", threads=1).graphs_sha256 == before


def test_a_tokenizer_must_match_the_model(tiny_weights: Path, tmp_path: Path) -> None:
    small = dataclasses.replace(TINY, vocabulary=100)
    with pytest.raises(UsageError, match="--tokenizer"):
        checkpoint_encoders(tiny_weights, small, device="cpu")
    (tmp_path / "clip.json").write_bytes(clip_tokenizer())
    with pytest.raises(UsageError, match="49408 tokens"):
        checkpoint_encoders(tiny_weights, small, device="cpu", tokenizer=tmp_path / "clip.json")
    # The control tokens of the demo world's tokenizer, 393 and 394, are not in its vocabulary.
    (tmp_path / "demo.json").write_bytes(demo_tokenizer())
    with pytest.raises(UsageError, match="395 tokens"):
        model_tokenizer(tmp_path / "demo.json", model="tiny", vocabulary=393)
    assert model_tokenizer(tmp_path / "demo.json", model="tiny", vocabulary=395) == demo_tokenizer()
    short = demo_tokenizer().replace(b"77", b"64")
    (tmp_path / "short.json").write_bytes(short)
    with pytest.raises(UsageError, match="rows of 64"):
        model_tokenizer(tmp_path / "short.json", model="tiny", vocabulary=TINY.vocabulary)
    for content in (b"{}", b"\xff"):
        (tmp_path / "broken.json").write_bytes(content)
        with pytest.raises(InputError, match="not a tokenizer"):
            model_tokenizer(tmp_path / "broken.json", model="tiny", vocabulary=TINY.vocabulary)
    with pytest.raises(InputError, match="cannot read"):
        model_tokenizer(tmp_path / "none.json", model="tiny", vocabulary=TINY.vocabulary)


def test_fp16_is_refused_on_cpus(tiny_weights: Path) -> None:
    with pytest.raises(UsageError, match="bf16"):
        checkpoint_encoders(tiny_weights, TINY, device="cpu", precision="fp16")
