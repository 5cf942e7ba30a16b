"""A folder with everything that export and runtime share: graphs, vocabulary, tokenizer and their hashes.

How the opened bytes are exactly the hashed ones: see `ovavel.runtime.bundle.hashed`.
How the vocabulary is changed: see `ovavel.runtime.bundle.change`.

Many lines: one class, whose methods share its lock and the files it has hashed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as replace_fields
from pathlib import Path, PurePosixPath

from msgspec.structs import replace

from ovavel.runtime.bundle.calibration import Calibration, Rule
from ovavel.runtime.bundle.change import (
    NEW,
    clear_change,
    complete_change,
    file_entry,
    is_cut_short,
    locked,
    move_in_place,
    read_manifest,
)
from ovavel.runtime.bundle.graphs import DECIDING, Graph
from ovavel.runtime.bundle.hashed import Contents, GraphFiles, check_files
from ovavel.runtime.bundle.manifest import ENGINE, MANIFEST, EconomyGate, FileEntry, Gate, Manifest
from ovavel.runtime.bundle.precision import (
    DOT_PRODUCTS,
    ENGINE_PRECISIONS,
    any_form,
    default_here,
    exact_here,
    of_graph,
)
from ovavel.runtime.bundle.signatures import PublicKey, check_signature
from ovavel.runtime.bundle.vocabulary import EMBEDDINGS, NAMES, Tokenizer, Vocabulary, check_names
from ovavel.runtime.errors import BundleError, DeviceError, OutputError, UsageError
from ovavel.runtime.system.files import atomic_write, output_error
from ovavel.runtime.system.hardware import cpu_features
from ovavel.runtime.system.paths import check_path
from ovavel.runtime.types import Sense

__all__ = ["Bundle", "file_entry"]

_AGAIN = "export or copy the bundle again"
_LARGEST_READ_BYTES = 512 * 2**20
"""Of vocabulary, tokenizer and golden outputs; the embeddings of 100,000 names take 400 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A complete bundle. `Bundle.open` returns one."""

    path: Path
    """The folder, absolute."""
    manifest: Manifest
    sha256: str
    """Hash of `manifest.json`, which holds the hashes of all other files: the identity of the bundle."""
    vocabulary: Vocabulary
    _contents: Contents = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_contents", Contents(self.path, self.manifest.files))

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, signed_by: str | None = None) -> Bundle:
        """Read and check the bundle in the folder `path`: the size of every file, and the hash of the vocabulary.

        Graphs, weights and golden outputs are hashed when they are loaded: see `load` and `check`. `signed_by` is a
        minisign public key, or the path of its file; the bundle must carry a signature by it.

        Raises:
            BundleError: it is not a bundle, or of an unknown version, incomplete or altered, or not signed as required;
                names the file.
            UsageError: `signed_by` is not a key.
            MissingExtraError: a signature has to be checked and cryptography is not installed.
        """
        key = PublicKey.read(signed_by) if signed_by is not None else None
        check_path(path, BundleError)
        root = Path(path).absolute()
        if not root.is_dir():
            what = "is a file, not a folder" if root.exists() else "does not exist"
            raise BundleError(f"no bundle at {path}: it {what}. `ovavel bundle export` writes one")
        try:
            complete_change(root, None if key is None else lambda manifest: check_signature(root, manifest, key))
            with locked(root, fcntl.LOCK_SH):
                return cls._read(root, key)
        except PermissionError as error:
            raise BundleError(f"the bundle {path} may not be read ({error}); change its permissions") from error
        except OSError as error:
            raise BundleError(f"the bundle {path} cannot be read ({error}); {_AGAIN}") from error

    @classmethod
    def _read(cls, root: Path, key: PublicKey | None) -> Bundle:
        data, manifest = read_manifest(root / MANIFEST)
        if key is not None:
            check_signature(root, data, key)
        check_files(root, manifest.files)
        needed = (NAMES, EMBEDDINGS, *manifest.encoders.tokenizers)
        for name in needed:
            if name not in manifest.files:
                raise BundleError(f"{root / MANIFEST} does not list {name}; {_AGAIN}")
            _check_readable(root, manifest, name)
        for name in {graph for variants in manifest.graphs.values() for graph in variants.values()}:
            if name not in manifest.files:
                raise BundleError(f"{root / MANIFEST} names the graph {name!r} but does not list it; {_AGAIN}")
        contents = Contents(root, manifest.files)
        files = contents.read(needed)
        vocabulary = Vocabulary.decode(bytes(files[NAMES].data), bytes(files[EMBEDDINGS].data), where=str(root))
        if wrong := _wrong_sizes(vocabulary, manifest):
            raise BundleError(f"{root / EMBEDDINGS} has {wrong}; {_AGAIN}")
        sha256 = hashlib.sha256(data).hexdigest()
        return cls(path=root, manifest=manifest, sha256=sha256, vocabulary=vocabulary)._holding(contents)

    def _holding(self, contents: Contents) -> Bundle:
        """Reuse what was read of this bundle before, so that it is not opened, hashed and parsed again."""
        object.__setattr__(self, "_contents", contents)
        return self

    def check(self) -> None:
        """Hash every file and read every graph, including those that are not opened.

        Raises:
            BundleError: a file was altered, or a graph is not a valid bundle graph; names it.
        """
        self._contents.read(self.manifest.files)
        self._contents.graphs(file for variants in self.manifest.graphs.values() for file in variants.values())

    def load(self, precision: Mapping[Graph, str]) -> dict[Graph, GraphFiles]:
        """Return the files of each graph in its precision, in memory; large ones are still being hashed.

        `GraphFiles.loading` refuses altered ones. Several calls share the files they have in common.

        Raises:
            BundleError: the bundle lacks a graph, a file was altered, or a graph is not a valid bundle graph.
        """
        names = {graph: self._name(graph, each) for graph, each in precision.items()}
        files = self._contents.graphs(names.values())
        return {graph: files[name] for graph, name in names.items()}

    def read(self, name: str) -> bytes:
        """Return the bytes of the file `name`, as they were hashed.

        Raises:
            BundleError: it is not listed, was altered, or is far too large to be read at once.
        """
        _check_readable(self.path, self.manifest, name)
        return bytes(self._contents.read([name])[name].data)

    def graph_files(self, graph: Graph, precision: str) -> tuple[str, ...]:
        """Return the names of a graph's files: itself, then its weights, in order. They are not hashed here.

        Raises:
            BundleError: the bundle does not contain it, or it is not a valid bundle graph.
        """
        return self._with_weights(self._name(graph, precision))

    def _with_weights(self, file: str) -> tuple[str, ...]:
        folder = PurePosixPath(file).parent
        return file, *((folder / each).as_posix() for each in sorted(self._contents.weights(file)))

    def graph(self, name: Graph, precision: str | None = None, *, engine: str = ENGINE) -> Path:
        """Return the path of graph `name` in `precision`, or in the one `engine` runs by default. `load` loads it.

        Raises:
            BundleError: the bundle does not contain it; lists those it contains.
        """
        return self.path / self._name(name, precision, engine=engine)

    def _name(self, name: Graph, precision: str | None, *, engine: str = ENGINE) -> str:
        variants = self.manifest.graphs.get(name)
        if not variants:
            held = ", ".join(self.manifest.graphs) or "none"
            raise BundleError(
                f"the bundle {self.path} has no {name} graph, only: {held}. Export it again to have all of them"
            )
        chosen = precision or self.precision(name, engine)
        if chosen not in variants:
            raise BundleError(
                f"the bundle {self.path} has no {chosen} {name} graph; its precisions are: {', '.join(variants)}. "
                f"Name one with --precision, or export the bundle again with {chosen} among them"
            )
        return variants[chosen]

    def precision(self, name: Graph, engine: str, asked: str | None = None) -> str:
        """Return the precision `engine` runs graph `name` in: as asked, else the bundle's default for it, or fp32.

        The requested precision is for vision and audio. Text and head run in it if they have it, else in fp32. On a
        CPU, "int8" and "int16" stand for the form that is exact there, and so does the bundle's default. A precision
        with pooled sound is that of the audio graph alone; the others run in its number format.

        Raises:
            UsageError: `engine` does not run the requested precision; lists those it runs.
            DeviceError: the requested precision, or every one in the bundle, can saturate on this CPU.
            BundleError: the bundle lacks the graph, or this precision of it; lists those it has.
        """
        runs = ENGINE_PRECISIONS.get(engine)
        if asked and runs and asked not in runs:
            raise UsageError(
                f"{engine} does not run {asked}; it runs {', '.join(runs)}. Name one of them, or another device"
            )
        asked = asked and of_graph(name, asked)
        there = self.manifest.graphs.get(name, {})
        exact_on, features = self.manifest.exact_on, cpu_features()
        exact = [each for each in there if exact_here(engine, each, exact_on.get(each, ()), features)]
        if asked is None:
            default = self.default_precision(name, engine)
            chosen = default_here(engine, default, exact, features) or default
        elif name not in ("vision", "audio") and asked not in there:
            chosen = "fp32"
        else:
            chosen = asked if asked in exact or any_form(asked) not in exact else any_form(asked)
        self.graph(name, chosen)
        if chosen not in exact:
            raise DeviceError(self._inexact(chosen, exact))
        return chosen

    def default_precision(self, name: Graph, engine: str) -> str:
        """Return the bundle's default precision of graph `name` for `engine`, where that is exact."""
        return self.manifest.precision.get(engine, {}).get(name, "fp32")

    def _inexact(self, precision: str, exact: Sequence[str]) -> str:
        """Return the error for a `precision` that is not exact on this CPU, with advice."""
        needs = " or ".join(self.manifest.exact_on.get(precision, DOT_PRODUCTS))
        instead = f"name another --precision ({', '.join(exact)}), or " if exact else ""
        return (
            f"{precision} of the bundle {self.path} is right only on CPUs with {needs}, and this one has "
            f"{', '.join(cpu_features()) or 'none of the features that matter, or hides them'}: sums of its products "
            f"would saturate. To run it here, {instead}export the bundle again with --cpu any"
        )

    def graphs_sha256(self, precision: Mapping[Graph, str]) -> str:
        """Return a hash over the files, weights included, of the graphs that a window passes through.

        `precision` is of each graph; only vision, audio and head count. Where an engine derives a precision itself, the
        hash is over all files of the graph.
        """
        digest = hashlib.sha256()
        for graph in DECIDING:
            variants = self.manifest.graphs.get(graph, {}) if graph in precision else {}
            for file in [variants[precision[graph]]] if precision.get(graph) in variants else sorted(variants.values()):
                for name in self._with_weights(file):
                    digest.update(f"{graph} {name} {self.manifest.files[name].sha256}\n".encode())
        return digest.hexdigest()

    def tokenizer(self, sense: Sense) -> Tokenizer:
        """Return the tokenizer that the text encoder of `sense` was made for.

        Raises:
            BundleError: the file was altered, or does not match this text encoder.
        """
        spec = self.manifest.encoders.of(sense)
        tokenizer = Tokenizer.decode(self.read(spec.tokenizer), where=str(self.path / spec.tokenizer))
        if tokenizer.context_length != spec.context_length:
            raise BundleError(
                f"{self.path / spec.tokenizer} gives {tokenizer.context_length} tokens a text, and the text encoder of "
                f"{sense} takes {spec.context_length}; {_AGAIN}"
            )
        return tokenizer

    def check_names(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return `names` without surrounding white space, if every text encoder can read them; see `check_names`.

        Raises:
            VocabularyError: one cannot be used.
        """
        checked = tuple(names)
        for sense in self.manifest.encoders.text_senses:
            checked = check_names(checked, tokenizer=self.tokenizer(sense), background=self.vocabulary.background)
        return checked

    def save_vocabulary(self, vocabulary: Vocabulary) -> Bundle:
        """Replace the bundle's vocabulary with `vocabulary` and return the changed bundle.

        It stays verified if every name in both has the same embedding as before; otherwise no gate is valid any more.

        If the process is killed at any point, the bundle has either the old vocabulary or the new one.

        Raises:
            UsageError: the embeddings do not have the bundle's sizes, or are not shared by the senses as its texts are.
            BundleError: another process modified the bundle since it was opened.
            OutputError: it could not be written; the old vocabulary is in force.
        """
        if wrong := _wrong_sizes(vocabulary, self.manifest):
            raise UsageError(f"the vocabulary has {wrong}; make it with the bundle's own text encoders")
        contents = vocabulary.encode()
        entries = {
            name: FileEntry(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data)) for name, data in contents.items()
        }
        noted, before = self.manifest.vocabulary, self.vocabulary.version
        if not vocabulary.agrees_with(self.vocabulary):
            noted = noted or before
        elif noted == before:
            noted = vocabulary.version
        manifest = replace(self.manifest, files={**self.manifest.files, **entries}, vocabulary=noted)
        data = manifest.encode()
        try:
            with locked(self.path, fcntl.LOCK_EX):
                self._check_unchanged()
                clear_change(self.path)
                try:
                    for name, content in contents.items():
                        atomic_write(self.path / (name + NEW), content)
                    atomic_write(self.path / (MANIFEST + NEW), data)
                except OutputError:
                    clear_change(self.path)
                    raise
                move_in_place(self.path)
        except OSError as error:
            raise output_error(self.path, error) from error
        sha256 = hashlib.sha256(data).hexdigest()
        changed = Bundle(path=self.path, manifest=manifest, sha256=sha256, vocabulary=vocabulary)
        return changed._holding(self._contents.relisted(manifest.files))

    def save_calibration(self, calibration: Calibration | None, rule: Rule | None = None) -> Bundle:
        """Replace the bundle's calibration with `calibration`, or none, and return the changed bundle.

        `rule` decides from then on, and `calibration` is for its scores; None keeps the bundle's own rule.
        If the process is killed at any point, the bundle has either the old calibration and rule or the new ones.

        Raises:
            BundleError: another process modified the bundle since it was opened.
            OutputError: it could not be written; the old calibration is in force.
        """
        manifest = self.manifest if rule is None else self.manifest.decided(rule)
        return self._save_manifest(manifest.calibrated(calibration))

    def save_gates(self, gates: Iterable[Gate]) -> Bundle:
        """Write `gates` into the manifest, each replacing an older one of its kind; return the changed bundle.

        Raises:
            BundleError: another process modified the bundle since it was opened.
            OutputError: it could not be written; nothing has changed.
        """
        return self._save_manifest(self.manifest.gated(gates))

    def save_economy_gate(self, gate: EconomyGate) -> Bundle:
        """Write `gate` into the manifest, replacing the one of the same rule; return the changed bundle.

        Raises:
            BundleError: another process modified the bundle since it was opened.
            OutputError: it could not be written; nothing has changed.
        """
        return self._save_manifest(self.manifest.economized(gate))

    def _save_manifest(self, manifest: Manifest) -> Bundle:
        """Write a manifest that lists the same files."""
        data = manifest.encode()
        try:
            with locked(self.path, fcntl.LOCK_EX):
                self._check_unchanged()
                atomic_write(self.path / MANIFEST, data)
        except OSError as error:
            raise output_error(self.path, error) from error
        changed = replace_fields(self, manifest=manifest, sha256=hashlib.sha256(data).hexdigest())
        return changed._holding(self._contents)

    def _check_unchanged(self) -> None:
        """Refuse to continue if another process modified the bundle since it was opened, or was killed doing so."""
        unchanged = hashlib.sha256((self.path / MANIFEST).read_bytes()).hexdigest() == self.sha256
        if not unchanged or is_cut_short(self.path):
            raise BundleError(f"the bundle {self.path} was changed by somebody else meanwhile; try again")


def _wrong_sizes(vocabulary: Vocabulary, manifest: Manifest) -> str | None:
    """Describe how text embeddings do not match the encoders; None if they do."""
    encoders, embeddings = manifest.encoders, vocabulary.embeddings
    if embeddings.sizes != encoders.sizes:
        has, needs = (" and ".join(map(str, each)) for each in (embeddings.sizes, encoders.sizes))
        return f"text embeddings of size {has} for audio and vision, and the encoders have {needs}"
    if encoders.shared_text and not embeddings.is_shared:
        return "text embeddings for each sense, and the bundle has one text encoder for both"
    return None


def _check_readable(root: Path, manifest: Manifest, name: str) -> None:
    """Refuse a file that is far larger than its kind needs, before it is hashed and copied into memory."""
    if name in manifest.files and manifest.files[name].bytes > _LARGEST_READ_BYTES:
        raise BundleError(f"{root / name} is far too large; {_AGAIN}, or do not trust it")
