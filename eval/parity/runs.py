"""Runs of a comparison: how a backend is opened, and its outputs for all inputs.

Shapes: D embedding size, C names with the background last, T seconds of a clip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovavel.eval.datasets.texts import embed_texts
from ovavel.eval.parity.clips import ClipEmbeddings, Clips, encode_adversarial
from ovavel.runtime.backends import Backend, BackendInfo, HeadOutput
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.graphs import Graph
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.pipeline.texts import encode_texts
from ovavel.runtime.system.progress import Progress, prefixed
from ovavel.runtime.types import Sense
from ovavel.runtime.verification.open import open_compared

__all__ = ["BackendSpec", "Run", "all_embeddings", "run_backend"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSpec:
    """A backend to open, with its bundle and options."""

    bundle: Bundle
    backend: str = "onnxruntime"
    device: str = "auto"
    precision: str | None = None
    threads: int | None = None
    options: Mapping[str, Any]
    """Further backend options: `weights` and `head` for PyTorch."""

    def open(self, graphs: Sequence[Graph]) -> Backend:
        """Open it with these graphs; see `open_compared`."""
        return open_compared(
            self.bundle,
            name=self.backend,
            device=self.device,
            threads=self.threads,
            graphs=graphs,
            precision=self.precision,
            **self.options,
        )

    def embed(self, texts: Sequence[str]) -> TextEmbeddings:
        """Return what this side makes of `texts`: PyTorch from its weights, a bundle from its vocabulary or graph."""
        if self.backend != "torch":
            return embed_texts(self.bundle, texts, threads=self.threads)
        return self.run_text(texts)

    def run_text(self, texts: Sequence[str]) -> TextEmbeddings:
        """Take `texts` through the text encoder itself, whatever the vocabulary holds."""
        graphs = self.bundle.manifest.encoders.text_graphs
        # Text stays in fp32, and engines for GPUs need not have it: vocabularies are made on the CPU.
        backend = (
            self.open(graphs)
            if self.backend == "torch"
            else open_compared(self.bundle, device="cpu", threads=self.threads, graphs=graphs)
        )
        try:
            return encode_texts(backend, self.bundle.tokenizer, texts, batch=1)
        finally:
            backend.close()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """One backend's outputs for all inputs."""

    info: BackendInfo
    frames: NDArray[np.float32]
    """(N, D) of the adversarial frames."""
    waveforms: NDArray[np.float32]
    """(N, D) of the adversarial waveforms."""
    clips: tuple[ClipEmbeddings, ...]
    text: TextEmbeddings
    """The C names that are decided on."""
    outputs: tuple[HeadOutput, ...]
    """(T, C) outputs of the head for each clip."""
    given: tuple[HeadOutput, ...] = ()
    """Outputs of the head for the reference's embeddings of each clip."""

    @property
    def summary(self) -> str:
        """Engine and precision, in a few words."""
        if self.info.engine == "torch":
            return f"PyTorch {self.info.precision['vision']}"
        return f"{self.info.engine} {_precisions(self.info)}"


def _precisions(info: BackendInfo) -> str:
    return "/".join(dict.fromkeys((info.precision["vision"], info.precision["audio"])))


def run_backend(
    spec: BackendSpec, clips: Clips, names: Sequence[str], progress: Progress, reference: Run | None = None
) -> Run:
    """Run one backend on all inputs; with a `reference`, also its head on the reference's embeddings."""
    progress("embedding the names")
    text = spec.embed(names)
    progress("loading the graphs")
    backend = spec.open(("vision", "audio", "head"))
    try:
        backend.warm_up()
        summary = f"{backend.info.engine} {_precisions(backend.info)}"
        progress(f"{summary}: adversarial inputs")
        frames, waveforms = encode_adversarial(backend)
        encoded = clips.encode(backend, prefixed(progress, f"{summary}: "))
        outputs = [_head(backend, clip.audio, clip.vision, text) for clip in encoded]
        given = (
            [_head(backend, clip.audio, clip.vision, reference.text) for clip in reference.clips] if reference else []
        )
    finally:
        backend.close()
    return Run(
        info=backend.info,
        frames=frames,
        waveforms=waveforms,
        clips=tuple(encoded),
        text=text,
        outputs=tuple(outputs),
        given=tuple(given),
    )


def _head(
    backend: Backend, audio: NDArray[np.float32], vision: NDArray[np.float32], text: TextEmbeddings
) -> HeadOutput:
    return HeadOutput(*(rows[0] for rows in backend.head(audio[None], vision[None], text)))


def all_embeddings(run: Run, sense: Sense) -> NDArray[np.float32]:
    """Return all embeddings of one run, the adversarial inputs first."""
    first = run.frames if sense == "vision" else run.waveforms
    return np.concatenate([first, *(getattr(clip, sense) for clip in run.clips)])
