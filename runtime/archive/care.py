"""Examines the days of an archive, repairs them, and removes them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.archive.folders import DayGoneError, folders_in, read_header
from ovavel.runtime.archive.layout import (
    CONTEXT,
    DAY_S,
    FLAGS,
    GENERATION,
    NO_AUDIO,
    NO_VISION,
    Header,
    camera_name,
    day_folders,
    day_of_folder,
    is_camera_folder,
    pack_bits,
    row_bytes,
)
from ovavel.runtime.archive.reader import Archive, Day, Vectors
from ovavel.runtime.archive.writer import locked_day
from ovavel.runtime.errors import InputError, OutputError

__all__ = ["Finding", "examine", "remove_day"]

_CHUNK = 4096
_NORM = 0.02
"""How far the norm of a vector may be from 1; rounding moves it by a thousandth."""
_REMOVED = ".removed."
_NO_NAME_OF_A_DAY = "is not searched, as this is no name of its day: was it copied? Remove it or move it out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is wrong with a day."""

    folder: Path
    what: str
    repaired: bool


def examine(root: Path, *, repair: bool = False) -> Iterator[Finding | Day]:
    """Examine every day below `root`: yield what is wrong with it, then, if it can be read, the day.

    What `repair` does: seconds whose vectors cannot be right are taken out, bits that do not fit their vectors are made
    again, files that are too short get their full size, and what was left of a day that was being removed goes.
    Writing may continue meanwhile, except to a day that is being repaired; one that is being written is not repaired.

    Raises:
        InputError: there is no archive.
    """
    base = Archive(root).root / CONTEXT
    for camera in folders_in(base):
        of_camera = base / camera
        if not is_camera_folder(camera):
            if not camera.startswith("."):  # else of a file system or a program that copies
                yield Finding(folder=of_camera, what="is not searched, as no camera has such a folder", repaired=False)
            continue
        try:
            folders = [of_camera / name for name in folders_in(of_camera)]
        except InputError as error:
            yield Finding(folder=of_camera, what=str(error), repaired=False)
            continue
        for folder in folders:
            if folder.name.startswith(_REMOVED):
                if repair:
                    shutil.rmtree(folder, ignore_errors=True)
                yield Finding(folder=folder, what="is left of a day that was removed", repaired=repair)
            elif day_of_folder(folder.name) is not None:
                yield from _examine_day(folder, repair=repair)
            else:
                with suppress(InputError):  # it is none of ours
                    read_header(folder)
                    yield Finding(folder=folder, what=_NO_NAME_OF_A_DAY, repaired=False)


def _examine_day(folder: Path, *, repair: bool) -> Iterator[Finding | Day]:
    try:
        header = read_header(folder)
    except InputError as error:
        if isinstance(error, DayGoneError) and not folder.exists():
            return  # it was removed meanwhile
        yield Finding(
            folder=folder, what=f"has no header that can be read, so nothing of it can ({error})", repaired=False
        )
        return
    with ExitStack() as held:
        busy = ""
        try:
            if repair:
                held.enter_context(locked_day(folder))
        except OutputError:
            busy = " (not while another process writes to it)"
        try:
            for found in _examine_files(folder, header, repair=repair and not busy):
                yield replace(found, what=found.what + busy) if isinstance(found, Finding) else found
        except DayGoneError:
            return
        except (InputError, OSError) as error:
            yield Finding(folder=folder, what=f"cannot be examined ({error})", repaired=False)


