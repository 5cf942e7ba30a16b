"""Files that are opened once and hashed, so that exactly the hashed bytes are loaded.

Backends get a bundle's graphs as memory, never as a path: after hashing, a path may point to another file.

Large files of weights are hashed while a backend loads them: `GraphFiles.loading` ends only when the hash is known and
right, and when the file has not been written to since it was opened. So nothing is computed with other weights.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import stat
import tempfile
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from ovavel.runtime.bundle.external_data import ExternalTensor, external_data
from ovavel.runtime.bundle.manifest import MANIFEST, FileEntry
from ovavel.runtime.errors import BundleError
from ovavel.runtime.system.memory import freed_at_once

__all__ = ["Contents", "GraphFiles", "HashedFile", "check_files", "read_graph"]

_AGAIN = "export or copy the bundle again"
_COPIED_BYTES = 32 * 2**20
"""Files up to this size are read into memory; larger ones are mapped, so that several sessions share the pages."""

_BLOCK_BYTES = 4 * 2**20
"""Bytes of a mapped file hashed at a time; a multiple of every page size."""
_LET_GO_S = 0.005

State: TypeAlias = tuple[int, ...]


class HashedFile:
    """A file's bytes and their hash, which is computed in a thread of its own where the file is large."""

    def __init__(self, path: Path, expected: FileEntry | None = None) -> None:
        """Open the file `path` and begin to hash it; `expected` is what `check` compares with.

        Raises:
            OSError: it cannot be read.
            BundleError: it is not a regular file.
        """
        self.path = path
        self._expected = expected
        self._hash: Future[str] = Future()
        # A pipe instead of a file would wait for a writer.
        self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(self._file)
            if not stat.S_ISREG(found.st_mode):
                raise BundleError(f"{path} is not a regular file; {_AGAIN}")
            self._state = _state(found)
            self.data: bytes | mmap.mmap
            if found.st_size <= _COPIED_BYTES:
                with os.fdopen(self._file, "rb", closefd=False) as file:
                    self.data = file.read()
                self._hash.set_result(hashlib.sha256(self.data).hexdigest())
            else:
                self.data = mmap.mmap(self._file, 0, access=mmap.ACCESS_READ)
                threading.Thread(
                    target=_hash_in_blocks, args=(self.data, self._hash), name="ovavel-hashing", daemon=True
                ).start()
        except BaseException:
            os.close(self._file)
            raise
        weakref.finalize(self, os.close, self._file)

    @property
    def entry(self) -> FileEntry:
        """Hash and size; waits until they are known."""
        return FileEntry(sha256=self._hash.result(), bytes=len(self.data))

    def check(self) -> None:
        """Refuse a file that is not the expected one; waits until its hash is known.

        Raises:
            BundleError: it has another hash or size.
        """
        if self.entry != (self._expected or self.entry):
            raise BundleError(f"{self.path} was altered: its hash is not the one in {MANIFEST}; {_AGAIN}")

    @property
    def descriptor_path(self) -> str:
        """A path of the file that was hashed, even if its name now refers to another file."""
        return f"/proc/{os.getpid()}/fd/{self._file}"

    def check_unchanged(self) -> None:
        """Refuse a file that was written to since it was opened; a renamed file is hashed again.

        Raises:
            BundleError: its bytes have changed.
        """
        state = _state(os.fstat(self._file))
        if state == self._state:
            return
        with open(self.descriptor_path, "rb") as file:  # noqa: PTH123 - a place of its own in the file
            if hashlib.file_digest(file, "sha256").hexdigest() != self.entry.sha256:
                raise BundleError(f"{self.path} was changed while it was read; {_AGAIN}")
        self._state = state

    def let_go(self) -> None:
        """Let the system reclaim the memory of a mapped file; it is read again when needed."""
        if isinstance(self.data, mmap.mmap):
            self.data.madvise(mmap.MADV_DONTNEED)


