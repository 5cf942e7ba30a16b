"""Writes a small cache of made-up embeddings, as `ovavel train features` writes one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np

from ovavel.eval.datasets.audio_passes import AudioPasses, passes_name
from ovavel.eval.datasets.feature_cache import CACHE, TEXT, CacheInfo, ClipRecord, Damage, ShardIndex, shard_names
from ovavel.eval.datasets.ovavebench import OVAVEBench
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from support.encoders import encoders
from support.synthetic import unit

DIM = 24


def write_cache(folder: Path, bench: OVAVEBench, damaged: Mapping[str, int], passes: AudioPasses | None = None) -> None:
    """Embeddings near the texts where there is an event, and noise elsewhere; the first clips of a split damaged."""
    g = np.random.default_rng(0)
    text = unit(g.standard_normal((len(bench.names), DIM)))
    splits = {split: bench.select(split) for split in ("train", "val", "test")}
    info = CacheInfo(
        model="made up",
        weights_sha256="0" * 64,
        graphs_sha256=None,
        tokenizer_sha256="0" * 64,
        backend="none",
        device="cpu",
        precision="fp32",
        encoders=encoders(DIM),
        dataset_fingerprint=bench.fingerprint,
        shard_clips=1000,
        names=bench.names,
        clips={split: len(clips) for split, clips in splits.items()},
        passes=passes or msgspec.UNSET,
    )
    folder.mkdir(parents=True)
    (folder / TEXT).write_bytes(TextEmbeddings.shared(text).encode())
    for split, clips in splits.items():
        gone = damaged.get(split, 0)
        mean = text[bench.truth(clips[gone:])]
        values = np.concatenate([unit(mean + 0.25 * g.standard_normal(mean.shape)) for _ in range(2)], axis=-1)
        array, index = shard_names(split, 0)
        np.save(folder / array, values)
        records = [
            ClipRecord(
                name=clip.name,
                bytes=1,
                sha256="0" * 64,
                damage=Damage(kind="gone", message="it is gone") if number < gone else None,
            )
            for number, clip in enumerate(clips)
        ]
        digest = hashlib.sha256((folder / array).read_bytes()).hexdigest()
        noisy = None
        if made := info.passes_of(split):
            audio = np.repeat(values[:, np.newaxis, :, :DIM], made.count, axis=1)
            np.save(folder / passes_name(split, 0), unit(audio + 0.1 * g.standard_normal(audio.shape)))
            noisy = hashlib.sha256((folder / passes_name(split, 0)).read_bytes()).hexdigest()
        shard = ShardIndex(split=split, array_sha256=digest, passes_sha256=noisy, clips=tuple(records))
        (folder / index).write_bytes(msgspec.json.encode(shard))
    (folder / CACHE).write_bytes(msgspec.json.encode(info))
