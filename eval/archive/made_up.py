"""Archives of made-up vectors, to measure how fast they are searched.

The vectors are random, with similarities as a full-size model may have them: a phrase fits a few hundred seconds of
a day well, and many a little. Every day holds the same ordinary seconds in another order.
"""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from ovavel.runtime.archive.layout import (
    CONTEXT,
    DAY_S,
    FLAGS,
    HEADER,
    VERSION,
    WRITTEN,
    Header,
    Model,
    pack_bits,
    quantized,
    row_bytes,
)
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings

__all__ = ["made_up_texts", "made_up_vectors", "make_archive"]

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
    random = default_rng(1)
    rows, _ = np.linalg.qr(random.normal(size=(size, 2)))
    return TextEmbeddings.shared(np.ascontiguousarray(rows.T).astype(np.float32))


def make_archive(root: Path, *, cameras: int, days: int, size: int, seconds: int = DAY_S, distinct: int = 0) -> Model:
    """Write days of `seconds` each, newest last, in the archive's format.

    With `distinct`, only so many of the days have vectors of their own: the large files of the others are hard links to
    theirs, so that an archive of any length takes little disk.
    """
    model = Model(id="0" * 16, name="made-up", head="temporal", audio_size=size, vision_size=size)
    random, texts = default_rng(0), made_up_texts(size)
    usual = _columns(
        *(made_up_vectors(random, texts.audio, sense, seconds, fits=False) for sense in ("vision", "audio"))
    )
    folders: list[Path] = []
    for camera in range(cameras):
        for number in range(days):
            day = (_FIRST + timedelta(days=number)).isoformat()
            folder = root / CONTEXT / f"camera-{camera}" / day
            folder.mkdir(parents=True)
            if distinct and len(folders) >= distinct:
                for name in row_bytes(model):
                    (folder / name).hardlink_to(folders[len(folders) % distinct] / name)
            else:
                _write_day(folder, usual, random, texts)
            header = Header(version=VERSION, camera=f"camera-{camera}", day=day, model=model)
            (folder / HEADER).write_bytes(header.encode())
            folders.append(folder)
    return model


def _write_day(folder: Path, usual: dict[str, NDArray[np.generic]], random: Generator, texts: TextEmbeddings) -> None:
    fits = _columns(
        *(made_up_vectors(random, texts.audio, sense, _FITTING, fits=True) for sense in ("vision", "audio"))
    )
    seconds = len(usual["scale.f32"])
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


def made_up_vectors(
    random: Generator, texts: NDArray[np.float32], sense: str, count: int, *, fits: bool
) -> NDArray[np.float32]:
    """(count, D) unit vectors with the similarities of `sense`."""
    phrase, background, deviation = _USUAL[sense]
    mean, spread = _FITS[sense] if fits else (phrase, deviation)
    with_phrase = random.normal(mean, spread, count)
    with_background = random.normal(background, deviation, count)
    size = texts.shape[1]
    cone = default_rng(2 if sense == "audio" else 3).standard_normal(size, np.float32)  # all vectors lean one way
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
