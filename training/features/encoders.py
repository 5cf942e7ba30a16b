"""The frozen encoders that features are made with: a checkpoint in PyTorch, or a bundle in any backend."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.backends import Backend, open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.graphs import Graph
from ovavel.runtime.bundle.vocabulary import TOKENIZER, Tokenizer
from ovavel.runtime.errors import CheckpointError, InputError, UsageError
from ovavel.training.models.imagebind.model import CONTEXT, VOCABULARY, ImageBindConfig
from ovavel.training.models.tokenizer import clip_tokenizer
from ovavel.training.torch_backend.backend import Precision, open_weights

__all__ = ["Encoders", "bundle_encoders", "checkpoint_encoders", "file_sha256", "model_tokenizer"]

# C names, D embedding size

_ENCODERS: tuple[Graph, ...] = ("vision", "audio", "text")
_OF_WINDOWS: tuple[Graph, ...] = ("vision", "audio")
_BLOCK_BYTES = 8 * 2**20
_TEXT_BATCH = 16

Progress = Callable[[str, float], None]
"""Called with what happens now, and which share of it, in [0, 1], is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoders:
    """What encodes, and what identifies it."""

    backend: Backend
    """Opened with vision and audio."""
    text_backend: Backend
    """Opened with text: the same one, or one on the CPU."""
    model: str
    weights_sha256: str
    """Hash of the checkpoint."""
    graphs_sha256: str | None
    """Hash over the bundle's encoder graphs; None for a checkpoint."""
    embedding_size: int
    """D."""
    tokenizer: Tokenizer
    tokenizer_sha256: str

    @property
    def precision(self) -> str:
        """In which vision and audio are computed, in one word where it is the same."""
        vision, audio = (self.backend.info.precision[graph] for graph in ("vision", "audio"))
        return vision if vision == audio else f"vision {vision}, audio {audio}"

    @property
    def device(self) -> str:
        """Kind of device: "cpu" or "cuda"."""
        return self.backend.info.device.partition(":")[0]

    def embed(self, names: tuple[str, ...]) -> NDArray[np.float32]:
        """Text embeddings (C, D) of `names`, as they are."""
        tokens = self.tokenizer.encode(names)
        rows = [self.text_backend.text(tokens[i : i + _TEXT_BATCH]) for i in range(0, len(tokens), _TEXT_BATCH)]
        return np.concatenate(rows)

    def close(self) -> None:
        """Give the memory back."""
        self.backend.close()
        self.text_backend.close()


def checkpoint_encoders(
    weights: Path,
    config: ImageBindConfig,
    *,
    device: str = "auto",
    threads: int | None = None,
    precision: Precision = "fp32",
    tokenizer: Path | None = None,
    progress: Progress = lambda _what, _share: None,
) -> Encoders:
    """Hash and load a checkpoint. Names are always embedded in fp32, as there are few.

    Args:
        weights: ImageBind checkpoint, `.pth` or safetensors.
        config: size of the model.
        device: as `open_weights` takes it.
        threads: as `open_weights` takes them.
        precision: of vision and audio.
        tokenizer: a `tokenizer.json`; None: CLIP's, which the published model was made for.
        progress: called during the hashing, which takes a while for 4.8 GB.

    Raises:
        CheckpointError: the checkpoint is not what it should be.
        InputError: the tokenizer cannot be read.
        UsageError: the tokenizer does not fit the model, or the precision not the device.
        DeviceError: the device is unavailable.
    """
    if tokenizer is None and config.vocabulary != VOCABULARY:
        raise UsageError(
            f"the model {config.name!r} knows {config.vocabulary} tokens, so it has a tokenizer of its own: "
            "give its tokenizer.json as --tokenizer"
        )
    tokenizer_json = model_tokenizer(tokenizer, config)
    with tempfile.TemporaryDirectory() as folder:
        (copy := Path(folder) / TOKENIZER).write_bytes(tokenizer_json)
        opened = Tokenizer.open(copy)
    backend = open_weights(weights, config, device=device, threads=threads, precision=precision)
    return Encoders(
        backend=backend,
        text_backend=backend,
        model=f"imagebind_{config.name}",
        weights_sha256=file_sha256(weights, progress),
        graphs_sha256=None,
        embedding_size=config.embedding_size,
        tokenizer=opened,
        tokenizer_sha256=hashlib.sha256(tokenizer_json).hexdigest(),
    )


def bundle_encoders(
    path: Path, *, backend: str = "onnxruntime", device: str = "auto", threads: int | None = None
) -> Encoders:
    """Open the encoders of a bundle; its head and vocabulary do not matter. Names are embedded on the CPU, always.

    Raises:
        BundleError: it is no bundle, or is altered, or has no text graph.
        UsageError, MissingExtraError, DeviceError: as `open_backend`.
    """
    bundle = Bundle.open(path)
    text = open_backend(bundle, device="cpu", threads=threads, graphs=("text",))
    opened = open_backend(bundle, name=backend, device=device, threads=threads, graphs=_OF_WINDOWS)
    ran = {"text": text.info, "vision": opened.info, "audio": opened.info}
    names = {file for name in _ENCODERS for file in bundle.graph_files(name, ran[name].precision[name])}
    listing = "".join(f"{name} {bundle.manifest.files[name].sha256}\n" for name in sorted(names))
    return Encoders(
        backend=opened,
        text_backend=text,
        model=bundle.manifest.model.name,
        weights_sha256=bundle.manifest.model.weights_sha256,
        graphs_sha256=hashlib.sha256(listing.encode()).hexdigest(),
        embedding_size=bundle.manifest.embedding_size,
        tokenizer=bundle.tokenizer(),
        tokenizer_sha256=bundle.manifest.files[TOKENIZER].sha256,
    )


def file_sha256(path: Path, progress: Progress = lambda _what, _share: None) -> str:
    """SHA-256 of a file, block by block.

    Raises:
        CheckpointError: it cannot be read.
    """
    digest, done = hashlib.sha256(), 0
    try:
        total = max(1, path.stat().st_size)
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                done += len(block)
                progress(f"hashing {path.name}, {total / 1e9:.1f} GB", done / total)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    return digest.hexdigest()


def model_tokenizer(path: str | os.PathLike[str] | None, config: ImageBindConfig) -> bytes:
    """Return the `tokenizer.json` of a model (None: CLIP's), if the model knows every token that it writes.

    Raises:
        InputError: it cannot be read, or is no tokenizer.
        UsageError: it is that of another model.
    """
    import tokenizers

    try:
        data = clip_tokenizer() if path is None else Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the tokenizer {path}: {error.strerror or error}") from error
    try:
        tokenizer = tokenizers.Tokenizer.from_str(data.decode())
        row = tokenizer.encode("a").ids
    except Exception as error:  # tokenizers raises nothing narrower
        raise InputError(f"{path} is not a tokenizer.json ({error})") from error
    # Control tokens need not be in the vocabulary, so an encoded text can hold more.
    size = 1 + max(*row, *tokenizer.get_vocab().values())
    if size > config.vocabulary or len(row) != CONTEXT:
        raise UsageError(
            f"the tokenizer {path or 'of CLIP'} has {size} tokens in rows of {len(row)}, and the model {config.name!r} "
            f"takes {config.vocabulary} in rows of {CONTEXT}: give the model's own as --tokenizer"
        )
    return data
