"""The frozen encoders that compute features: weights in PyTorch, or a bundle in any backend.

Shapes: B clips, P passes, T segments of a clip (10), D embedding size of audio.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ovavel.eval.datasets.audio_passes import AudioPasses
from ovavel.runtime.backends import Backend, open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.graphs import Graph
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Tokenizer
from ovavel.runtime.errors import CheckpointError, UsageError
from ovavel.runtime.pipeline.texts import encode_texts
from ovavel.runtime.system.progress import Progress, no_progress
from ovavel.runtime.types import Sense
from ovavel.training.models.imagebind.model import VOCABULARY, ImageBindConfig, PatchTower
from ovavel.training.models.imagebind.stochastic_depth import StochasticDepth
from ovavel.training.models.source import AnyPaths, ImageBindWeights, joined_sha256, open_model
from ovavel.training.torch_backend.backend import Precision, open_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ovavel.eval.datasets.dataset import Clip

__all__ = ["EncoderSource", "Encoders", "bundle_encoders", "checkpoint_encoders"]

_OF_WINDOWS: tuple[Graph, ...] = ("vision", "audio")
_BLOCK_BYTES = 8 * 2**20
_TEXT_BATCH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoders:
    """Opened encoders and what identifies them."""

    backend: Backend
    """Opened with vision and audio."""
    text_backend: Backend
    """Opened with text: the same backend, or one on the CPU."""
    model: str
    weights_sha256: str
    """Hash of the checkpoint; over the hashes of all, where there are several."""
    graphs_sha256: str | None
    """Hash over the bundle's encoder graphs; None for a checkpoint."""
    tokenizer: Callable[[Sense], Tokenizer]
    """Gives the tokenizer of a sense's text encoder."""
    tokenizer_sha256: str
    """Hash of its file; over the hashes of all, where each sense has its own."""
    passes: AudioPasses | None = None
    """Further passes of the training clips' sound; None: there are none."""
    depth: StochasticDepth | None = None
    """That of the audio encoder; there is one where there are passes."""

    @property
    def precision(self) -> str:
        """Precision of vision and audio, in one word if it is the same."""
        vision, audio = (self.backend.info.precision[graph] for graph in ("vision", "audio"))
        return vision if vision == audio else f"vision {vision}, audio {audio}"

    @property
    def device(self) -> str:
        """Kind of device: "cpu" or "cuda"."""
        return self.backend.info.device.partition(":")[0]

    def embed(self, names: tuple[str, ...]) -> TextEmbeddings:
        """Return text embeddings of the unmodified `names`."""
        return encode_texts(self.text_backend, self.tokenizer, names, batch=_TEXT_BATCH)

    def encode_passes(self, sounds: NDArray[np.float32], clips: Sequence[Clip]) -> NDArray[np.float32]:
        """Encode the prepared sounds (B, T, …) of `clips` in each pass → (B, P, T, D), unit norm.

        What a pass leaves out depends on the clip's name and the number of the pass alone.
        """
        assert self.passes
        assert self.depth
        flat, segments = sounds.reshape(-1, *sounds.shape[2:]), sounds.shape[1]
        found = []
        for number in range(self.passes.count):
            factors = [self.depth.draw(f"{clip.split}/{clip.name} {number}", segments) for clip in clips]
            with self.depth.applied(np.concatenate(factors)):
                found.append(self.backend.audio(flat).reshape(len(clips), segments, -1))
        return np.stack(found, axis=1)

    def close(self) -> None:
        """Free the memory."""
        self.backend.close()
        self.text_backend.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSource:
    """Which encoders to open, and where they run: plain values, for this process or another one."""

    bundle: Path | None = None
    """With `backend`; without it, `weights` in PyTorch, and what follows them."""
    backend: str = "onnxruntime"
    weights: tuple[Path, ...] = ()
    config: ImageBindConfig | None = None
    precision: Precision = "fp32"
    tokenizer: Path | None = None
    passes: AudioPasses | None = None
    device: str = "auto"
    threads: int | None = None

    def absolute(self) -> EncoderSource:
        """The same at absolute paths: a process on another machine has another working folder."""
        return replace(
            self,
            bundle=self.bundle.absolute() if self.bundle else None,
            weights=tuple(path.absolute() for path in self.weights),
            tokenizer=self.tokenizer.absolute() if self.tokenizer else None,
        )

    def open(self, progress: Progress = no_progress) -> Encoders:
        """Open them; raises what `bundle_encoders` and `checkpoint_encoders` do."""
        if self.bundle:
            return bundle_encoders(self.bundle, backend=self.backend, device=self.device, threads=self.threads)
        return checkpoint_encoders(
            self.weights,
            self.config,
            device=self.device,
            threads=self.threads,
            precision=self.precision,
            tokenizer=self.tokenizer,
            passes=self.passes,
            progress=progress,
        )


