"""Events with all that is known of them in a ZIP archive, which is made while it is sent."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from ovavel.service.store.database import Database, rows
from ovavel.service.store.events import EventBody, log_of
from ovavel.service.store.seconds import Why, read_seconds

__all__ = ["archived"]


class _Exported(Struct, kw_only=True):
    """An event in an export."""

    event: EventBody
    log: tuple[EventBody, ...]
    seconds: tuple[Why, ...]
    files: tuple[str, ...]


class _Sent:
    """A file that is only written, and given away part by part."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: Any) -> int:
        """Take a part."""
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing has to be done."""

    def take(self) -> bytes:
        """What was written since the last time."""
        found, self._parts = b"".join(self._parts), []
        return found


def archived(store: Database, events: Sequence[EventBody]) -> Iterator[bytes]:
    """The archive in parts of one event each: pictures, then `events.json`. What was deleted meanwhile is left out."""
    sent, files = _Sent(), dict[str, list[str]]()
    with zipfile.ZipFile(sent, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[call-overload]
        for event in events:
            files[event.id] = _add_pictures(store, event, archive)
            yield sent.take()
        with archive.open("events.json", "w", force_zip64=True) as out:
            before = b"["
            for event in events:
                log = tuple(log_of(store.read, event.id))
                if not log:
                    continue
                seconds = tuple(read_seconds(store.read, event.id))
                found = _Exported(event=event, log=log, seconds=seconds, files=tuple(files[event.id]))
                out.write(before + b"\n" + msgspec.json.format(msgspec.json.encode(found), indent=1))
                before = b","
                yield sent.take()
            out.write(b"\n]\n" if before == b"," else b"[]\n")
    yield sent.take()


def _add_pictures(store: Database, event: EventBody, archive: zipfile.ZipFile) -> list[str]:
    names: list[str] = []
    query = "SELECT path FROM asset WHERE event_id = ? AND kind = 'snapshot' AND state = 'ready'"
    for (path,) in rows(store.read, query, (event.id,)):
        name = f"{event.id}{Path(path).suffix}"
        try:
            picture = (store.folder / path).read_bytes()
        except OSError:  # it was removed meanwhile
            continue
        archive.writestr(name, picture, zipfile.ZIP_STORED)
        names.append(name)
    return names
