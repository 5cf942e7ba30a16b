"""Reads the archive, at any time: it takes no locks and never waits for a writer.

Shapes: N seconds, D embedding size of a sense, W bits of a sense.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from ovavel.runtime.archive.folders import DayGoneError, folders_in, read_header
from ovavel.runtime.archive.layout import (
    CONTEXT,
    DAY_S,
    FLAGS,
    NO_AUDIO,
    NO_VISION,
    WRITTEN,
    ContextSecond,
    Model,
    camera_folder,
    camera_name,
    day_folders,
    day_of,
    day_of_folder,
    is_camera_folder,
    packed_words,
    row_bytes,
    start_of,
)
from ovavel.runtime.errors import InputError
from ovavel.runtime.reporting.text import shown_name
from ovavel.runtime.types import Sense

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Archive", "Day", "DayReader", "Listing", "Vectors"]

_SCATTERED = 4
"""Where more rows than so many lie between two that are wanted, only those are read."""
_AT_ONCE = 1 << 20
"""Bytes that are read as they lie, whatever lies between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """One day of one camera, of one model."""

    camera: str
    day: date
    folder: Path
    model: Model

    @property
    def start_s(self) -> int:
        """Unix time at which it begins."""
        return start_of(self.day)

    def open(self) -> DayReader:
        """Open its files.

        Raises:
            DayGoneError: the day was removed meanwhile.
            InputError: one is missing or has the wrong size.
        """
        return DayReader(self)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Vectors:
    """N seconds of one day."""

    rows: NDArray[np.intp]
    """(N,) seconds of the day, ascending."""
    flags: NDArray[np.uint8]
    """(N,)"""
    vision: NDArray[np.int8]
    """(N, D); zeros where nothing was seen."""
    audio: NDArray[np.int8]
    scale: NDArray[np.float32]
    """(N, 2): what the vectors of vision and of audio are multiplied by."""

    def of(self, sense: Sense) -> NDArray[np.float32]:
        """(N, D) float32 vectors of `sense`, of unit norm but for rounding."""
        values, column = (self.audio, 1) if sense == "audio" else (self.vision, 0)
        vectors: NDArray[np.float32] = values * self.scale[:, column, None]
        return vectors

    def products(self, sense: Sense, texts: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, C) products of the vectors of `sense` with (C, D) `texts`."""
        values, column = (self.audio, 1) if sense == "audio" else (self.vision, 0)
        found: NDArray[np.float32] = values.astype(np.float32) @ texts.T
        found *= self.scale[:, column, None]
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The days of an archive, newest first."""

    days: list[Day]
    """Those of the model that was asked for."""
    others: list[Day]
    """Those of other models."""
    unreadable: list[str]
    """CAMERA/DAY, or CAMERA, whose folder or header cannot be read."""

    @property
    def left_out(self) -> str:
        """For people: what there is beside `days`; empty if nothing is."""
        found = []
        if self.others:
            found.append(f"{len(self.others)} days of cameras hold vectors of another model and are left out")
        if self.unreadable:
            found.append(
                f"{len(self.unreadable)} folders of the archive cannot be read and are left out, "
                f"{shown_name(self.unreadable[0])} the first of them: 'ovavel archive check' says why"
            )
        return "; ".join(found)


class Archive:
    """An archive's folder."""

    def __init__(self, root: Path) -> None:
        """Read below `root`.

        Raises:
            InputError: it holds no archive.
        """
        if not (root / CONTEXT).is_dir():
            raise InputError(
                f"{root} holds no archive: it has no folder {CONTEXT!r}. 'ovavel localize --archive' writes one"
            )
        self.root = root

    def cameras(self) -> list[str]:
        """The cameras' names, in order; other folders, such as those of a file system, are left out.

        Raises:
            InputError: the archive cannot be read.
        """
        return sorted(camera_name(name) for name in folders_in(self.root / CONTEXT) if is_camera_folder(name))

    def days(
        self,
        cameras: Sequence[str] = (),
        *,
        model: str | None = None,
        from_s: int | None = None,
        to_s: int | None = None,
    ) -> list[Day]:
        """The days of `listing`."""
        return self.listing(cameras, model=model, from_s=from_s, to_s=to_s).days

    def listing(
        self,
        cameras: Sequence[str] = (),
        *,
        model: str | None = None,
        from_s: int | None = None,
        to_s: int | None = None,
    ) -> Listing:
        """The days that exist.

        Args:
            cameras: only these; all of them if empty.
            model: the `Model.id` of the days; None: any.
            from_s: only days with a second at or after this Unix time.
            to_s: only days with a second before this Unix time.

        Raises:
            InputError: there is no such camera, or the archive cannot be read.
        """
        known = self.cameras()
        if unknown := [camera for camera in cameras if camera not in known]:
            raise InputError(
                f"the archive {self.root} has no camera {unknown[0]!r}; it has {', '.join(known) or 'none'}"
            )
        found, unreadable = list[Day](), list[str]()
        for camera in dict.fromkeys(cameras) or known:
            of_camera = self.root / CONTEXT / camera_folder(camera)
            try:
                names = folders_in(of_camera)
            except InputError:
                unreadable.append(camera)
                continue
            for name in names:
                day = day_of_folder(name)
                if day is None:
                    continue
                if (from_s is not None and start_of(day) + DAY_S <= from_s) or (
                    to_s is not None and start_of(day) >= to_s
                ):
                    continue
                try:
                    made_by = read_header(of_camera / name).model
                except DayGoneError:
                    continue
                except InputError:
                    unreadable.append(f"{camera}/{name}")
                    continue
                if name in day_folders(day.isoformat(), made_by):
                    found.append(Day(camera=camera, day=day, folder=of_camera / name, model=made_by))
        found.sort(key=lambda each: (-each.start_s, each.camera, each.folder.name))
        return Listing(
            days=[day for day in found if model in (None, day.model.id)],
            others=[day for day in found if model not in (None, day.model.id)],
            unreadable=unreadable,
        )

    def second(self, camera: str, utc_s: int, *, model: str) -> ContextSecond | None:
        """The second of `camera` that begins at `utc_s`; None if it is not there.

        Raises:
            InputError: there is no such camera, or the day cannot be read.
        """
        day, row = day_of(utc_s)
        for each in self.days([camera], model=model, from_s=utc_s, to_s=utc_s + 1):
            if each.day != day:
                continue
            with suppress(DayGoneError), each.open() as files:
                for second in files.seconds(row, row + 1):
                    return second
        return None


