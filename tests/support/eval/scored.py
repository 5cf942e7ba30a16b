"""A small dataset to score, and a feature cache of it."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import wave
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image

from ovavel.eval.datasets.encode import Encoded
from ovavel.eval.datasets.feature_cache import Features
from ovavel.eval.datasets.ovavebench import OVAVEBench
from ovavel.eval.datasets.splits import Split
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from support.encoders import encoders

STRANGE = "engine <b>idling [red]"
NAMES = ("dog barking", "race car", "bird chirping", STRANGE, "other")
SEEN = NAMES[:2]


def write_dataset(root: Path) -> Path:
    """Write two clips a class for the test split and one for val; of the test clips four are broken."""
    rng = np.random.default_rng(0)
    rows, labels = [], {}
    for split, each in (("train", 1), ("val", 1), ("test", 2)):
        for c, name in enumerate(NAMES[:-1]):
            for n in range(each):
                clip = f"{split}{c}{n}"
                kind = "close" if name in SEEN else "open"
                if split == "train" and kind == "open":
                    continue
                rows.append((split, name, kind, clip))
                event = [0] * 10 if n else [int(start <= t < start + 5) for start in [c] for t in range(10)]
                labels[clip] = {"category": name, "label": json.dumps(event)}
                pictures = root / split / "video" / name / clip
                pictures.mkdir(parents=True)
                for t in range(10):
                    noise = rng.integers(0, 256, (9, 12, 3), np.uint8)
                    Image.fromarray(np.kron(noise, np.ones((8, 8, 1), np.uint8))).save(pictures / f"{t:02}.jpg")
                sound = root / split / "audio" / name / f"{clip}.wav"
                sound.parent.mkdir(parents=True, exist_ok=True)
                with wave.open(str(sound), "wb") as file:
                    file.setnchannels(1)
                    file.setsampwidth(2)
                    file.setframerate(16_000)
                    file.writeframes(rng.integers(-9000, 9000, 160_000).astype("<i2").tobytes())
    with (root / "ovave_dataset_meta.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("split", "cls_name", "cls_type", "vid_name"), *rows])
    labels["test31"]["label"] = "[1, 2]"
    (root / "released_ovavel_dataset_anno.json").write_text(json.dumps(labels, indent=4))
    (root / "ovave_total_close_open_categories.csv").write_text("\n".join(NAMES))
    (root / "ovave_train_close_categories.csv").write_text("\n".join((*SEEN, NAMES[-1])))
    shutil.copy(root / "ovave_dataset_meta.csv", root / "ovave_trainratio0.25_meta.csv")
    (root / "test/video/dog barking/test01/03.jpg").unlink()
    (root / "test/audio/race car/test11.wav").write_bytes(b"no wave")
    shutil.rmtree(root / "test/video/bird chirping/test20")
    return root


BROKEN = {"test01", "test11", "test20", "test31"}


def split_of(features: Features, truth: np.ndarray) -> Split:
    return Split(
        name="test", clips=features.clips, audio=features.audio, vision=features.vision, truths=truth, damaged=()
    )


def write_cache(root: Path, dataset: OVAVEBench, bundle: Bundle, encoded: Encoded, text: TextEmbeddings) -> Path:
    """Write a cache of the test split in one shard."""
    from ovavel.eval.datasets.feature_cache import CACHE, TEXT, CacheInfo, ClipRecord, Damage, ShardIndex, shard_names

    clips = dataset.select("test")
    damage = {record.name: Damage(kind=record.kind, message=record.message) for record in encoded.damaged}
    info = CacheInfo(
        model="tiny",
        weights_sha256=bundle.manifest.model.weights_sha256,
        graphs_sha256=None,
        tokenizer_sha256="0" * 64,
        backend="onnxruntime",
        device="cpu",
        precision="fp32",
        encoders=encoders(32),
        dataset_fingerprint=dataset.fingerprint,
        shard_clips=100,
        names=dataset.names,
        clips={"test": len(clips)},
    )
    folder = root / info.fingerprint[:16]
    folder.mkdir(parents=True)
    array, index = shard_names("test", 0)
    (folder / TEXT).write_bytes(text.encode())
    np.save(folder / array, np.concatenate([encoded.features.audio, encoded.features.vision], axis=-1))
    shard = ShardIndex(
        split="test",
        array_sha256=hashlib.sha256((folder / array).read_bytes()).hexdigest(),
        clips=tuple(
            ClipRecord(name=clip.name, bytes=1, sha256="0" * 64, damage=damage.get(clip.name)) for clip in clips
        ),
    )
    (folder / index).write_bytes(msgspec.json.encode(shard))
    (folder / CACHE).write_bytes(msgspec.json.encode(info))
    return folder