def _hash_in_blocks(data: mmap.mmap, found: Future[str]) -> None:
    """Hash a mapped file with only one block resident at a time, because its pages count as this process's."""
    try:
        digest = hashlib.sha256()
        with memoryview(data) as view:
            for at in range(0, len(data), _BLOCK_BYTES):
                digest.update(view[at : at + _BLOCK_BYTES])
                data.madvise(mmap.MADV_DONTNEED, at, min(_BLOCK_BYTES, len(data) - at))
        found.set_result(digest.hexdigest())
    except BaseException as error:  # noqa: BLE001  raised where the hash is needed
        found.set_exception(error)


def _state(found: os.stat_result) -> State:
    """Values that change with every write to a file and cannot be reset."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphFiles:
    """A graph and its weights in memory: everything a backend needs to load it, within `loading`."""

    path: Path
    """Where the graph was read from; only for messages."""
    graph: HashedFile
    weights: Mapping[str, HashedFile]
    """By the names that the graph uses for them."""
    tensors: tuple[ExternalTensor, ...]
    """The initializers that are in `weights`; the graph contains all others itself."""

    @contextlib.contextmanager
    def loading(self) -> Iterator[None]:
        """Load the graph within this context, at whose end altered files are refused; memory is given back.

        Nothing may be computed with the graph before this context ends.

        Raises:
            BundleError: a file is not the listed one, or was changed since it was opened.
        """
        files = (self.graph, *self.weights.values())
        mapped = [file for file in files if isinstance(file.data, mmap.mmap)]
        with freed_at_once(), _letting_go(mapped) if mapped else contextlib.nullcontext():
            yield
        for file in files:
            file.check()
            file.check_unchanged()

    @contextlib.contextmanager
    def private(self) -> Iterator[Path]:
        """Provide a private folder for libraries that only read paths: a copy of the graph, links to weights.

        The links lead to the hashed files themselves, not to their names.
        """
        with tempfile.TemporaryDirectory(prefix="ovavel-") as folder, self.loading():
            path = Path(folder) / self.path.name
            path.write_bytes(self.graph.data)
            for name, file in self.weights.items():
                (Path(folder) / name).symlink_to(file.descriptor_path)
            yield path


@contextlib.contextmanager
def _letting_go(files: Sequence[HashedFile]) -> Iterator[None]:
    done = threading.Event()
    thread = threading.Thread(target=_let_go_until, args=(done, files), name="ovavel-loading", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _let_go_until(done: threading.Event, files: Sequence[HashedFile]) -> None:
    """Keep the pages of mapped files, each of which loading reads once, from adding up."""
    while True:
        last = done.wait(_LET_GO_S)
        for file in files:
            file.let_go()
        if last:
            return


def read_graph(path: Path) -> GraphFiles:
    """Read a graph that this process, or one that it started, has written.

    Raises:
        BundleError: it or its weights cannot be read.
    """
    try:
        graph = HashedFile(path)
        tensors = external_data(graph.data, str(path))
        weights = {name: HashedFile(path.parent / name) for name in _locations(tensors)}
        return GraphFiles(path=path, graph=graph, weights=weights, tensors=tensors)
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error}); {_AGAIN}") from error


class Contents:
    """The files of one bundle: each is opened and hashed when it is first needed, and then never again.

    Several threads may use it.
    """

    def __init__(self, root: Path, files: Mapping[str, FileEntry]) -> None:
        """Check the files in `root` against the manifest's `files`."""
        self._root = root
        self._entries = files
        self._files: dict[str, HashedFile] = {}
        self._tensors: dict[str, tuple[ExternalTensor, ...]] = {}
        self._lock = threading.RLock()

    def relisted(self, entries: Mapping[str, FileEntry]) -> Contents:
        """Return the contents of the same folder with a changed list; files listed as before are not read again."""
        changed = Contents(self._root, entries)
        with self._lock:
            # A hostile graph may name the changed files as weights; it was checked against their old sizes.
            same = {name for name, entry in entries.items() if self._entries.get(name) == entry}
            changed._files = {name: file for name, file in self._files.items() if name in same}
            changed._tensors = {
                name: tensors
                for name, tensors in self._tensors.items()
                if same.issuperset([name, *(_beside(name, each) for each in _locations(tensors))])
            }
        return changed

    def read(self, names: Iterable[str]) -> dict[str, HashedFile]:
        """Return the files `names`, each hashed and matching the list.

        Raises:
            BundleError: one is not listed, missing or altered; names it.
        """
        files = self._opened(names)
        for file in files.values():
            file.check()
        return files

    def _opened(self, names: Iterable[str]) -> dict[str, HashedFile]:
        """Return the files `names`, of which large ones may still have to be hashed."""
        wanted = list(dict.fromkeys(names))
        with self._lock:
            new = [name for name in wanted if name not in self._files]
            if len(new) > 1:
                with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
                    self._files.update(zip(new, pool.map(self._open, new), strict=True))
            elif new:
                self._files[new[0]] = self._open(new[0])
            return {name: self._files[name] for name in wanted}

    def graphs(self, names: Iterable[str]) -> dict[str, GraphFiles]:
        """Return the graphs in the files `names`, with their weights; the hash of large ones is checked when loading.

        Raises:
            BundleError: a file is not listed, missing or altered, or a graph is not a valid bundle graph.
        """
        wanted = list(dict.fromkeys(names))
        weights = {name: self.weights(name) for name in wanted}
        files = self._opened([*wanted, *(_beside(name, each) for name in wanted for each in weights[name])])
        return {
            name: GraphFiles(
                path=self._root / name,
                graph=files[name],
                weights={each: files[_beside(name, each)] for each in weights[name]},
                tensors=self._tensors[name],
            )
            for name in wanted
        }

    def weights(self, name: str) -> list[str]:
        """Return, in order, the names that the graph in the file `name` uses for its files of weights.

        Raises:
            BundleError: it is not listed, missing or altered, or not a valid bundle graph.
        """
        with self._lock:
            if name not in self._tensors:
                beside = {
                    entry.rpartition("/")[2]: listed.bytes
                    for entry, listed in self._entries.items()
                    if entry.rpartition("/")[0] == name.rpartition("/")[0]
                }
                (file,) = self.read([name]).values()
                self._tensors[name] = external_data(file.data, str(self._root / name), beside)
            return _locations(self._tensors[name])

    def _open(self, name: str) -> HashedFile:
        path = self._root / name
        if name not in self._entries:
            raise BundleError(f"{self._root / MANIFEST} does not list {name!r}; {_AGAIN}")
        try:
            file = HashedFile(path, self._entries[name])
        except PermissionError as error:
            raise BundleError(f"{path} may not be read ({error}); change its permissions") from error
        except (OSError, ValueError) as error:  # the latter where it became shorter meanwhile
            raise BundleError(f"{path} cannot be read ({error}); {_AGAIN}") from error
        if not isinstance(file.data, mmap.mmap):
            file.check()
        return file