class DayReader:
    """The open files of one day. A day that is removed meanwhile can be read to its end."""

    def __init__(self, day: Day) -> None:
        """Open the files of `day`."""
        self.day = day
        self._bytes = row_bytes(day.model)
        self._files: dict[str, int] = {}
        with ExitStack() as opened:
            try:
                for name, size in self._bytes.items():
                    self._files[name] = handle = os.open(day.folder / name, os.O_RDONLY | os.O_CLOEXEC)
                    opened.callback(os.close, handle)
                    if os.fstat(handle).st_size != DAY_S * size:
                        raise InputError(
                            f"{day.folder / name} does not have {DAY_S * size} bytes; repair it with 'ovavel archive "
                            "check'"
                        )
            except OSError as error:
                if isinstance(error, FileNotFoundError) and not day.folder.exists():
                    raise DayGoneError(f"{day.folder} was removed") from error
                raise InputError(f"{error.filename or day.folder} cannot be read ({error.strerror})") from error
            self._opened = opened.pop_all()

    def flags(self) -> NDArray[np.uint8]:
        """(86 400,) flags, as they are now."""
        return self._read(FLAGS, 0, DAY_S)[:, 0]

    def bits(self, first: int, last: int) -> NDArray[np.uint64]:
        """Rows `first` to `last` - 1 of the bits: (N, words of vision, then of audio)."""
        return self._read("bits.u64", first, last).view("<u8")

    def words(self, sense: Sense) -> slice:
        """The columns of `bits` that are of `sense`."""
        vision = packed_words(self.day.model.vision_size)
        return slice(vision, None) if sense == "audio" else slice(0, vision)

    def vectors(self, rows: NDArray[np.intp]) -> Vectors:
        """The seconds among ascending `rows` that are there, and were not written again while they were read."""
        before = self.flags()[rows]
        columns = {name: self._gather(name, rows) for name in ("vision.i8", "audio.i8", "scale.f32")}
        there = (before == self.flags()[rows]) & (before & WRITTEN > 0)
        return Vectors(
            rows=rows[there],
            flags=before[there],
            vision=columns["vision.i8"][there].view(np.int8),
            audio=columns["audio.i8"][there].view(np.int8),
            scale=columns["scale.f32"][there].view("<f4"),
        )

    def seconds(self, first: int, last: int) -> Iterator[ContextSecond]:
        """The seconds from row `first` to row `last` - 1 that are there, in order."""
        found = self.vectors(np.arange(first, last))
        vision, audio = found.of("vision"), found.of("audio")
        for at, (row, flag) in enumerate(zip(found.rows, found.flags, strict=True)):
            yield ContextSecond(
                utc_s=self.day.start_s + int(row),
                vision=None if flag & NO_VISION else vision[at],
                audio=None if flag & NO_AUDIO else audio[at],
            )

    def _gather(self, name: str, rows: NDArray[np.intp]) -> NDArray[np.uint8]:
        """(N, bytes of a row) of `name`: through a map where few of many rows are wanted, which is far faster.

        A disk is asked for all of them at once, and for nothing beside them.
        """
        first, last = (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, 0)
        size = self._bytes[name]
        if (last - first) * size <= max(_AT_ONCE, len(rows) * size * _SCATTERED):
            return self._read(name, first, last)[rows - first]
        for row in rows.tolist():
            os.posix_fadvise(self._files[name], row * size, size, os.POSIX_FADV_WILLNEED)
        with mmap.mmap(self._files[name], DAY_S * size, prot=mmap.PROT_READ) as mapped:
            mapped.madvise(mmap.MADV_RANDOM)
            return np.frombuffer(mapped, np.uint8).reshape(DAY_S, size)[rows]

    def _read(self, name: str, first: int, last: int) -> NDArray[np.uint8]:
        """Rows `first` to `last` - 1 of `name`: (N, bytes of a row)."""
        size = self._bytes[name]
        buffer = np.empty((last - first) * size, np.uint8)
        view, offset = buffer.data, first * size
        while view:
            try:
                count = os.preadv(self._files[name], [view], offset)
            except OSError as error:
                raise InputError(f"{self.day.folder / name} cannot be read ({error.strerror})") from error
            if not count:
                raise InputError(f"{self.day.folder / name} was cut short while it was read")
            view, offset = view[count:], offset + count
        return buffer.reshape(-1, size)

    def close(self) -> None:
        """Let go of the files. May be called twice."""
        self._opened.close()

    def __enter__(self) -> DayReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
