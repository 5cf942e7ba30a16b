"""How fast an archive is searched: cameras and days of made-up vectors, `python -m ovavel.eval.archive.speed FOLDER`.

The vectors are random, with similarities as a full-size model may have them: a phrase fits a few hundred seconds of
a day well, and many a little. Every day holds the same ordinary seconds in another order. They are written into FOLDER,
measured, and deleted.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.archive.layout import (
    CONTEXT,
    DAY_S,
    FLAGS,
    HEADER,
    VERSION,
    WRITTEN,
    ContextSecond,
    Header,
    Model,
    pack_bits,
    quantized,
)
from ovavel.runtime.archive.reader import Archive, Day
from ovavel.runtime.archive.search.ranking import Ranking
from ovavel.runtime.archive.search.scan import Scanned, exhaustive, scan
from ovavel.runtime.archive.writer import ArchiveWriter
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.system.interrupt import terminated_as_interrupted

__all__ = ["main", "make_archive", "made_up_texts"]

_FIRST = date(2026, 1, 1)
_CHUNK = 8192
_FITTING = 400
"""Seconds of a day that a phrase fits."""
_USUAL = {"vision": (0.12, 0.15, 0.04), "audio": (0.03, 0.05, 0.04)}
"""Mean similarity with the phrase and with the background, and the deviation of both."""
_FITS = {"vision": (0.28, 0.05), "audio": (0.22, 0.07)}
"""Mean and deviation of the similarity with the phrase where it fits."""


def made_up_texts(size: int) -> TextEmbeddings:
    """Two texts at right angles: a phrase, and the background."""
    random = np.random.default_rng(1)
    rows, _ = np.linalg.qr(random.normal(size=(size, 2)))
    return TextEmbeddings.shared(np.ascontiguousarray(rows.T).astype(np.float32))


def make_archive(root: Path, *, cameras: int, days: int, size: int, seconds: int = DAY_S) -> Model:
    """Write days of `seconds` each, newest last, in the archive's format."""
    model = Model(id="0" * 16, name="made-up", head="temporal", audio_size=size, vision_size=size)
    random, texts = np.random.default_rng(0), made_up_texts(size)
    usual = _columns(*(_vectors(random, texts.audio, sense, seconds, fits=False) for sense in ("vision", "audio")))
    for camera in range(cameras):
        for number in range(days):
            day = (_FIRST + timedelta(days=number)).isoformat()
            folder = root / CONTEXT / f"camera-{camera}" / day
            folder.mkdir(parents=True)
            fits = _columns(
                *(_vectors(random, texts.audio, sense, _FITTING, fits=True) for sense in ("vision", "audio"))
            )
            shift = int(random.integers(seconds))
            places = random.choice(seconds, _FITTING, replace=False)
            for name, column in usual.items():
                rows = np.roll(column, shift, axis=0)
                rows[places] = fits[name]
                with (folder / name).open("wb") as file:
                    file.write(rows.tobytes())
                    file.truncate(DAY_S * column[0].nbytes)
            flags = np.zeros(DAY_S, np.uint8)
            flags[:seconds] = WRITTEN
            (folder / FLAGS).write_bytes(flags.tobytes())
            header = Header(version=VERSION, camera=f"camera-{camera}", day=day, model=model)
            (folder / HEADER).write_bytes(header.encode())
    return model


def _vectors(
    random: np.random.Generator, texts: NDArray[np.float32], sense: str, count: int, *, fits: bool
) -> NDArray[np.float32]:
    """(count, D) unit vectors with the similarities of `sense`."""
    phrase, background, deviation = _USUAL[sense]
    mean, spread = _FITS[sense] if fits else (phrase, deviation)
    with_phrase = random.normal(mean, spread, count)
    with_background = random.normal(background, deviation, count)
    size = texts.shape[1]
    cone = np.random.default_rng(2 if sense == "audio" else 3).standard_normal(
        size, np.float32
    )  # all vectors lean one way
    found = np.empty((count, size), np.float32)
    for start in range(0, count, _CHUNK):
        part = slice(start, min(start + _CHUNK, count))
        rest = random.standard_normal((part.stop - part.start, size), np.float32) + 0.5 * cone
        rest -= (rest @ texts.T) @ texts
        rest /= np.linalg.norm(rest, axis=1, keepdims=True)
        along = np.stack([with_phrase[part], with_background[part]], axis=1)
        rest *= np.sqrt(1 - (along**2).sum(axis=1, keepdims=True))
        found[part] = rest + along @ texts
    return found


