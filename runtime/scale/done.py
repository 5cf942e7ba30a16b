"""The folder of results of a run that several processes and machines share: what is done, and what failed.

`done/<id>.json` is written when all results of a recording are in their place, so whatever dies meanwhile, a recording
either has all of them or is localized again. `failed/<id>.json` says why one has none. The id is a hash of the
recording's name and content. Two processes that localize the same recording write the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from ovavel.runtime.errors import InputError
from ovavel.runtime.reporting.text import encodable
from ovavel.runtime.scale.job import Recording, Request
from ovavel.runtime.scale.objects import open_place
from ovavel.runtime.sinks.as_json import to_json_bytes
from ovavel.runtime.system.untrusted import read_json

__all__ = ["Done", "EventSum", "Failed", "ResultFolder", "Summary", "output_name", "recording_id"]

_VERSION = 1

T = TypeVar("T")


class EventSum(msgspec.Struct, frozen=True, kw_only=True):
    """All events of one label."""

    count: int
    duration_s: float


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a report says of one recording."""

    duration_s: float
    events: dict[str, EventSum]
    """By label."""
    lost_s: dict[str, float]
    """Seconds that were lost, by sense and cause: "audio: end of media"."""


class Done(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="ovavel.done"):
    """What `done/<id>.json` holds. It depends on the recording and the request alone."""

    format_version: int = _VERSION
    id: str
    recording: str
    """Its name below the folder of all recordings."""
    request: Request
    outputs: dict[str, str]
    """SHA-256 of each result, by its path below the folder of results."""
    summary: Summary


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="ovavel.failed"):
    """What `failed/<id>.json` holds."""

    format_version: int = _VERSION
    id: str
    recording: str
    cause: str
    attempts: int
    """How often it was tried, in all runs."""


class ResultFolder:
    """Records and results below one folder or prefix. Everything may be called by many processes at once.

    All methods raise StorageError if object storage cannot be reached or refuses.
    """

    def __init__(self, where: Path | str) -> None:
        """Use the folder at a path or at a URL of object storage; it need not exist."""
        self.place = open_place(where)

    def prepare(self) -> None:
        """Create the folders of records, and remove what processes that died a day ago left aside.

        Raises:
            OutputError: they cannot be created.
        """
        self.place.prepare()

    def done(self, key: str) -> Done | None:
        """The record of what is done under the id `key`.

        Raises:
            InputError: it is damaged.
        """
        return self._read(f"done/{key}.json", Done)

    def intact(self, done: Done, results: Iterable[Path]) -> bool:
        """Whether each of the `results`, by path below this folder, is where it was written, unchanged."""

        def unchanged(path: Path) -> bool:
            data = self.place.read(path.as_posix())
            return data is not None and hashlib.sha256(data).hexdigest() == done.outputs.get(output_name(path))

        try:
            return all(map(unchanged, results))
        except InputError:
            return False

    def write(self, key: str, done: Done, results: Mapping[Path, bytes], *, replace: bool = False) -> None:
        """Write the results, by path below this folder, then the record; a failure on record is removed.

        Args:
            key: Id of the recording.
            done: Its record.
            results: What to write before.
            replace: Replace another record there may be.

        Raises:
            OutputError: the disk is full, or a folder is not writable. There is no record then.
            InputError: another process has recorded other results meanwhile.
        """
        for path, data in results.items():
            self.place.write(path.as_posix(), data)
        record = self.place.write if replace else self.place.record
        record(f"done/{key}.json", _encoded(done))
        self.place.remove(f"failed/{key}.json")

    def fail(self, key: str, recording: Recording, cause: str, *, attempts: int = 1) -> None:
        """Record that the recording could not be localized, `attempts` more times.

        Raises:
            OutputError: the record cannot be written.
        """
        name = f"failed/{key}.json"
        before = None
        with contextlib.suppress(InputError):  # a damaged record is replaced
            before = self._read(name, Failed)
        tried = attempts + (before.attempts if before else 0)
        failed = Failed(id=key, recording=encodable(recording.name), cause=encodable(cause), attempts=tried)
        self.place.write(name, _encoded(failed))

    def records(self) -> Iterator[Done | Failed]:
        """Every record there is, in the order of ids: first of what is done, then of what failed.

        Raises:
            InputError: one is damaged.
        """
        kinds: dict[str, type[Done | Failed]] = {"done": Done, "failed": Failed}
        for folder, kind in kinds.items():
            for name, data in self.place.read_each(sorted(self.place.names(folder, ".json"))):
                if data is not None:
                    yield self._decoded(name, data, kind)

    def count_done(self) -> int:
        """How many recordings are done, in all runs and parts."""
        return sum(1 for _ in self.place.names("done", ".json"))

    def _read(self, name: str, kind: type[T]) -> T | None:
        data = self.place.read(name)
        return None if data is None else self._decoded(name, data, kind)

    def _decoded(self, name: str, data: bytes, kind: type[T]) -> T:
        try:
            return read_json(data, kind)
        except ValueError as error:
            shown = self.place.shown(name)
            raise InputError(
                f"{shown} is not a record of `ovavel localize` ({error}); delete it and run again"
            ) from error


def recording_id(recording: Recording, fingerprint: str | None) -> str:
    """A hash of the recording's name and content, see `fingerprint`; of its name alone where it cannot be read."""
    return hashlib.sha256(os.fsencode(recording.name) + b"\0" + (fingerprint or "").encode()).hexdigest()


def output_name(path: Path) -> str:
    """The name in `Done.outputs` of a result, by its path below the folder of results."""
    return encodable(path.as_posix())


def _encoded(record: Done | Failed) -> bytes:
    return to_json_bytes(record, indent=2) + b"\n"
