"""What becomes of a damaged bundle, found out in a process of its own: libraries may crash, hang or take all memory."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle.bundle import Bundle, file_entry
from ovavel.runtime.bundle.graphs import Graph
from ovavel.runtime.bundle.manifest import MANIFEST
from ovavel.runtime.bundle.vocabulary import TOKENIZER
from ovavel.runtime.errors import OvavelError
from ovavel.runtime.verification.gates import require_gate
from ovavel.runtime.verification.golden import GOLDEN, Golden
from support.bundle_mutations import OUTSIDE, UNLISTED, mutated
from support.opened_files import OpenedFiles

_MOST_BYTES = 3 * 2**29
"""More than before, at any time; golden outputs may unpack to half a gigabyte."""
_MOST_ADDRESSES = 64 * 2**30
"""So that what takes far more ends here and does not stop the machine; libraries take gigabytes for nothing."""
_HANGS_AFTER_S = 120
_GRAPHS: tuple[Graph, ...] = ("vision", "audio", "text", "head")
_DECIDING: tuple[Graph, ...] = ("vision", "audio", "head")
_FP32 = dict.fromkeys(_DECIDING, "fp32")


class Judge:
    """Damages copies of the bundle `shipped` in `folder` and says what became of each."""

    def __init__(self, shipped: Path, folder: Path) -> None:
        self._shipped, self._folder = shipped, folder
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._shipped, self._folder), daemon=True)
        self._process.start()
        theirs.close()

    def fault(self, name: str, seed: int, *, relisted: bool, backend: str = "onnxruntime") -> str | None:
        """Damage the file `name` and open the bundle; return what is wrong with what happened, or None.

        Where it is `relisted`, the manifest has its new size and hash, as in a bundle that somebody made.
        """
        self._connection.send((name, seed, relisted, backend))
        hangs = not self._connection.poll(_HANGS_AFTER_S)
        try:
            if not hangs:
                return self._connection.recv()  # type: ignore[no-any-return]
        except EOFError:
            self._process.join()
        code = self._process.exitcode
        self.close()
        self._start()
        return "it hangs" if hangs else f"the process ended with {code}"

    def close(self) -> None:
        self._connection.close()
        self._process.kill()
        self._process.join()


@contextlib.contextmanager
def judging(shipped: Path, folder: Path) -> Iterator[Judge]:
    judge = Judge(shipped, folder)
    try:
        yield judge
    finally:
        judge.close()


def _serve(connection: Connection, shipped: Path, folder: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_ADDRESSES, _MOST_ADDRESSES))
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    os.chdir(folder)
    warnings.simplefilter("error")
    copy = Path(shutil.copytree(shipped, folder / "bundle", dirs_exist_ok=True))
    for bait in (copy / UNLISTED, folder / OUTSIDE):
        bait.write_bytes(bytes(2**22))
    court = _Court(shipped, copy)
    with contextlib.suppress(EOFError):
        while True:
            name, seed, relisted, backend = connection.recv()
            connection.send(court.fault(name, seed, relisted, backend))


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class _Court:
    def __init__(self, shipped: Path, copy: Path) -> None:
        self._shipped, self._copy = shipped, copy
        self._opened = OpenedFiles([copy, copy.parent])
        self._expected: dict[tuple[str, Graph], list[Any]] = {}
        self._before = Bundle.open(shipped)
        self._most_bytes = _peak_bytes() + _MOST_BYTES

    def fault(self, name: str, seed: int, relisted: bool, backend: str) -> str | None:
        before = (self._shipped / name).read_bytes()
        after = mutated(name, before, Random(f"{name} {seed}"))
        (self._copy / name).write_bytes(after)
        if relisted and name != MANIFEST:
            content = json.loads((self._shipped / MANIFEST).read_bytes())
            entry = file_entry(self._copy / name)
            content["files"][name] = {"sha256": entry.sha256, "bytes": entry.bytes}
            (self._copy / MANIFEST).write_text(json.dumps(content))
        self._opened.take()
        try:
            wrong = self._judge(name, backend)
            if not wrong and not relisted and name != MANIFEST and before != after:
                wrong = "its hash is another one, and it was accepted"
        except OvavelError as error:
            said = str(error)
            wrong = None if said.isprintable() and 10 < len(said) < 2000 else f"odd words: {said!r}"
        except BaseException as error:
            wrong = f"not of the tree: {error!r}"
        finally:
            opened = self._opened.take()
            for changed in (name, MANIFEST):
                shutil.copyfile(self._shipped / changed, self._copy / changed)
        if not wrong and _peak_bytes() > self._most_bytes:
            wrong = f"it takes {_peak_bytes() / 2**30:.1f} GiB"
        return wrong or self._read_other_bytes(opened)

    def _judge(self, name: str, backend: str) -> str | None:
        bundle = Bundle.open(self._copy)
        bundle.read(name) if name != MANIFEST else bundle.check()
        if name in (TOKENIZER, MANIFEST):
            bundle.tokenizer("vision").encode(["dog barking", "a" * 500])
        if name in (GOLDEN, MANIFEST):
            Golden.load(bundle)
        graphs = [each for each in _GRAPHS if name.startswith(each)]
        if name == MANIFEST and bundle.graphs_sha256(_FP32) != self._before.graphs_sha256(_FP32):
            graphs = list(_DECIDING)  # else they are the same, byte for byte
        for each in graphs:
            found = self._run(bundle, backend, each)
            same = all(np.array_equal(a, b) for a, b in zip(found, self._run_before(backend, each), strict=True))
            if not same and each != "text":  # which embeds new names, and decides nothing
                self._require_gate(bundle, backend)
                return "it decides otherwise and counts as verified"
        if bundle.vocabulary.version != self._before.vocabulary.version:
            self._require_gate(bundle, backend)
            return "it has other names or embeddings and counts as verified"
        return None

    def _run_before(self, backend: str, graph: Graph) -> list[Any]:
        if (backend, graph) not in self._expected:
            self._expected[backend, graph] = self._run(self._before, backend, graph)
        return self._expected[backend, graph]

    def _run(self, bundle: Bundle, backend: str, graph: Graph) -> list[Any]:
        random = np.random.default_rng(0)
        with contextlib.closing(
            open_backend(bundle, name=backend, device="cpu", threads=1, graphs=(graph,), precision="fp32")
        ) as opened:
            if graph == "vision":
                return [opened.vision(random.standard_normal((1, 3, 224, 224)).astype(np.float32))]
            if graph == "audio":
                return [opened.audio(random.standard_normal((1, 1, 128, 204)).astype(np.float32))]
            if graph == "text":
                return [opened.text(random.integers(1, 300, (1, 77)), "vision")]
            rows = random.standard_normal((2, 1, 10, bundle.manifest.encoders.vision.embedding_size)).astype(np.float32)
            rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
            return list(opened.head(*rows, self._before.vocabulary.embeddings))

    def _require_gate(self, bundle: Bundle, backend: str) -> None:
        with contextlib.closing(
            open_backend(bundle, name=backend, device="cpu", threads=1, graphs=("head",), precision="fp32")
        ) as opened:
            info = replace(opened.info, precision=_FP32)
        require_gate(bundle, info, allow_unverified=False)

    def _read_other_bytes(self, opened: Counter[Path]) -> str | None:
        """What was opened besides the files that the manifest lists, or again after it was hashed."""
        listed = json.loads((self._shipped / MANIFEST).read_bytes())["files"]
        for path, times in opened.items():
            if path.parent == self._copy and path.name in (*listed, MANIFEST):
                if times > 1:
                    return f"{path.name} was opened {times} times"
            elif path not in (self._copy, self._copy.parent):
                return f"{path} was opened"
        return None
