"""The folder of results of a run that several processes and machines share: what is done, and what failed.

`done/<id>.json` is written when all results of a recording are in their place, so whatever dies meanwhile, a recording
either has all of them or is localized again. `failed/<id>.json` says why one has none. The id is a hash of the
recording's name and content. Files are written in `aside/` and renamed; two processes that localize the same recording
write the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from ovavel.runtime.errors import InputError
from ovavel.runtime.reporting.text import encodable
from ovavel.runtime.scale.job import Recording, Request
from ovavel.runtime.sinks.records import to_json_bytes
from ovavel.runtime.sources.media.fingerprint import fingerprint
from ovavel.runtime.system.files import atomic_write, make_folder
from ovavel.runtime.system.untrusted import read_json

__all__ = ["ASIDE", "Done", "EventSum", "Failed", "ResultFolder", "Summary", "output_name"]

_VERSION = 1
ASIDE = "aside"
_STALE_S = 86_400
"""What has lain in `aside/` for so long was left there by a process that died."""

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
    """Records and results below one folder. Everything may be called by many processes at once."""

    def __init__(self, path: Path) -> None:
        """Use the folder `path`, which need not exist."""
        self.path = path

    def prepare(self) -> None:
        """Create the folders of records, and remove what processes that died a day ago left aside.

        Raises:
            OutputError: they cannot be created.
        """
        for name in ("done", "failed", ASIDE):
            make_folder(self.path / name)
        for part in (self.path / ASIDE).iterdir():
            with contextlib.suppress(OSError):  # another process may remove it, too
                if time.time() - part.stat().st_mtime > _STALE_S:
                    part.unlink()

    def id(self, recording: Recording) -> str:
        """A hash of the recording's name and content; of its name alone where it cannot be read."""
        content = fingerprint(Path(recording.path)) or ""
        return hashlib.sha256(os.fsencode(recording.name) + b"\0" + content.encode()).hexdigest()

    def done(self, key: str) -> Done | None:
        """The record of what is done under the id `key`.

        Raises:
            InputError: it is damaged.
        """
        return _read(self.path / "done" / f"{key}.json", Done)

    def intact(self, done: Done, results: Iterable[Path]) -> bool:
        """Whether each of the `results`, by path below this folder, is where it was written, unchanged."""
        try:
            return all(
                hashlib.sha256((self.path / path).read_bytes()).hexdigest() == done.outputs.get(output_name(path))
                for path in results
            )
        except OSError:
            return False

    def write(self, key: str, done: Done, results: Mapping[Path, bytes]) -> None:
        """Write the results, by path below this folder, then the record; a failure on record is removed.

        Raises:
            OutputError: the disk is full, or a folder is not writable. There is no record then.
        """
        for name, data in results.items():
            path = self.path / name
            make_folder(path.parent)
            atomic_write(path, data, aside=self.path / ASIDE)
        self._write(self.path / "done" / f"{key}.json", done)
        with contextlib.suppress(OSError):
            (self.path / "failed" / f"{key}.json").unlink(missing_ok=True)

    def fail(self, key: str, recording: Recording, cause: str, *, attempts: int = 1) -> None:
        """Record that the recording could not be localized, `attempts` more times.

        Raises:
            OutputError: the record cannot be written.
        """
        path = self.path / "failed" / f"{key}.json"
        before = None
        with contextlib.suppress(InputError):  # a damaged record is replaced
            before = _read(path, Failed)
        tried = attempts + (before.attempts if before else 0)
        self._write(path, Failed(id=key, recording=encodable(recording.name), cause=encodable(cause), attempts=tried))

    def records(self) -> Iterator[Done | Failed]:
        """Every record there is, in the order of ids: first of what is done, then of what failed.

        Raises:
            InputError: one is damaged.
        """
        kinds: dict[str, type[Done | Failed]] = {"done": Done, "failed": Failed}
        for name, kind in kinds.items():
            for path in sorted((self.path / name).glob("*.json")):
                if found := _read(path, kind):
                    yield found

    def count_done(self) -> int:
        """How many recordings are done, by whomever."""
        try:
            with os.scandir(self.path / "done") as entries:
                return sum(1 for _ in entries)
        except OSError:
            return 0

    def _write(self, path: Path, record: Done | Failed) -> None:
        atomic_write(path, to_json_bytes(record, indent=2) + b"\n", aside=self.path / ASIDE)


def output_name(path: Path) -> str:
    """The name in `Done.outputs` of a result, by its path below the folder of results."""
    return encodable(path.as_posix())


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return read_json(path.read_bytes(), kind)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a record of `ovavel localize` ({error}); delete it and run again") from error
