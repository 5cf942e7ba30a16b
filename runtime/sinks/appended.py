"""A file of lines that grows while others fill the disk, move the file or remove it."""

from __future__ import annotations

import contextlib
import os
import stat
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from ovavel.runtime.errors import OutputError
from ovavel.runtime.system.files import output_error
from ovavel.runtime.system.paths import check_path

__all__ = ["AppendedFile"]

_STDOUT = 1
_BLOCK = 1 << 16
_LONGEST = 1 << 24
"""A last line longer than this is no record."""


class AppendedFile:
    """Appends lines to a file, each with one system call, so that a kill loses nothing that was written.

    - **A full disk** does not end the session: up to `backlog` lines wait in memory and each write tries again. What
      was written of a line is removed, so the file ends with a whole one.
    - **A file that is moved or removed** while it is written is noticed at the next write and created again in its
      place, with its first line; lines wait for as long as its folder is gone. The lines of a removed file count as
      lost.
    - **A last line that a crash cut short** is moved to `<path>.torn` when the file is opened again.

    `BrokenPipeError` passes through.
    """

    def __init__(self, path: Path | str, *, listener: Callable[[str], None], backlog: int) -> None:
        """Open `path`, or standard output for "-".

        Raises:
            OutputError: it cannot be opened.
        """
        self.name = "standard output" if str(path) == "-" else str(path)
        self.lost = 0
        """Lines that could not even wait, and those of a file that was removed."""
        self._path = None if str(path) == "-" else Path(path)
        self._listener = listener
        self._limit = backlog
        self._waiting: deque[bytes] = deque()
        self._first = b""
        self._written = 0  # lines in the present file
        self._waits = False  # whether that was reported
        self._removed = 0  # lines that went with the file
        self._last_error: OSError | None = None
        # What must be written before the next line: the end of one that was cut short.
        self._torn = b""
        try:
            if self._path is None:
                self._fd: int | None = _STDOUT
            else:
                check_path(self._path, OutputError)
                self._torn = self._repair(self._path)
                self._fd = _open(self._path)
            status = os.fstat(self._fd)
        except OSError as error:
            raise output_error(self.name, error) from error
        # A file without a name from the outset, such as a temporary one, cannot be removed.
        self._watched = stat.S_ISREG(status.st_mode) and status.st_nlink > 0

    def write(self, line: bytes) -> None:
        """Take one line, then write all that waits, in order, as far as the disk lets it."""
        if self._fd is None:
            return
        self._first = self._first or line
        if len(self._waiting) < self._limit:
            self._waiting.append(line)
        else:
            self.lost += 1
        try:
            self._follow()
            while self._torn or self._waiting:
                self._write_next()
        except BrokenPipeError:
            self._release()
            raise
        except OSError as error:
            self._last_error = error
            if not self._waits:
                self._waits = True
                self._listener(
                    f"cannot write to {self.name} ({error.strerror}); records wait in memory, {self._limit} at most"
                )
            return
        if self._waits:
            self._waits = False
            lost = f"; {self.lost} were lost" if self.lost else ""
            self._listener(f"writing to {self.name} works again{lost}")

    def close(self) -> None:
        """Close the file.

        Raises:
            OutputError: some lines could not be written, or were removed; says how many.
        """
        if self._fd is None:
            return
        try:
            with contextlib.suppress(OSError):
                self._follow()
            missing = len(self._waiting) + self.lost - self._removed + (self._torn not in (b"", b"\n", self._first))
        finally:
            self._release()
        losses = []
        if self._removed:
            losses.append(f"{self._removed} records are gone with {self.name}, which was removed while it was written")
        if missing:
            reason = f" ({self._last_error.strerror})" if self._last_error else ""
            losses.append(
                f"{missing} records could not be written to {self.name}{reason}; what is there is good up to its last "
                "whole line. Make room for it, then run again"
            )
        if losses:
            raise OutputError("; ".join(losses))

    def _write_next(self) -> None:
        assert self._fd is not None
        line = self._torn or self._waiting[0]
        written = os.write(self._fd, line)
        try:
            while self._watched and written < len(line):  # the disk is full: the next call says so
                written += os.write(self._fd, line[written:])
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
                written = 0
            raise
        finally:
            if written and not self._torn:
                self._waiting.popleft()
            self._torn = line[written:] if written or self._torn else b""
        self._written += not self._torn

    def _follow(self) -> None:
        """Notice that the file was moved or removed, and begin it again. Raises OSError where that is impossible."""
        if not self._watched or self._fd is None:
            return
        ours = os.fstat(self._fd)
        removed = ours.st_nlink == 0
        if not removed and (self._path is None or _same(ours, self._path)):
            return
        if removed:
            self.lost += self._written
            self._removed += self._written
            self._written = 0
        try:
            if self._path is None:
                raise FileNotFoundError(2, "it was removed")
            again = _open(self._path)
            if os.fstat(again).st_nlink == 0:  # another name of the removed file, such as /dev/stdout
                os.close(again)
                raise FileNotFoundError(2, "it was removed")
        except OSError:
            if removed:
                raise
            return  # a moved file still takes what comes
        self._release()
        self._fd = again
        self._torn = self._first if self._first not in self._waiting else b""
        self._written = 0
        if removed:
            self._listener(f"{self.name} was removed with the records in it; it is created again in its place")
        else:
            self._listener(f"{self.name} was moved; a new file is begun in its place")

    def _repair(self, path: Path) -> bytes:
        """Move the last line aside if a crash cut it short; return what has to be written before anything else."""
        if not path.exists() or not stat.S_ISREG(path.stat().st_mode):
            return b""
        tail = _tail(path)
        if not tail:
            return b""
        aside = path.with_name(path.name + ".torn")
        if _whole(tail) or not (tail.startswith(b"{") or b"\0" in tail):
            return b"\n"  # a record that lacks only its end, or no record of ours
        try:
            with aside.open("ab") as file:
                file.write(tail + b"\n")
            os.truncate(path, path.stat().st_size - len(tail))
        except OSError:
            return b"\n"
        self._listener(f"the last line of {path} was cut short; it was moved to {aside}")
        return b""

    def _release(self) -> None:
        """Close the file, once; standard output is not ours to close."""
        if self._fd is not None and self._fd != _STDOUT:
            os.close(self._fd)
        self._fd = None


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)


def _same(ours: os.stat_result, path: Path) -> bool:
    try:
        return os.path.samestat(ours, path.stat())
    except OSError:
        return False


def _tail(path: Path) -> bytes:
    """What follows the last line end; empty if that is nothing, or too long to be a record."""
    with path.open("rb") as file:
        at = file.seek(0, os.SEEK_END)
        tail = b""
        while at > 0 and len(tail) < _LONGEST:
            size = min(at, _BLOCK)
            at = file.seek(at - size)
            block = file.read(size)
            _, found, rest = block.rpartition(b"\n")
            if found:
                return rest + tail
            tail = block + tail
    return tail


def _whole(line: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(line), dict)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
