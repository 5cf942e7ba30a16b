"""Atomic changes of a bundle's vocabulary.

Changing the vocabulary touches three files, and a process may be killed between any two. So the new files are first
written beside the old ones, the manifest last, and then moved into place. Until the first is moved, the old vocabulary
is in force; from then on the change is committed, and the next process that opens the bundle completes it. Opening a
bundle whose files match its manifest moves nothing, whatever else is in its folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec.structs import replace

from ovavel.runtime.bundle.manifest import MANIFEST, FileEntry, Manifest
from ovavel.runtime.bundle.vocabulary import EMBEDDINGS, NAMES
from ovavel.runtime.errors import BundleError

__all__ = [
    "NEW",
    "clear_change",
    "complete_change",
    "file_entry",
    "is_cut_short",
    "locked",
    "move_in_place",
    "read_manifest",
]

NEW = ".new"
"""Suffix of a file that will replace the one without it."""
_AGAIN = "export or copy the bundle again"
_MANIFEST_LIMIT_BYTES = 4 * 2**20


def file_entry(path: Path) -> FileEntry:
    """Return size and SHA-256 of the file `path`."""
    with path.open("rb") as file:
        return FileEntry(sha256=hashlib.file_digest(file, "sha256").hexdigest(), bytes=path.stat().st_size)


@contextlib.contextmanager
def locked(root: Path, mode: int) -> Iterator[None]:
    """Hold the lock of the folder: readers share it, a change of the vocabulary holds it exclusively."""
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, mode)
        yield
    finally:
        os.close(folder)


def read_manifest(file: Path) -> tuple[bytes, Manifest]:
    """Read the manifest `file`; also return its bytes.

    Raises:
        BundleError: there is none, or it is damaged or of an unknown version.
        OSError: it cannot be read.
    """
    if not file.is_file():
        raise BundleError(f"{file.parent} is not a bundle: it has no {MANIFEST}. `ovavel bundle export` writes one")
    if file.stat().st_size > _MANIFEST_LIMIT_BYTES:
        raise BundleError(f"{file} is far too large for a bundle manifest; {_AGAIN}")
    data = file.read_bytes()
    return data, Manifest.decode(data, where=str(file))


def complete_change(root: Path, check: Callable[[bytes], None] | None = None) -> None:
    """Complete a change of the vocabulary that was interrupted between its moves.

    `check` gets the bytes of the new manifest before anything is moved, and raises if it must not be trusted.
    """
    if not (root / (MANIFEST + NEW)).exists():
        return
    with locked(root, fcntl.LOCK_SH):
        if not is_cut_short(root):
            return
    try:
        with locked(root, fcntl.LOCK_EX):
            if is_cut_short(root):
                if check is not None:
                    check(read_manifest(root / (MANIFEST + NEW))[0])
                move_in_place(root)
    except OSError as error:
        raise BundleError(
            f"a change of the vocabulary of {root} was interrupted and cannot be completed ({error}); "
            "run `ovavel vocab list` on it as a user who may write to it"
        ) from error


def is_cut_short(root: Path) -> bool:
    """Whether the vocabulary matches a new manifest that differs only in the vocabulary, not the current one."""
    try:
        _, old = read_manifest(root / MANIFEST)
        _, new = read_manifest(root / (MANIFEST + NEW))
    except BundleError:  # missing or damaged: opening the bundle reports that
        return False
    changing = (NAMES, EMBEDDINGS)
    if not all(name in each.files for name in changing for each in (old, new)):
        return False
    files = {**new.files, **{name: old.files[name] for name in changing}}
    renamed = replace(new, files=files, vocabulary=old.vocabulary)
    if renamed != old:
        return False
    moved = {name: _is_as_listed(root / name, new.files[name]) for name in changing}
    there = {name: moved[name] or _is_as_listed(root / (name + NEW), new.files[name]) for name in changing}
    stands = all(_is_as_listed(root / name, old.files[name]) for name in changing)
    return all(there.values()) and any(moved.values()) and not stands


def _is_as_listed(path: Path, entry: FileEntry) -> bool:
    return path.is_file() and path.stat().st_size == entry.bytes and file_entry(path) == entry


def clear_change(root: Path) -> None:
    """Remove the files left by a change that was interrupted before it was committed."""
    for name in (NAMES, EMBEDDINGS, MANIFEST):
        (root / (name + NEW)).unlink(missing_ok=True)


def move_in_place(root: Path) -> None:
    """Move the new files over the old ones. Raises OSError."""
    for name in (NAMES, EMBEDDINGS, MANIFEST):  # the manifest last: its move ends the change
        with contextlib.suppress(FileNotFoundError):  # moved already before the interruption
            (root / (name + NEW)).replace(root / name)
