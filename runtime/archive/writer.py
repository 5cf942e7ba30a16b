"""Writes seconds into the archive.

What a reader sees is whole at any moment, whatever dies: a second is there once its flag says so, and the flag is
written after its vectors have reached the disk. A second that is written again loses its flag first. Hence the order of
a commit: clear flags, sync; vectors, sync; flags. One sync for each file and commit, not for each second, keeps that
cheap; what waits for a commit is lost if the process dies, at most `every` seconds.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from ovavel.runtime.archive.folders import read_header
from ovavel.runtime.archive.layout import (
    CONTEXT,
    DAY_S,
    FLAGS,
    GENERATION,
    HEADER,
    VERSION,
    WRITTEN,
    ContextSecond,
    Header,
    Model,
    camera_folder,
    day_folders,
    day_of,
    pack_bits,
    quantized,
    row_bytes,
)
from ovavel.runtime.errors import InputError, OutputError
from ovavel.runtime.system.files import atomic_write, make_folder, output_error

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["EVERY", "ArchiveWriter", "DayFiles", "locked_day"]

EVERY = 60
"""Seconds in a commit, whose syncs take some tens of milliseconds on a busy disk."""


class ArchiveWriter:
    """Writes the seconds of one camera. Another writer of the same camera and day is refused."""

    def __init__(self, root: Path, camera: str, model: Model, *, every: int = EVERY) -> None:
        """Write below the folder `root`, and commit when `every` seconds wait.

        Raises:
            UsageError: the camera's name cannot be used.
            OutputError: the folder cannot be created.
        """
        self.camera, self.model = camera, model
        self.written = 0
        """Seconds that were committed."""
        self.lost = 0
        """Seconds that were not, whatever failed."""
        self._folder = root / CONTEXT / camera_folder(camera)
        make_folder(self._folder)
        self._every = every
        self._waiting: dict[int, ContextSecond] = {}  # by row of the open day
        self._day: tuple[date, DayFiles] | None = None

    def write(self, second: ContextSecond) -> None:
        """Take a second, in any order; one that was written before is replaced.

        Raises:
            OutputError: seconds could not be written, this one or those that waited; they are counted as `lost`.
            ValueError: a vector has the wrong size.
        """
        day, row = day_of(second.utc_s)
        try:
            self._check(second)
            if self._day is None or self._day[0] != day:
                self.close()
                self._day = day, self._open(day)
        except Exception:
            self.lost += 1
            raise
        self._waiting[row] = second
        if len(self._waiting) >= self._every:
            self.commit()

    def _check(self, second: ContextSecond) -> None:
        for sense in ("vision", "audio"):
            vector = second.of(sense)
            if vector is not None and vector.shape != (self.model.size(sense),):
                raise ValueError(f"a {sense} vector {vector.shape} is not one of {self.model}")

    def commit(self) -> None:
        """Make readers see what waits.

        Raises:
            OutputError: it could not be written, and is counted as `lost`.
        """
        waiting, self._waiting = self._waiting, {}
        if not waiting or self._day is None:
            return
        try:
            self._day[1].write(dict(sorted(waiting.items())))
        except Exception as error:
            self.lost += len(waiting)
            if isinstance(error, OSError):
                raise output_error(self._day[1].folder, error) from error
            raise
        self.written += len(waiting)

    def close(self) -> None:
        """Commit, and let go of the files. May be called twice.

        Raises:
            OutputError: as `commit`.
        """
        try:
            self.commit()
        finally:
            if self._day is not None:
                (_, files), self._day = self._day, None
                files.close()

    def __enter__(self) -> ArchiveWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, day: date) -> DayFiles:
        """The day of this model: its plain folder, or one with the model's id where another model has that."""
        header = Header(version=VERSION, camera=self.camera, day=day.isoformat(), model=self.model)
        for name in day_folders(day.isoformat(), self.model):
            folder = self._folder / name
            try:
                files = DayFiles.open(folder, header)
            except OSError as error:
                raise output_error(folder, error) from error
            if files is not None:
                return files
        raise OutputError(
            f"{folder} holds vectors of a model that it does not name; 'ovavel archive check' examines it"
        )


