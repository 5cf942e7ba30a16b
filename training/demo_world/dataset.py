"""Writer of demo-world clips in the layout of OV-AVEBench, so that every tool for one works with the other."""

from __future__ import annotations

import csv
import io
import json
import shutil
import wave
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from numpy.random import Generator, default_rng
from PIL import Image

from ovavel.eval.demo.world.kinds import BACKGROUND, KINDS, Kind
from ovavel.eval.demo.world.scene import Scene, Script, write_script
from ovavel.eval.demo.world.sounds import RATE_HZ
from ovavel.runtime.errors import DeviceError
from ovavel.runtime.system.files import atomic_write, make_folder, output_error
from ovavel.runtime.system.parallel import Crashed, run_each
from ovavel.runtime.system.progress import Progress, no_progress

__all__ = ["Sizes", "write_dataset"]

SECONDS = 10


class Sizes(NamedTuple):
    """Clips per class in each split."""

    train: int = 36
    val: int = 6
    test: int = 18


class _Clip(NamedTuple):
    split: str
    kind: Kind
    number: int

    @property
    def name(self) -> str:
        return f"{self.split}-{self.kind.name.replace(' ', '-')}-{self.number:03}"

    def random(self, seed: int) -> Generator:
        return default_rng((seed, ("train", "val", "test").index(self.split), KINDS.index(self.kind), self.number))

    def script(self, seed: int) -> tuple[Script, Generator]:
        random = self.random(seed)
        # Unseen classes must not occur in training, not even as distractors.
        others = [kind for kind in KINDS if kind.seen] if self.split == "train" else KINDS
        return write_script(self.kind, others, random, SECONDS), random


def write_dataset(root: Path, sizes: Sizes, seed: int, *, workers: int, progress: Progress = no_progress) -> None:
    """Write annotations and media into `root`. An interrupted run resumes; the same seed gives the same files.

    Raises:
        OutputError: a file could not be written.
        DeviceError: a worker process was killed.
    """
    clips = list(_clips(sizes))
    make_folder(root)
    for leftover in root.rglob(".*.part"):  # of a process that was killed while writing
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    _write_annotations(root, clips, seed)
    missing = [clip for clip in clips if not (_frames(root, clip).is_dir() and _audio(root, clip).is_file())]
    done = len(clips) - len(missing)
    progress("writing clips", done, len(clips))
    for _, result in run_each(partial(_write_clip, root, seed), missing, workers=workers):
        if isinstance(result, Crashed):
            raise DeviceError("a process that writes clips was killed; run the command again to resume")
        done += 1
        progress("writing clips", done, len(clips))


def _clips(sizes: Sizes) -> Iterator[_Clip]:
    for split, count in sizes._asdict().items():
        for kind in KINDS:
            if kind.seen or split != "train":
                yield from (_Clip(split, kind, number) for number in range(count))


def _write_annotations(root: Path, clips: Sequence[_Clip], seed: int) -> None:
    rows = [(clip.split, clip.kind.name, "close" if clip.kind.seen else "open", clip.name) for clip in clips]
    header = ("split", "cls_name", "cls_type", "vid_name")
    few = [row for row, clip in zip(rows, clips, strict=True) if clip.split != "train" or clip.number % 4 == 0]
    labels = {
        clip.name: {"category": clip.kind.name, "label": str(list(clip.script(seed)[0].labels))} for clip in clips
    }
    every = [(kind.name,) for kind in KINDS] + [(BACKGROUND,)]
    seen = [(kind.name,) for kind in KINDS if kind.seen] + [(BACKGROUND,)]
    for name, content in (
        ("ovave_dataset_meta.csv", _csv([header, *rows])),
        ("ovave_trainratio0.25_meta.csv", _csv([header, *few])),
        ("ovave_total_close_open_categories.csv", _csv(every)),
        ("ovave_train_close_categories.csv", _csv(seen)),
        ("released_ovavel_dataset_anno.json", json.dumps(labels, indent=4)),
    ):
        atomic_write(root / name, content.encode())


def _csv(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _audio(root: Path, clip: _Clip) -> Path:
    return root / clip.split / "audio" / clip.kind.name / f"{clip.name}.wav"


def _frames(root: Path, clip: _Clip) -> Path:
    return root / clip.split / "video" / clip.kind.name / clip.name


def _write_clip(root: Path, seed: int, clip: _Clip) -> None:
    script, random = clip.script(seed)
    scene = Scene(script, random)
    frames, sound = _frames(root, clip), _audio(root, clip)
    temporary = frames.with_name(f".{clip.name}.part")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        quality = int(random.integers(60, 96))
        for second in range(SECONDS):
            Image.fromarray(scene.frame(second + 0.5)).save(temporary / f"{second:02}.jpg", quality=quality)
        sound.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(sound, _wav(scene))
        shutil.rmtree(frames, ignore_errors=True)
        temporary.rename(frames)
    except OSError as error:
        raise output_error(root, error) from error


def _wav(scene: Scene) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(RATE_HZ)
        sound.writeframes((32_767 * scene.sound()).astype("<i2").tobytes())
    return file.getvalue()
