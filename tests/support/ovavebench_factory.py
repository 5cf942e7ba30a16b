"""Writes a tiny OV-AVEBench: the published file names and formats, few classes, and clips that can be broken."""

from __future__ import annotations

import json
import shutil
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ovavel.eval.datasets.ovavebench import Clip, OVAVEBench

SEEN = ("ambulance siren", "cat purring", "race car", "singing bowl")
UNSEEN = ("church bell ringing", "dog barking")
SHARES = ((1,) * 10, (0,) * 10, (0, 0, 1, 1, 1, 0, 0, 0, 0, 0), (1, 1, 0, 0, 1, 1, 1, 0, 0, 1))
"""Labels that clips get in turn: events that are whole, absent, partial and repeated."""

DAMAGE = (
    "label missing",
    "label of wrong length",
    "no sound file",
    "sound unreadable",
    "sound truncated",
    "sound empty",
    "no frames folder",
    "wrong number of frames",
    "frame unreadable",
    "frame truncated",
)
"""What `break_clip` can do: ten kinds."""

_NOISE = np.random.default_rng(0).normal(0, 0.02, (10, 16_000))
_ANNOTATIONS = "annotations"
_LABELS = "released_ovavel_dataset_anno.json"


def make_bench(
    root: Path,
    *,
    seen: Sequence[str] = SEEN,
    unseen: Sequence[str] = UNSEEN,
    clips: int = 2,
    size: tuple[int, int] = (48, 36),
    media: bool = True,
    ratio: bool = True,
    seed: int = 0,
) -> Path:
    """Write a dataset to `root` (annotations in `root`/annotations) and return it.

    `clips` for each class and split: seen classes in train, val and test, unseen ones in val and test only. Each
    class has a colour and a tone of its own, which are there where the label is 1; elsewhere it is grey and noise.
    """
    rng = np.random.default_rng(seed)
    names = sorted([*seen, *unseen])
    rows: list[tuple[str, str, str, str]] = []
    labels: dict[str, dict[str, str]] = {}
    for split in ("train", "val", "test"):
        for name in [*seen, *(unseen if split != "train" else ())]:
            for _ in range(clips):
                video = f"{'-_'[len(rows) % 2]}{split[:2]}{len(rows):08d}"  # ids of videos may start like options
                rows.append((split, name, "close" if name in seen else "open", video))
                label = SHARES[len(rows) % len(SHARES)]
                labels[video] = {"category": name, "label": str(list(label))}
                if media:
                    _write_media(root, rows[-1], label, names.index(name), size, rng)
    folder = root / _ANNOTATIONS
    folder.mkdir(parents=True)
    _write_rows(folder / "ovave_dataset_meta.csv", rows)
    if ratio:
        kept = [row for row in rows if row[0] != "train"]
        for name in seen:
            training = [row for row in rows if row[:2] == ("train", name)]
            kept += training[: -(-len(training) // 4)]
        _write_rows(folder / "ovave_trainratio0.25_meta.csv", kept)
    (folder / _LABELS).write_text(json.dumps(labels, indent=4))
    (folder / "ovave_total_close_open_categories.csv").write_bytes("\r\n".join([*names, "other"]).encode())
    (folder / "ovave_train_close_categories.csv").write_bytes("\r\n".join([*sorted(seen), "other"]).encode())
    return root


def break_clip(root: Path, clip: Clip, kind: str) -> None:
    """Damage a clip of `root` in one of the ways of `DAMAGE`. Open the dataset again afterwards."""
    bench = OVAVEBench.open(root)
    sound, folder = bench.audio_path(clip), bench.frames_dir(clip)
    frame = sorted(folder.iterdir())[3] if folder.is_dir() else folder
    match kind:
        case "label missing":
            _edit_labels(root, lambda labels: labels.pop(clip.name))
        case "label of wrong length":
            _edit_labels(root, lambda labels: labels[clip.name].update(label="[1, 0, 1, 1, 0, 0, 0, 0, 1]"))
        case "no sound file":
            sound.unlink()
        case "sound unreadable":
            sound.write_bytes(b"<!DOCTYPE html><title>404 Not Found</title>" * 40)
        case "sound truncated":
            sound.write_bytes(sound.read_bytes()[:40_000])
        case "sound empty":
            write_wav(sound, np.zeros((1, 0), np.float32))
        case "no frames folder":
            shutil.rmtree(folder)
        case "wrong number of frames":
            frame.unlink()
        case "frame unreadable":
            frame.write_bytes(b"no picture")
        case "frame truncated":
            data = frame.read_bytes()
            frame.write_bytes(data[: len(data) * 3 // 4])
        case _:
            raise ValueError(kind)


def write_wav(path: Path, waveform: NDArray[np.float32], rate_hz: int = 16_000) -> None:
    """Write (channels, n) float32 as 16-bit PCM."""
    with wave.open(str(path), "wb") as sound:
        sound.setparams((len(waveform), 2, rate_hz, 0, "NONE", ""))
        sound.writeframes((waveform.T * 32767).round().astype("<i2").tobytes())


def _write_media(
    root: Path, row: Sequence[str], label: Sequence[int], index: int, size: tuple[int, int], rng: np.random.Generator
) -> None:
    split, name, _, video = row
    sound, folder = root / split / "audio" / name / f"{video}.wav", root / split / "video" / name / video
    sound.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True)
    tone = 0.4 * np.sin(2 * np.pi * (200 + 150 * index) * np.arange(16_000) / 16_000)
    noise = np.roll(_NOISE, int(rng.integers(16_000)), axis=1)
    write_wav(sound, (noise + np.outer(label, tone)).reshape(1, -1).astype(np.float32))
    colour = np.array([(37 * index) % 256, (91 * index + 60) % 256, (153 * index + 120) % 256])
    for second, there in enumerate(label):
        grain = rng.integers(-20, 21, (size[1], size[0], 3))
        pixels = np.clip(grain + (colour if there else 128), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{second}.jpg", quality=90)


def _write_rows(path: Path, rows: Sequence[Sequence[str]]) -> None:
    path.write_text("\n".join([",".join(row) for row in [("split", "cls_name", "cls_type", "vid_name"), *rows]]))


def _edit_labels(root: Path, edit: Any) -> None:
    path = root / _ANNOTATIONS / _LABELS
    labels = json.loads(path.read_text())
    edit(labels)
    path.write_text(json.dumps(labels, indent=4))