def check_files(root: Path, files: Mapping[str, FileEntry]) -> None:
    """Check that every listed file is inside `root` and of the listed size; nothing is hashed.

    Raises:
        BundleError: one is not; names it.
    """
    real_root = os.path.realpath(root)
    for name, entry in files.items():
        parts = PurePosixPath(name).parts
        if not parts or name != "/".join(parts) or ".." in parts or "\\" in name or "\0" in name or name == MANIFEST:
            raise BundleError(f"{root / MANIFEST} lists {name!r}, which points outside the bundle; do not trust it")
        file = root / name
        if not Path(os.path.realpath(file)).is_relative_to(real_root):
            raise BundleError(
                f"{file} is a link that leads out of the bundle; do not trust it, or copy the bundle without links"
            )
        if not file.is_file():
            raise BundleError(f"{file} is missing; {_AGAIN}")
        size = file.stat().st_size
        if size != entry.bytes:
            raise BundleError(f"{file} has {size} bytes and should have {entry.bytes}; {_AGAIN}")


def _locations(tensors: Iterable[ExternalTensor]) -> list[str]:
    return sorted({tensor.location for tensor in tensors})


def _beside(name: str, location: str) -> str:
    """Return the manifest's name of the file `location` beside the file `name`."""
    folder, slash, _ = name.rpartition("/")
    return f"{folder}{slash}{location}"
