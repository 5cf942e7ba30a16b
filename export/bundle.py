"""Writes a bundle: whole and verified, or not at all."""

from __future__ import annotations

import dataclasses
import gc
import importlib
import importlib.metadata
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
from numpy.typing import NDArray

from ovavel.export.graphs import OPSET, Precision, export_graph
from ovavel.export.verify import check_graph, encoder_inputs, head_inputs, reference
from ovavel.runtime.backends import Graph
from ovavel.runtime.bundle import Bundle, file_entry
from ovavel.runtime.calibration import Calibration
from ovavel.runtime.errors import CheckpointError, ExportError, MissingExtraError, UsageError
from ovavel.runtime.files import output_error
from ovavel.runtime.manifest import (
    ENGINE,
    FORMAT_VERSION,
    MANIFEST,
    Fusion,
    Manifest,
    Model,
    Parity,
    ParityCheck,
    Preprocessing,
)
from ovavel.runtime.vocabulary import TOKENIZER, Tokenizer, Vocabulary, check_names

if TYPE_CHECKING:
    from torch import nn

    from ovavel.training.imagebind import ImageBindConfig
    from ovavel.training.temporal import TemporalHead

__all__ = ["BACKGROUND", "IMAGEBIND_LICENCE", "Progress", "write_bundle"]

# B batch, D embedding size, C classes with the background last

BACKGROUND = "other"
IMAGEBIND_LICENCE = (
    "ImageBind's weights are under CC BY-NC-SA 4.0 (https://creativecommons.org/licenses/by-nc-sa/4.0/): "
    "attribution, no commercial use, and what is made from them stays under the same licence"
)

Progress = Callable[[str, float], None]
"""Told what happens now, and which share of the whole, in [0, 1], is done."""

_COMPARED = ("onnx", "onnxruntime", "onnxscript", "torch")
_TEXT_BATCH = 16
_SHARES = {"vision": 0.45, "audio": 0.1, "text": 0.3, "head": 0.05}
"""About how much of the time each graph takes; hashing takes the rest."""


