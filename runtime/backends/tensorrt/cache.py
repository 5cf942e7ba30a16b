"""Cache of built engines on disk: each is built once, even with several processes, and written atomically."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ovavel.runtime.backends import BuiltEngine
from ovavel.runtime.backends.tensorrt.build import build_engine
from ovavel.runtime.backends.tensorrt.library import Library
from ovavel.runtime.backends.tensorrt.plan import METADATA, BuildOptions, Engine, EngineFor, read_engine
from ovavel.runtime.bundle.hashed import GraphFiles, HashedFile
from ovavel.runtime.errors import BundleError, EngineError, OutputError
from ovavel.runtime.system.files import cache_folder, check_private, make_private_folder, output_error
from ovavel.runtime.system.progress import Progress, no_progress
from ovavel.runtime.system.untrusted import read_json

if TYPE_CHECKING:
    from ovavel.runtime.backends.tensorrt.cuda import Cuda

__all__ = ["Provided", "engines_folder", "found_options", "provide_engine"]

_WAIT_S = 0.2
_SPARE_BYTES = 128 * 2**20
"""Disk space of an engine beyond its graph's size: code for several batch sizes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provided:
    """An engine that exists and was checked."""

    folder: Path
    engine: Engine
    built: bool
    """Whether it was just built by this process."""

    def as_built(self) -> BuiltEngine:
        """Return the `BuiltEngine` that a backend reports."""
        evidence, precision = self.engine.evidence, self.engine.made_for.number_format
        return BuiltEngine(
            precision=self.engine.made_for.precision,
            sha256=self.engine.plan.sha256,
            products=sum(evidence.products.values()),
            # If the engine's layers could be read, they count rather than the network it was built from.
            in_precision=evidence.products.get(precision, 0) if evidence.found is None else evidence.found,
            built_now=self.built,
        )


def engines_folder() -> Path:
    """Return the default folder of engines: `$XDG_CACHE_HOME/ovavel/engines`."""
    return cache_folder() / "engines"


def found_options(root: Path, wanted: EngineFor) -> BuildOptions:
    """Return the options of the newest engine in `root`, but `wanted.options` if these exist or none does.

    Raises:
        InputError: another user may have written the engines.
    """
    check_private(root)
    if (root / wanted.key / METADATA).is_file():
        return wanted.options
    others = sorted(root.glob(f"{wanted.family}-*/{METADATA}"), key=lambda path: path.stat().st_mtime)
    for path in reversed(others):
        check_private(path.parent)
        check_private(path)
        with contextlib.suppress(OSError, ValueError, BundleError):  # the latter where it is not a regular file
            return read_json(bytes(HashedFile(path).data), Engine).made_for.options
    return wanted.options


def provide_engine(
    graph: Callable[[], GraphFiles],
    made_for: EngineFor,
    library: Library,
    *,
    root: Path,
    cuda: Cuda | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> Provided:
    """Return the engine for `made_for` in `root`; build it if necessary.

    Args:
        graph: loads the graph to build from; not called if nothing is built.
        made_for: the key of the engine.
        library: the library to build with.
        root: folder of engines.
        cuda: the GPU, if there is one.
        overwrite: build it even if it exists.
        progress: called with what is being built; not called where nothing is.

    Raises:
        EngineError: it cannot be built, or the existing one is damaged.
        InputError: another user may have written the existing one.
        OutputError: the folder cannot be written to.
    """
    folder, built = root / made_for.key, False
    for path in (root, folder, _timings(root, made_for), *(folder.iterdir() if folder.is_dir() else ())):
        check_private(path)
    if overwrite or not (folder / METADATA).is_file():
        make_private_folder(root)
        with _alone(root, made_for, progress):
            if overwrite or not (folder / METADATA).is_file():  # another process may have built it in the meantime
                _build_aside(graph(), folder, made_for, library, cuda, progress)
                built = True
    return Provided(folder=folder, engine=read_engine(folder, made_for), built=built)


def _build_aside(
    graph: GraphFiles, folder: Path, made_for: EngineFor, library: Library, cuda: Cuda | None, progress: Progress
) -> None:
    root = folder.parent
    for left in root.glob(f".{folder.name}.*.part"):  # left by a killed process: we hold the lock
        shutil.rmtree(left, ignore_errors=True)
    need, free = sum(entry.bytes for entry in made_for.sources) + _SPARE_BYTES, shutil.disk_usage(root).free
    if free < need:
        raise OutputError(f"{root} has {free / 1e9:.1f} GB free and the engine needs {need / 1e9:.1f} GB; make room")
    aside = root / f".{folder.name}.{secrets.token_hex(4)}.part"
    try:
        aside.mkdir(mode=0o700)
        with graph.private() as onnx:
            build_engine(
                onnx, aside, made_for, library, cuda=cuda, timing_cache=_timings(root, made_for), progress=progress
            )
        if folder.exists():
            shutil.rmtree(folder)
        aside.replace(folder)
    except OSError as error:
        raise output_error(folder, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _timings(root: Path, made_for: EngineFor) -> Path:
    machine = f"{made_for.version} {made_for.platform} {made_for.gpu} {made_for.compute_capability}"
    return root / f"timings-{hashlib.sha256(machine.encode()).hexdigest()[:16]}.cache"


@contextlib.contextmanager
def _alone(root: Path, made_for: EngineFor, progress: Progress) -> Iterator[None]:
    """Hold the lock of one engine; the system releases it if the process dies."""
    try:
        lock = os.open(root / f".{made_for.key}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise output_error(root, error) from error
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                progress(f"waiting: another process is building {made_for.graph}", 0.0)
                time.sleep(_WAIT_S)
            except OSError as error:
                raise EngineError(f"{root} cannot be locked ({error}); use a folder on a local disk") from error
        yield
    finally:
        os.close(lock)
