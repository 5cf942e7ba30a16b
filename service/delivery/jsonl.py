"""A file that grows by a line of JSON for each piece of news, each on disk before it counts as delivered."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ovavel.runtime.system.files import not_regular
from ovavel.service.config.sinks import Jsonl
from ovavel.service.delivery.message import Message
from ovavel.service.delivery.sender import Outcome, Unavailable

__all__ = ["JsonlSender"]


class JsonlSender:
    """Opens the file for each batch, so that whoever moves it away finds it begun again."""

    def __init__(self, sink: Jsonl) -> None:
        self._path = Path(sink.path)

    def prepare(self) -> bool:
        """Raise Unavailable where the path names no file."""
        if self._path.exists() and (why := not_regular(self._path)):
            raise Unavailable(f"{self._path} {why}")
        return False

    def send(self, messages: Sequence[Message]) -> list[Outcome]:
        """Append a line for each; all of them or none."""
        lines = b"".join(msgspec.json.encode(_record(each)) + b"\n" for each in messages)
        try:
            _append(self._path, lines)
        except OSError as error:
            why = f"cannot write {self._path}: {error.strerror or error}"
            return [Outcome(result="unavailable", why=why)] * len(messages)
        return [Outcome(result="delivered")] * len(messages)

    def interrupt(self) -> None:
        """Nothing is waited for but the disk."""

    def close(self) -> None:
        """Nothing is open."""


def _record(message: Message) -> dict[str, object]:
    return {"type": message.type, "written": message.created, **message.data}


def _append(path: Path, lines: bytes) -> None:
    created = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o640)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            lines = b"\n" + lines  # the end of a line that a power cut left torn
        try:
            written = 0
            while written < len(lines):
                written += os.write(descriptor, lines[written:])
            os.fsync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)
    if created:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