def _examine_files(folder: Path, header: Header, *, repair: bool) -> Iterator[Finding | Day]:
    day = day_of_folder(folder.name)
    assert day is not None
    if header.camera != camera_name(folder.parent.name) or header.day != day.isoformat():
        what = f"has the header of {header.camera!r} on {header.day}: was it copied?"
        yield Finding(folder=folder, what=what, repaired=False)
    if folder.name not in day_folders(day.isoformat(), header.model):
        yield Finding(folder=folder, what=_NO_NAME_OF_A_DAY, repaired=False)
        return
    whole = True
    for name, size in row_bytes(header.model).items():
        path, wanted = folder / name, DAY_S * size
        there = path.stat().st_size if path.is_file() else 0
        if there == wanted:
            continue
        mends = repair and there < wanted  # a longer one may be mapped by a reader, and its end says nothing
        if mends:
            path.touch()
            os.truncate(path, wanted)
        whole = whole and mends
        yield Finding(folder=folder, what=f"{name} has {there} bytes, not {wanted}", repaired=mends)
    if not whole:
        return
    found = Day(camera=camera_name(folder.parent.name), day=day, folder=folder, model=header.model)
    wrong, stale = _wrong_rows(found)
    if repair:
        _clear(folder, wrong)
        _rebuild_bits(found, stale)
    for rows, what in ((wrong, "seconds whose vectors cannot be right"), (stale, "seconds whose bits do not fit")):
        if len(rows):
            yield Finding(folder=folder, what=f"{len(rows)} {what}", repaired=repair)
    yield found


def _wrong_rows(day: Day) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The seconds whose vectors are damaged, and those of the others whose bits are."""
    wrong, stale = [np.empty(0, np.intp)], [np.empty(0, np.intp)]
    with day.open() as files:
        for start in range(0, DAY_S, _CHUNK):
            rows = np.arange(start, min(start + _CHUNK, DAY_S))
            found = files.vectors(rows)
            if not len(found.rows):
                continue
            good = _plausible(found)
            bits = files.bits(start, int(rows[-1]) + 1)[found.rows - start]
            fits = (bits == _bits_of(found)).all(axis=1)
            unchanged = files.flags()[found.rows] == found.flags  # or they are of different versions
            wrong.append(found.rows[~good & unchanged])
            stale.append(found.rows[good & ~fits & unchanged])
    return np.concatenate(wrong), np.concatenate(stale)


def _plausible(found: Vectors) -> NDArray[np.bool_]:
    good = np.ones(len(found.rows), np.bool_)
    for sense, missing in (("vision", NO_VISION), ("audio", NO_AUDIO)):
        with np.errstate(all="ignore"):
            norm = np.linalg.norm(found.of(sense), axis=1)  # type: ignore[arg-type]
            good &= ((found.flags & missing) > 0) | (np.abs(norm - 1) < _NORM)
    return good


def _bits_of(found: Vectors) -> NDArray[np.uint64]:
    return np.concatenate([pack_bits(found.vision), pack_bits(found.audio)], axis=1)


def _clear(folder: Path, rows: NDArray[np.intp]) -> None:
    with (folder / FLAGS).open("r+b") as file:
        flags = np.frombuffer(file.read(DAY_S), np.uint8)
        for row in rows.tolist():
            os.pwrite(file.fileno(), bytes([flags[row] & GENERATION]), row)
        os.fdatasync(file.fileno())


def _rebuild_bits(day: Day, rows: NDArray[np.intp]) -> None:
    if not len(rows):
        return
    with day.open() as files, (day.folder / "bits.u64").open("r+b") as file:
        found = files.vectors(rows)
        for row, bits in zip(found.rows.tolist(), _bits_of(found), strict=True):
            os.pwrite(file.fileno(), bits.tobytes(), row * bits.nbytes)
        os.fdatasync(file.fileno())


def remove_day(day: Day) -> None:
    """Remove a day, and what is left of others of its camera whose removal was cut short.

    Readers that have it open can finish; others never see half of it.

    Raises:
        OutputError: another process writes to it, or it cannot be removed.
    """
    aside = day.folder.with_name(f"{_REMOVED}{day.folder.name}")
    try:
        with locked_day(day.folder):
            shutil.rmtree(aside, ignore_errors=True)
            day.folder.rename(aside)
        shutil.rmtree(aside)
        for left in aside.parent.glob(f"{_REMOVED}*"):
            shutil.rmtree(left, ignore_errors=True)  # another process may be about to
    except OSError as error:
        raise OutputError(
            f"cannot remove {day.folder}: {error.strerror or error}; check who may write there"
        ) from error
