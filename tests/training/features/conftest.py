"""Datasets and encoders that the tests of this folder share.

What imports PyTorch is imported where it is needed: this file is read without it too.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.made_once import made_once
from support.ovavebench_factory import DAMAGE, break_clip, make_bench

from ovavel.eval.datasets.ovavebench import OVAVEBench

if TYPE_CHECKING:
    from ovavel.training.features.encoders import Encoders


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of 4 clips for train, 6 for val and 6 for test; do not change it."""
    from support.training.caches import CLASSES

    return made_once(tmp_path_factory, "whole-features", lambda folder: make_bench(folder, **CLASSES))


@pytest.fixture(scope="session")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[tuple[str, str], str]]:
    """Return a dataset with one clip of each kind of damage, and the damaged clips; do not change it."""
    from support.training.caches import CLASSES

    def chosen(root: Path) -> dict[int, str]:
        clips = OVAVEBench.open(root).clips
        return dict(zip(random.Random(1).sample(range(len(clips)), len(DAMAGE)), DAMAGE, strict=True))

    def make(folder: Path) -> None:
        root = make_bench(folder, **CLASSES)
        clips = OVAVEBench.open(root).clips
        for index, kind in chosen(root).items():
            break_clip(root, clips[index], kind)

    root = made_once(tmp_path_factory, "broken-features", make)
    clips = OVAVEBench.open(root).clips
    return root, {(clips[index].split, clips[index].name): kind for index, kind in chosen(root).items()}


@pytest.fixture(scope="session")
def encoders(tiny_weights: Path) -> Encoders:
    from support.training.caches import TINY

    from ovavel.training.features.encoders import checkpoint_encoders

    return checkpoint_encoders(tiny_weights, TINY, device="cpu")


@pytest.fixture(scope="session")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, broken: tuple[Path, dict[tuple[str, str], str]], encoders: Encoders
) -> dict[str, bytes]:
    """Return the files of a cache of `broken` from an uninterrupted run."""
    from support.training.caches import SHARD, contents

    from ovavel.training.features.extract import extract

    def make(folder: Path) -> None:
        extract(OVAVEBench.open(broken[0]), encoders, folder, batch=2, shard_clips=SHARD)

    return contents(made_once(tmp_path_factory, "uninterrupted-features", make))