class DayFiles:
    """The files of one day, open and locked for writing."""

    def __init__(self, folder: Path, model: Model, files: dict[str, int], opened: ExitStack) -> None:
        """Write to open `files`, by name, which `opened` closes."""
        self.folder, self.model = folder, model
        self._files, self._opened = files, opened
        self._bytes = row_bytes(model)

    @classmethod
    def open(cls, folder: Path, header: Header) -> DayFiles | None:
        """Open a day, or begin it; None if it is of another model.

        Raises:
            OutputError: another process writes to it, or what is there cannot be used.
            OSError: it cannot be opened.
        """
        with ExitStack() as opened:
            opened.enter_context(locked_day(folder))
            if (folder / HEADER).exists():
                try:
                    there = read_header(folder)
                except InputError as error:
                    raise OutputError(f"cannot write to {folder}: {error}") from error
                if there.model.id != header.model.id:
                    return None
            else:
                _begin(folder, header)
            files = {}
            for name in row_bytes(header.model):
                files[name] = os.open(folder / name, os.O_RDWR | os.O_CLOEXEC)
                opened.callback(os.close, files[name])
            for name, size in row_bytes(header.model).items():
                if os.fstat(files[name]).st_size != DAY_S * size:
                    raise OutputError(
                        f"{folder / name} does not have {DAY_S * size} bytes; repair it with 'ovavel archive check'"
                    )
            return cls(folder, header.model, files, opened.pop_all())

    def write(self, seconds: dict[int, ContextSecond]) -> None:
        """Write `seconds` by their row, in order. Raises OSError; then none, some or all of them are there."""
        rows = list(seconds)
        flags = np.frombuffer(os.pread(self._files[FLAGS], DAY_S, 0), np.uint8)
        again = [row for row in rows if flags[row] & WRITTEN]
        for first, last in runs(again):
            self._put(FLAGS, first, flags[first:last] & GENERATION)
        if again:
            self._sync(FLAGS)
        columns = self._columns(list(seconds.values()))
        for name, values in columns.items():
            for (first, _), part in zip(runs(rows), _split(rows, values), strict=True):
                self._put(name, first, part)
        for name in columns:
            self._sync(name)
        fresh = np.array([second.flag for second in seconds.values()], np.uint8)
        fresh |= ((flags[rows] & GENERATION) + 0x10).astype(np.uint8) & GENERATION
        for (first, _), part in zip(runs(rows), _split(rows, fresh), strict=True):
            self._put(FLAGS, first, part)

    def _columns(self, seconds: Sequence[ContextSecond]) -> dict[str, NDArray[np.generic]]:
        """What each file but the flags gets, one row a second."""
        columns: dict[str, NDArray[np.generic]] = {}
        scales, bits = [], []
        for sense in ("vision", "audio"):
            vectors = np.zeros((len(seconds), self.model.size(sense)), np.float32)
            for row, second in enumerate(seconds):
                if (vector := second.of(sense)) is not None:
                    vectors[row] = vector
            columns[f"{sense}.i8"], scale = quantized(vectors)
            scales.append(scale)
            bits.append(pack_bits(columns[f"{sense}.i8"]))
        columns["scale.f32"] = np.stack(scales, axis=1).astype("<f4")
        columns["bits.u64"] = np.concatenate(bits, axis=1)
        return columns

    def _put(self, name: str, row: int, values: NDArray[np.generic]) -> None:
        data, offset = np.ascontiguousarray(values).data.cast("B"), row * self._bytes[name]
        while data:
            count = os.pwrite(self._files[name], data, offset)
            data, offset = data[count:], offset + count

    def _sync(self, name: str) -> None:
        os.fdatasync(self._files[name])

    def close(self) -> None:
        """Let go of the files; the flags reach the disk first, if they can."""
        with suppress(OSError):  # no reader is misled by flags that are not on the disk
            self._sync(FLAGS)
        self._opened.close()


@contextmanager
def locked_day(folder: Path) -> Iterator[None]:
    """Create a day's folder, and hold its lock.

    Raises:
        OutputError: another process holds it.
        OSError: the folder cannot be created or opened.
    """
    while True:
        folder.mkdir(exist_ok=True)
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                # It may have been removed, and even made again, before it was locked.
                if os.path.samestat(os.fstat(held), folder.stat()):
                    yield
                    return
        except BlockingIOError as error:
            raise OutputError(
                f"cannot write to {folder}: another process does; wait for it, or give another camera name"
            ) from error
        finally:
            os.close(held)


def runs(rows: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First row and the row after the last of each stretch of ascending `rows` without a hole."""
    start = 0
    for at in range(1, len(rows) + 1):
        if at == len(rows) or rows[at] != rows[at - 1] + 1:
            yield rows[start], rows[at - 1] + 1
            start = at


def _split(rows: Sequence[int], values: NDArray[np.generic]) -> list[NDArray[np.generic]]:
    """One part of `values` for each of the `runs` of `rows`."""
    ends = np.cumsum([last - first for first, last in runs(rows)])
    return np.split(values, ends[:-1])


def _begin(folder: Path, header: Header) -> None:
    """Make the files of a day, sparse and of full size, then its header: what has one is complete."""
    for name, size in row_bytes(header.model).items():
        (folder / name).unlink(missing_ok=True)  # of a day that never had a header
        handle = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            os.ftruncate(handle, DAY_S * size)
            os.fsync(handle)
        finally:
            os.close(handle)
    atomic_write(folder / HEADER, header.encode())
    for each in (folder, folder.parent):
        handle = os.open(each, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
