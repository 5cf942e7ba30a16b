"""The content of a recording, wherever it lies: in a file, or in an object, which is fetched when it is its turn."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol

from ovavel.runtime.errors import MediaError, OutputError, StorageError
from ovavel.runtime.scale.job import Recording
from ovavel.runtime.scale.objects import object_store, plain_errors, wait_for
from ovavel.runtime.sources.media.fingerprint import BLOCK, WHOLE, block_offsets, fingerprint, fingerprint_of
from ovavel.runtime.system.files import not_regular, output_error

if TYPE_CHECKING:
    from obstore import Bytes, GetOptions, ObjectMeta

__all__ = ["Media", "opened"]

_PART = 8 << 20
"""Bytes of one request: one that breaks off costs no more, and a slow network delivers it before obstore gives up."""


class Media(Protocol):
    """What a recording holds."""

    @property
    def fingerprint(self) -> str | None:
        """Of its content, see `fingerprint`; None where it cannot be read."""

    def path(self) -> Path:
        """A file with this content.

        Raises:
            MediaError: it cannot be read, or is no file.
            OutputError: there is no room for a temporary file.
            StorageError: object storage cannot be reached, or refuses.
        """


@contextlib.contextmanager
def opened(recording: Recording) -> Iterator[Media]:
    """The content of `recording`. A temporary file is gone at the end, even where the process is killed.

    Raises:
        StorageError, MissingExtraError: object storage cannot be reached or used from here.
    """
    if recording.store is None:
        yield _File(recording)
        return
    with contextlib.ExitStack() as stack:
        yield _Object(recording, recording.store, stack)


class _File:
    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self.fingerprint = fingerprint(Path(recording.path))

    def path(self) -> Path:
        path = Path(self._recording.path)
        try:
            kind = not_regular(path)
        except FileNotFoundError as error:
            raise MediaError(
                f"{self._recording.file} is not there; each machine needs the recordings below the same path"
            ) from error
        except OSError as error:
            raise MediaError(f"{self._recording.file} cannot be read: {error.strerror or error}") from error
        if kind:
            raise MediaError(f"{self._recording.file} {kind}; name files")
        return path


class _Object:
    def __init__(self, recording: Recording, url: str, stack: contextlib.ExitStack) -> None:
        self._recording, self._url, self._stack = recording, url, stack
        self._store = object_store(url)
        self._file: Path | None = None
        self._why = ""
        self._meta = self._head()
        self.fingerprint = self._fingerprint(self._meta) if self._meta else None

    def path(self) -> Path:
        if self._meta is None or self.fingerprint is None:
            raise MediaError(self._why)
        if self._file is None:
            self._file = self._fetched(self._meta)
            if fingerprint(self._file) != self.fingerprint:
                raise MediaError(f"{self._recording.file} was replaced while it was read; run the command again")
        return self._file

    def _head(self) -> ObjectMeta | None:
        import obstore

        try:
            with self._read_errors():
                return wait_for(obstore.head, self._store, self._recording.path)
        except MediaError as error:
            self._why = str(error)
            return None

    def _fingerprint(self, meta: ObjectMeta) -> str | None:
        """As of a file; of a large object, without reading all of it."""
        import obstore

        size = meta["size"]
        try:
            if size <= WHOLE:
                self._file = self._fetched(meta)
                return fingerprint(self._file)
            starts = block_offsets(size)
            with self._read_errors():
                blocks = wait_for(
                    obstore.get_ranges,
                    self._store,
                    self._recording.path,
                    starts=starts,
                    lengths=[BLOCK] * len(starts),
                    coalesce=0,
                )
        except MediaError as error:
            self._why = str(error)
            return None
        return fingerprint_of(size, map(bytes, blocks))

    def _fetched(self, meta: ObjectMeta) -> Path:
        """A file with the object's content: without a name, so that it ends with the process, but for a link to it."""
        folder = tempfile.gettempdir()
        self._check_room(folder, meta["size"])
        try:
            file = self._stack.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115 - closed by the stack
            for start in range(0, meta["size"], _PART):
                end = min(start + _PART, meta["size"])
                with self._read_errors():
                    part = wait_for(self._part, start, end, meta["e_tag"])
                file.write(part)
            file.flush()
            place = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="ovavel-", dir=folder))
            # FFmpeg looks at the suffix, too.
            link = Path(place, f"recording{PurePosixPath(self._recording.name).suffix}")
            link.symlink_to(f"/proc/{os.getpid()}/fd/{file.fileno()}")
        except OSError as error:
            raise output_error(folder, error) from error
        return link

    def _part(self, start: int, end: int, e_tag: str | None) -> Bytes:
        import obstore

        options: GetOptions = {"range": (start, end), "if_match": e_tag}
        return obstore.get(self._store, self._recording.path, options=options).bytes()

    def _check_room(self, folder: str, size: int) -> None:
        disk = shutil.disk_usage(folder)
        what = f"{self._recording.file} has {size / 1e9:.2f} GB"
        if size > disk.total:
            raise MediaError(f"{what}, more than the disk of {folder}; set TMPDIR to a folder on a larger one")
        if size > disk.free:
            raise OutputError(f"{what}, and {folder} has room for {disk.free / 1e9:.2f} GB; free some or set TMPDIR")

    @contextlib.contextmanager
    def _read_errors(self) -> Iterator[None]:
        """Raise MediaError for what ails this object alone."""
        from obstore.exceptions import PermissionDeniedError, PreconditionError

        file, failed = self._recording.file, f"cannot read {self._url.rstrip('/')}/{self._recording.path}"
        try:
            with plain_errors(failed):
                yield
        except FileNotFoundError as error:
            raise MediaError(f"{file} is not there any more") from error
        except PreconditionError as error:
            raise MediaError(f"{file} was replaced while it was read; run the command again") from error
        except StorageError as error:
            if isinstance(error.__cause__, PermissionDeniedError):
                raise MediaError(f"{file} cannot be read: {str(error).removeprefix(f'{failed}: ')}") from error
            raise