def checkpoint_encoders(
    weights: AnyPaths,
    config: ImageBindConfig | None = None,
    *,
    device: str = "auto",
    threads: int | None = None,
    precision: Precision = "fp32",
    tokenizer: Path | None = None,
    passes: AudioPasses | None = None,
    progress: Progress = no_progress,
) -> Encoders:
    """Hash and load weights. Names are always embedded in fp32, since there are few.

    Args:
        weights: ImageBind checkpoint, `.pth` or safetensors; or the folders of CLIP and of CLAP.
        config: size of ImageBind; None: the published one.
        device: as in `open_weights`.
        threads: as in `open_weights`.
        precision: precision of vision and audio.
        tokenizer: a `tokenizer.json`; None: CLIP's, which the published model uses.
        passes: further passes of the training clips' sound, with stochastic depth in the audio encoder.
        progress: called while hashing, which takes a while for 4.8 GB.

    Raises:
        CheckpointError: invalid checkpoint.
        InputError: the tokenizer cannot be read.
        UsageError: the tokenizer does not fit the model, the device does not support the precision, or the audio
            encoder has no stochastic depth.
        DeviceError: the device is unavailable.
    """
    model = open_model(weights, config, tokenizer)
    if isinstance(model, ImageBindWeights) and tokenizer is None and model.size_of_towers.vocabulary != VOCABULARY:
        raise UsageError(
            f"the model {model.name!r} has {model.size_of_towers.vocabulary} tokens, so CLIP's tokenizer does not fit: "
            "give the model's tokenizer.json as --tokenizer"
        )
    if passes and not isinstance(model, ImageBindWeights):
        raise UsageError(
            f"--passes is for ImageBind, whose audio encoder is published with stochastic depth; {model.name} is not"
        )
    contents = model.tokenizers()
    opened = {file: Tokenizer.decode(content, where=file) for file, content in contents.items()}
    backend = open_weights(model, device=device, threads=threads, precision=precision)
    tower = backend.module("audio")
    return Encoders(
        backend=backend,
        text_backend=backend,
        model=model.name,
        weights_sha256=joined_sha256([file_sha256(file, progress) for file in model.weights]),
        graphs_sha256=None,
        tokenizer=lambda sense: opened[model.encoders.of(sense).tokenizer],
        tokenizer_sha256=joined_sha256(
            [hashlib.sha256(contents[file]).hexdigest() for file in model.encoders.tokenizers]
        ),
        passes=passes,
        depth=StochasticDepth(tower, passes.drop_path) if passes and isinstance(tower, PatchTower) else None,
    )


def bundle_encoders(
    path: Path, *, backend: str = "onnxruntime", device: str = "auto", threads: int | None = None
) -> Encoders:
    """Open the encoders of a bundle, without its head and vocabulary. Names are always embedded on the CPU.

    Raises:
        BundleError: not a bundle, or it was altered or has no text graph.
        UsageError, MissingExtraError, DeviceError: as `open_backend`.
    """
    bundle = Bundle.open(path)
    text = open_backend(bundle, device="cpu", threads=threads, graphs=bundle.manifest.encoders.text_graphs)
    opened = open_backend(bundle, name=backend, device=device, threads=threads, graphs=_OF_WINDOWS)
    precisions = {**text.info.precision, **opened.info.precision}
    names = {file for name, precision in precisions.items() for file in bundle.graph_files(name, precision)}
    hashes = [bundle.manifest.files[name].sha256 for name in bundle.manifest.encoders.tokenizers]
    listing = "".join(f"{name} {bundle.manifest.files[name].sha256}\n" for name in sorted(names))
    return Encoders(
        backend=opened,
        text_backend=text,
        model=bundle.manifest.model.name,
        weights_sha256=bundle.manifest.model.weights_sha256,
        graphs_sha256=hashlib.sha256(listing.encode()).hexdigest(),
        tokenizer=bundle.tokenizer,
        tokenizer_sha256=joined_sha256(hashes),
    )


def file_sha256(path: Path, progress: Progress = no_progress) -> str:
    """Return the SHA-256 of a file, read block by block.

    Raises:
        CheckpointError: the file cannot be read.
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