def _columns(vision: NDArray[np.float32], audio: NDArray[np.float32]) -> dict[str, NDArray[np.generic]]:
    values = {"vision": quantized(vision), "audio": quantized(audio)}
    bits = [
        np.concatenate([pack_bits(rows[start : start + _CHUNK]) for start in range(0, len(rows), _CHUNK)])
        for rows, _ in values.values()
    ]
    return {
        **{f"{sense}.i8": rows for sense, (rows, _) in values.items()},
        "scale.f32": np.stack([scale for _, scale in values.values()], axis=1).astype("<f4"),
        "bits.u64": np.concatenate(bits, axis=1),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Make an archive, measure, print, delete it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cameras", type=int, default=8)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--size", type=int, default=1024, help="D of both senses")
    parser.add_argument("--seconds", type=int, default=DAY_S, help="of each day")
    options = parser.parse_args(arguments)
    root: Path = options.folder / "ovavel-archive-bench"
    try:
        with terminated_as_interrupted():
            _run(root, options)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return 0


def _run(root: Path, options: argparse.Namespace) -> None:
    began_s = time.perf_counter()
    model = make_archive(root, cameras=options.cameras, days=options.days, size=options.size, seconds=options.seconds)
    archive = Archive(root)
    print(f"made {len(archive.days())} days of cameras in {time.perf_counter() - began_s:.0f} s")
    _measure(archive, model)
    _measure_writing(root, model)


def _measure(archive: Archive, model: Model) -> None:
    texts = made_up_texts(model.vision_size)
    ranking, days = Ranking(phrases=texts[:1], against=texts[1:]), archive.days()
    used = sum(file.stat().st_blocks * 512 for day in days for file in day.folder.iterdir())
    print(f"{used / 1e9:.1f} GB, {used / len(days) / DAY_S:.0f} bytes a second")
    found: dict[str, Scanned] = {}
    _forget_peak()
    for how in ("cold", "warm", "warm again"):
        if how == "cold":
            _forget(days)
        cpu_s = time.process_time()
        first_s, total_s, last = _timed(scan(days, ranking))
        cpu_s = time.process_time() - cpu_s
        found[how] = last
        print(
            f"{how}: {total_s:.2f} s ({cpu_s:.2f} s of one core), first answer after {first_s:.3f} s; vectors of "
            f"{last.compared / last.seconds:.1%} compared"
        )
    for count in sorted({max(1, len(days) * part // 4) for part in (1, 2, 3, 4)}):
        print(f"{count} days: {_timed(scan(days[:count], ranking))[1]:.2f} s")
    print(f"peak memory of searching: {_peak_mib():.0f} MiB")
    began_s = time.perf_counter()
    (oracle,) = exhaustive(days, ranking)
    print(f"exhaustive float32: {time.perf_counter() - began_s:.1f} s")
    best = found["warm"].best[0]
    for count in (10, 100, 1000, len(oracle.score)):
        ours, theirs = (
            {*zip(each.day[:count].tolist(), each.row[:count].tolist(), strict=True)} for each in (best, oracle)
        )
        print(f"recall@{count}: {len(ours & theirs) / len(theirs):.4f}")


def _forget_peak() -> None:
    """Measure the peak of this process's memory from now on."""
    Path("/proc/self/clear_refs").write_text("5", "ascii")


def _peak_mib() -> float:
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def _timed(scanning: Iterator[Scanned]) -> tuple[float, float, Scanned]:
    """Seconds to the first answer and to the last one, and that."""
    began_s = time.perf_counter()
    last = next(scanning)
    first_s = time.perf_counter() - began_s
    for each in scanning:
        last = each
    return first_s, time.perf_counter() - began_s, last


def _forget(days: Sequence[Day]) -> None:
    """Drop the files from the page cache."""
    for day in days:
        for path in day.folder.iterdir():
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def _measure_writing(root: Path, model: Model) -> None:
    random, texts, count = np.random.default_rng(5), made_up_texts(model.vision_size).audio, 600
    vision, audio = (_vectors(random, texts, sense, count, fits=False) for sense in ("vision", "audio"))
    for every in (10, 600):
        began_s = time.perf_counter()
        with ArchiveWriter(root, f"written-{every}", model, every=every) as writer:
            for row in range(count):
                writer.write(ContextSecond(utc_s=row, vision=vision[row], audio=audio[row]))
        print(f"writing, {every} seconds a commit: {(time.perf_counter() - began_s) / count * 1e3:.3f} ms a second")


if __name__ == "__main__":
    sys.exit(main())