def write_bundle(
    weights: str | os.PathLike[str],
    out: str | os.PathLike[str],
    names: Sequence[str],
    *,
    head: str | os.PathLike[str] | None = None,
    config: ImageBindConfig | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    precision: Precision = "fp32",
    background: str = BACKGROUND,
    licence: str = IMAGEBIND_LICENCE,
    overwrite: bool = False,
    progress: Progress = lambda _stage, _share: None,
) -> Bundle:
    """Export ImageBind and a temporal head into the folder `out`, verify the result and return it.

    Everything is written into a hidden folder beside `out`, which is renamed at the very end and removed on any error.

    Args:
        weights: ImageBind checkpoint, `.pth` or safetensors.
        out: folder to make.
        names: class names without the background.
        head: checkpoint of a temporal head; without one the bundle decides without fine-tuning.
        config: size of the model; the published one by default.
        tokenizer: `tokenizer.json` of a model with a tokenizer of its own; CLIP's by default.
        precision: of the vision and audio encoders; the others are small or run rarely and stay in fp32.
        background: name of no event.
        licence: of `weights`, in a sentence.
        overwrite: replace an older bundle at `out`.
        progress: told about each stage.

    Raises:
        CheckpointError: `weights` or `head` is not what it should be.
        VocabularyError: a name cannot be used.
        UsageError: `out` exists.
        ExportError: a graph misses its tolerance or loses too much in int8, the head does not score by the geometric
            mean, or the disk is too full.
        OutputError: the bundle cannot be written.
    """
    need_libraries()
    from ovavel.training.calibrated import read_calibration
    from ovavel.training.encoders import model_tokenizer
    from ovavel.training.imagebind import ImageBindConfig
    from ovavel.training.temporal import TemporalHead

    weights, out, config = Path(weights), Path(out).absolute(), config or ImageBindConfig.huge()
    _check_place(out, config, precision, overwrite=overwrite)
    if not weights.is_file():
        raise CheckpointError(f"there is no checkpoint {weights}")
    temporal = TemporalHead.load(Path(head)) if head else TemporalHead(0, config.embedding_size).eval()
    if temporal.dim != config.embedding_size:
        raise UsageError(
            f"the head {head} is for embeddings of size {temporal.dim}, and the model {config.name!r} makes "
            f"{config.embedding_size}: they do not belong together"
        )
    if temporal.score != "geometric":
        raise ExportError(
            f"the head {head} scores by {temporal.score}, an ablation that the runtime does not do; "
            "export a head with the score 'geometric'"
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            bundle = _Writer(aside, weights, config, precision, progress).write(
                names,
                temporal,
                head=Path(head) if head else None,
                calibration=read_calibration(head) if head else None,
                tokenizer_json=model_tokenizer(tokenizer, config),
                background=background,
                licence=licence,
            )
            progress("putting it in its place", 1.0)
            _put_in_place(aside, out)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise output_error(out, error) from error
    return dataclasses.replace(bundle, path=out)


class _Writer:
    """Fills a folder with a bundle. One encoder at a time is in memory."""

    def __init__(
        self, folder: Path, weights: Path, config: ImageBindConfig, precision: Precision, progress: Progress
    ) -> None:
        self._folder = folder
        self._weights = weights
        self._config = config
        self._precision = precision
        self._progress = progress
        self._done = 0.0
        self._checks: list[ParityCheck] = []
        self._graphs: dict[Graph, dict[str, str]] = {}

    def write(
        self,
        names: Sequence[str],
        temporal: TemporalHead,
        *,
        head: Path | None,
        calibration: Calibration | None,
        tokenizer_json: bytes,
        background: str,
        licence: str,
    ) -> Bundle:
        (self._folder / TOKENIZER).write_bytes(tokenizer_json)
        tokenizer = Tokenizer.open(self._folder / TOKENIZER)
        names = (*check_names(names, tokenizer=tokenizer, background=background), background)
        text = self._encoders(tokenizer, names)
        vocabulary = Vocabulary(names=names, embeddings=text)
        vocabulary.save(self._folder)
        self._head(temporal, vocabulary)
        self._progress("hashing every file", self._done)
        versions = {library: importlib.metadata.version(library) for library in _COMPARED}
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            ovavel_version=importlib.metadata.version("ovavel"),
            model=Model(
                name=f"imagebind_{self._config.name}",
                weights_sha256=file_entry(self._weights).sha256,
                licence=licence,
                config=self._config.to_dict(),
                head_layers=temporal.blocks,
                head_sha256=file_entry(head).sha256 if head else None,
            ),
            embedding_size=self._config.embedding_size,
            graphs=self._graphs,
            precision={ENGINE: {graph: next(iter(files)) for graph, files in self._graphs.items()}},
            files={file.name: file_entry(file) for file in sorted(self._folder.iterdir())},
            preprocessing=Preprocessing(),
            fusion=Fusion(audio_scale=temporal.audio_scale),
            opset=OPSET,
            parity=Parity(versions=versions, checks=tuple(self._checks)),
        ).calibrated(calibration)
        (self._folder / MANIFEST).write_bytes(manifest.encode())
        return Bundle.open(self._folder)

    def _encoders(self, tokenizer: Tokenizer, names: Sequence[str]) -> NDArray[np.float32]:
        """Export the encoders one after the other; return the text embeddings (C, D) of `names`."""
        from ovavel.training.imagebind import ImageBind, Modality

        text = np.zeros((0, self._config.embedding_size), np.float32)
        for modality in get_args(Modality):
            self._progress(f"{modality}: loading the weights", self._done)
            tower = ImageBind.load(self._weights, self._config, modalities=(modality,)).towers[modality]
            if modality == "text":
                text = self._embed(tower, tokenizer, names)
            precision: Precision = "fp32" if modality == "text" else self._precision
            self._export(modality, tower, encoder_inputs(modality, tokenizer, names, precision), precision)
            del tower
            gc.collect()
        return text

    def _embed(self, tower: nn.Module, tokenizer: Tokenizer, names: Sequence[str]) -> NDArray[np.float32]:
        tokens = tokenizer.encode(names)
        rows = []
        for start in range(0, len(tokens), _TEXT_BATCH):
            self._progress(f"text: {start} of {len(tokens)} names embedded", self._done)
            batch = {"names": (tokens[start : start + _TEXT_BATCH],)}
            _, outputs = reference("text", tower, batch).cases["names"]
            rows.append(outputs[0])
        embeddings: NDArray[np.float32] = np.concatenate(rows)
        return embeddings

    def _head(self, temporal: TemporalHead, vocabulary: Vocabulary) -> None:
        from ovavel.training.temporal import HeadGraph

        self._export("head", HeadGraph(temporal).eval(), head_inputs(np.array(vocabulary.embeddings)), "fp32")

    def _export(
        self,
        graph: Graph,
        module: nn.Module,
        inputs: Mapping[str, tuple[NDArray[np.float32], ...]],
        precision: Precision,
    ) -> None:
        start, share = self._done, _SHARES[graph]
        self._progress(f"{graph}: running PyTorch", start)
        expected = reference(graph, module, inputs)
        self._progress(f"{graph}: writing ONNX", start + share / 4)
        size = self._config.embedding_size
        file, *_ = export_graph(graph, module, self._folder, embedding_size=size, precision=precision)
        self._progress(f"{graph}: comparing ONNX Runtime with PyTorch", start + share / 2)
        self._checks.append(check_graph(file, expected, precision))
        self._graphs[graph] = {precision: file.name}
        self._done += share


def need_libraries() -> None:
    """Name what is missing before minutes of work, not after."""
    for library, extra in (("torch", "export"), ("onnx", "export"), ("onnxscript", "export"), ("onnxruntime", "cpu")):
        try:
            importlib.import_module(library)
        except ImportError as error:
            raise MissingExtraError(library, extra, need="Exporting a bundle") from error


def _check_place(out: Path, config: ImageBindConfig, precision: Precision, *, overwrite: bool) -> None:
    """Refuse an `out` that holds something else, and a disk without room for the graphs."""
    from ovavel.training.imagebind import Modality, published_entries

    if out.exists() or out.is_symlink():
        if not overwrite:
            raise UsageError(f"{out} exists already; choose another folder, or replace the bundle with --overwrite")
        if not (out / MANIFEST).is_file():
            raise UsageError(f"{out} is not a bundle, so it is not overwritten; choose another folder")
    place = next(folder for folder in out.parents if folder.exists())
    quantised = () if precision == "fp32" else ("vision", "audio")
    sizes = {modality: published_entries(config, (modality,)).values() for modality in get_args(Modality)}
    need = 64 * 2**20 + sum(
        (1.1 if modality in quantised else 4) * sum(map(math.prod, shapes)) for modality, shapes in sizes.items()
    )
    free = shutil.disk_usage(place).free
    if free < need:
        raise ExportError(f"{place} has {free / 1e9:.1f} GB free and the bundle needs {need / 1e9:.1f} GB; make room")


def _put_in_place(aside: Path, out: Path) -> None:
    umask = os.umask(0)
    os.umask(umask)
    aside.chmod(0o777 & ~umask)  # mkdtemp lets only the owner in
    if not out.exists():
        aside.rename(out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    out.rename(old / "old")
    aside.rename(out)
    shutil.rmtree(old, ignore_errors=True)
