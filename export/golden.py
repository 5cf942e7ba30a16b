"""Writes a bundle's golden file and checks every CPU variant against it.

The inputs are fixed, but for the clips: of many random ones, those are taken on which PyTorch decides most clearly.

Shapes: D embedding size, C golden names with the background last, K clips of T seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.random import default_rng
from numpy.typing import NDArray

from ovavel.export.verify import reference
from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.graphs import Encoders, Graph
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.errors import PrecisionError
from ovavel.runtime.pipeline.preprocess import FRAME_SIZE, crop_frame, preparations
from ovavel.runtime.system.progress import Progress, part_of
from ovavel.runtime.types import BUFFER, Sense
from ovavel.runtime.verification.golden import GOLDEN, Golden, to_float
from ovavel.runtime.verification.samples import random_frame, random_waveform, sample_frames, sample_waveforms
from ovavel.runtime.verification.self_check import graphs_to_check, self_check

if TYPE_CHECKING:
    from torch import nn

__all__ = ["GoldenWriter", "checked"]

_RANDOM_FRAMES = 4
_RANDOM_WAVEFORMS = 4
_NAMES = 128
"""Golden names at most, the background among them."""
_CLIPS = 6
_CANDIDATES = 48
"""Random clips of which `_CLIPS` are chosen."""


class GoldenWriter:
    """Gathers what PyTorch makes of the golden inputs, one encoder at a time, and writes it."""

    def __init__(self, encoders: Encoders) -> None:
        prepared_by = preparations(encoders)
        self._prepare_frame, self._prepare_sound = (prepared_by[sense].prepare for sense in ("vision", "audio"))
        self._frames = _golden_frames()
        self._waveforms = _golden_waveforms(prepared_by["audio"].rate_hz)
        self._embeddings: dict[str, NDArray[np.float32]] = {}
        self._golden: Golden | None = None

    def encode(self, graph: Graph, module: nn.Module) -> None:
        """Run the golden windows through the encoder `module`, if it is one of windows."""
        inputs: Iterable[NDArray[np.float32]]
        if graph == "vision":
            inputs = map(self._prepare_frame, self._frames.values())
        elif graph == "audio":
            inputs = (self._prepare_sound(to_float(wave)) for wave in self._waveforms.values())
        else:
            return
        cases = {str(number): (array[None],) for number, array in enumerate(inputs)}
        found = reference(graph, module, cases).cases.values()
        self._embeddings[graph] = np.concatenate([outputs[0] for _, outputs in found])

    def decide(
        self,
        head: nn.Module,
        names: Sequence[str],
        tokens: Mapping[Sense, NDArray[np.int64]],
        text: TextEmbeddings,
        named: TextEmbeddings | None = None,
    ) -> None:
        """Decide on golden clips with the names (all C) of the vocabulary, or the first of them and the background.

        `named` is what the vocabulary has for the names where that is not `text`, their own embeddings.
        """
        kept = list(range(len(names)))
        if len(kept) > _NAMES:
            kept = [*kept[: _NAMES - 1], len(names) - 1]
        text = text[kept]
        vision, audio = self._embeddings["vision"], self._embeddings["audio"]
        random = default_rng(0)
        shape = (_CANDIDATES, BUFFER)
        clips = np.stack([random.integers(0, len(vision), shape), random.integers(0, len(audio), shape)], axis=-1)
        arrays = audio[clips[..., 1]], vision[clips[..., 0]], text.audio, text.vision
        _, outputs = reference("head", head, {"clips": arrays}).cases["clips"]
        levels = np.arange(FRAME_SIZE * FRAME_SIZE) % 256
        ramp = np.repeat(levels.reshape(FRAME_SIZE, FRAME_SIZE, 1), 3, axis=2).astype(np.uint8)
        self._golden = _clearest(
            Golden(
                frames=self._frames,
                waveforms=self._waveforms,
                crops={name: crop_frame(frame) for name, frame in self._frames.items()},
                pixels=self._prepare_frame(ramp).reshape(3, -1)[:, :256],
                log_mels={name: self._prepare_sound(to_float(wave)) for name, wave in self._waveforms.items()},
                vision=vision,
                audio=audio,
                names=tuple(names[i] for i in kept),
                audio_tokens=tokens["audio"][kept],
                vision_tokens=tokens["vision"][kept],
                text=text,
                named=None if named is None else named[kept],
                clips=clips,
                audio_similarity=outputs[0],
                vision_similarity=outputs[1],
                score=outputs[2],
            )
        )

    def write(self, folder: Path) -> None:
        """Write `golden.npz` into `folder`."""
        assert self._golden is not None, "decide comes first"
        (folder / GOLDEN).write_bytes(self._golden.encode())


def checked(bundle: Bundle, precisions: Iterable[str], progress: Progress) -> Bundle:
    """Let ONNX Runtime on the CPU run `bundle` in each of `precisions`, and put the gates into its manifest.

    Raises:
        PrecisionError: one of them is too far from PyTorch.
    """
    gates = []
    wanted = list(precisions)
    for number, precision in enumerate(wanted):
        backend = open_backend(bundle, device="cpu", graphs=graphs_to_check(bundle), precision=precision)

        part = part_of(progress, number / len(wanted), 1 / len(wanted), prefix=f"{precision}: ")
        try:
            gate = self_check(bundle, backend, part)
        finally:
            backend.close()
        if not gate.passed:
            raise PrecisionError(
                f"the bundle in {precision} fails its own check ({'; '.join(gate.failures)})",
                precision,
                advice="Are the weights finite and for this model?",
            )
        gates.append(gate)
    return bundle.save_gates(gates)


def _golden_frames() -> dict[str, NDArray[np.uint8]]:
    """Raw frames by name: the extremes, and pictures of several sizes; small, because every bundle carries them."""
    samples = sample_frames()
    samples["photograph"] = np.ascontiguousarray(samples["photograph"][::3, ::3])
    for seed in range(_RANDOM_FRAMES):
        picture = random_frame(seed)
        wide = seed % 2 == 0
        samples[f"picture {seed}"] = picture[:FRAME_SIZE, :FRAME_SIZE] if wide else np.rot90(picture[::4, ::4]).copy()
    return samples


def _golden_waveforms(rate_hz: int) -> dict[str, NDArray[np.int16]]:
    """Raw waveforms by name, as 16-bit samples."""
    samples: dict[str, NDArray[Any]] = dict(sample_waveforms(rate_hz))
    samples |= {f"sound {seed}": random_waveform(seed, rate_hz) for seed in range(_RANDOM_WAVEFORMS)}
    return {name: (wave * 32767).round().clip(-32768, 32767).astype(np.int16) for name, wave in samples.items()}


def _clearest(golden: Golden) -> Golden:
    """Keep the clips whose seconds are decided most clearly, on the whole."""
    from dataclasses import replace

    best = np.argsort(-np.quantile(golden.lead, 0.1, axis=1), kind="stable")[:_CLIPS]
    return replace(
        golden,
        clips=golden.clips[best],
        audio_similarity=golden.audio_similarity[best],
        vision_similarity=golden.vision_similarity[best],
        score=golden.score[best],
    )
