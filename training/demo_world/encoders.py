"""A tiny ImageBind, trained from scratch to embed frames, sounds and phrases of the demo world in one space."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator, default_rng
from torch import Tensor, nn

from ovavel.runtime.bundle.vocabulary import Tokenizer
from ovavel.runtime.errors import CheckpointError
from ovavel.runtime.pipeline.preprocess import PREPARATIONS
from ovavel.runtime.system.files import atomic_write
from ovavel.runtime.system.progress import Progress, no_progress
from ovavel.training.demo_world.captions import CAPTIONS
from ovavel.training.demo_world.segments import Segments
from ovavel.training.models.checkpoint import write_checkpoint
from ovavel.training.models.imagebind.model import ImageBind, ImageBindConfig, TowerConfig
from ovavel.training.models.imagebind.published_names import published_name

__all__ = ["CONFIG", "EncoderTraining", "train_encoders"]

# B segments in a batch, D embedding size, P phrases

CONFIG = ImageBindConfig(
    name="demo-world",
    vision=TowerConfig(width=96, blocks=4, heads=3),
    audio=TowerConfig(width=80, blocks=4, heads=4),
    text=TowerConfig(width=64, blocks=2, heads=4),
    embedding_size=64,
    vocabulary=395,
)

_MEAN = torch.tensor(PREPARATIONS["clip-frame"].parameters["mean"]).view(3, 1, 1)
_STD = torch.tensor(PREPARATIONS["clip-frame"].parameters["std"]).view(3, 1, 1)
_PHRASE_WEIGHTS = (1.0, 0.15, 0.1, 0.25, 0.25)
"""Loss weights of the forms in `CAPTIONS`: the class names matter most."""
_PAIR_WEIGHT = 0.3
"""Loss weight of frame with sound, which would otherwise be linked through texts only."""
_MAX_SCALE = 40.0
_SAVED_EVERY = 100
"""Steps between saved states, from which an interrupted run resumes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderTraining:
    """Hyperparameters of the encoders' training."""

    steps: int = 1000
    batch: int = 96
    learning_rate: float = 1.5e-3
    warm_up: float = 0.05
    """Share of the steps over which the learning rate rises; afterwards it follows a cosine down."""
    weight_decay: float = 0.05
    seed: int = 1


def train_encoders(
    segments: Segments,
    tokenizer: Tokenizer,
    out: Path,
    settings: EncoderTraining,
    *,
    progress: Progress = no_progress,
) -> None:
    """Train with contrastive losses (frame–text, sound–text, frame–sound) on `segments`; write the weights to `out`.

    There must be at least one batch of segments. `progress` is called after each step. An interrupted
    run resumes from the file beside `out` and ends with the same weights as an uninterrupted one.

    Raises:
        CheckpointError: the saved state of an interrupted run is damaged.
        OutputError: a file could not be written.
    """
    torch.manual_seed(settings.seed)
    model = ImageBind(CONFIG)
    _initialize(model)
    scale = nn.Parameter(torch.tensor(math.log(12.0)))
    tokens = [torch.from_numpy(tokenizer.encode(captions.texts)) for captions in CAPTIONS]
    groups = [torch.from_numpy(captions.of_kind) for captions in CAPTIONS]
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": [*others, scale], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
    )
    state = out.with_suffix(".state")
    first = _resume(state, settings, model, optimizer, scale) if state.is_file() else 0
    for step in range(first, settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _rate_factor(step, settings)
        rows = _rows(step, len(segments.kinds), settings)
        random = default_rng((settings.seed, step))
        kinds = torch.from_numpy(segments.kinds[rows])
        vision = model.towers["vision"](_frames(segments.frames[rows], random))
        audio = model.towers["audio"](_log_mels(segments.log_mels[rows], random))
        factor = scale.exp().clamp(max=_MAX_SCALE)
        text = model.towers["text"](torch.cat(tokens)).split([len(part) for part in tokens])
        loss = _PAIR_WEIGHT * _pairs(vision, audio, kinds, factor)
        for weight, phrases, of_kind in zip(_PHRASE_WEIGHTS, text, groups, strict=True):
            for seen_or_heard in (vision, audio):
                loss = loss + weight * F.cross_entropy(factor * seen_or_heard @ phrases.T, of_kind[kinds])
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([*matrices, *others], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        progress("training the encoders", step + 1, settings.steps, f"loss {float(loss.detach()):.2f}")
        if (step + 1) % _SAVED_EVERY == 0:
            _save_state(state, step + 1, settings, model, optimizer, scale)
    _write(out, model, scale)
    state.unlink(missing_ok=True)


def _initialize(model: ImageBind) -> None:
    """Draw random weights; position embeddings start as waves, which encode distance."""
    for name, parameter in model.named_parameters():
        if name.endswith(("positions", "class_token", "embedding")):
            nn.init.normal_(parameter, std=0.02)
        elif parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.7 / math.sqrt(math.prod(parameter.shape[1:])))
    with torch.no_grad():
        for modality, rows, columns in (("vision", 16, 16), ("audio", 12, 19)):
            positions = model.get_parameter(f"towers.{modality}.positions")
            positions[0, 1:] = 0.3 * _waves(rows, columns, positions.shape[2])


def _waves(rows: int, columns: int, width: int) -> Tensor:
    """Return (rows × columns, width): sines and cosines of both coordinates."""
    count = width // 4
    hz = 0.5 * 20 ** (-torch.arange(count) / count) * math.pi
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    parts = [f(c.reshape(-1, 1) * hz) for c in (y, x) for f in (torch.sin, torch.cos)]
    return torch.cat(parts, dim=1)


def _rows(step: int, count: int, settings: EncoderTraining) -> Any:
    """Return the rows of a step: each epoch is a new shuffle of all segments, cut into whole batches."""
    per_epoch = count // settings.batch
    order = default_rng((settings.seed, 7, step // per_epoch)).permutation(count)
    start = step % per_epoch * settings.batch
    return np.sort(order[start : start + settings.batch])


def _rate_factor(step: int, settings: EncoderTraining) -> float:
    warm = max(1, int(settings.warm_up * settings.steps))
    if step < warm:
        return (step + 1) / warm
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, settings.steps - warm)))


def _frames(frames: Any, random: Generator) -> Tensor:
    """Normalise (B, 224, 224, 3) uint8 → (B, 3, 224, 224) float32; half of them are mirrored at random."""
    x = torch.from_numpy(frames).permute(0, 3, 1, 2).float().div_(255)
    mirrored = torch.from_numpy(random.random(len(x)) < 0.5)
    x[mirrored] = x[mirrored].flip(-1)
    return (x - _MEAN) / _STD


def _log_mels(log_mels: Any, random: Generator) -> Tensor:
    """Convert (B, 1, 128, 204) to float32, each with a random gain."""
    x = torch.from_numpy(log_mels).float()
    gain = torch.from_numpy(random.uniform(-0.25, 0.25, (len(x), 1, 1, 1)).astype(np.float32))
    x[..., :198] += gain  # not the padding
    return x


def _pairs(vision: Tensor, audio: Tensor, kinds: Tensor, factor: Tensor) -> Tensor:
    """Return the contrastive loss of frames and sounds, both ways; all of the same kind match."""
    logits = factor * vision @ audio.T
    same = (kinds[:, None] == kinds[None, :]).float()
    target = same / same.sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _save_state(
    path: Path, step: int, settings: EncoderTraining, model: ImageBind, optimizer: torch.optim.Optimizer, scale: Tensor
) -> None:
    file = io.BytesIO()
    content = {
        "step": step,
        "settings": repr(settings),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scale": scale.detach(),
    }
    torch.save(content, file)
    atomic_write(path, file.getvalue())


def _resume(
    path: Path, settings: EncoderTraining, model: ImageBind, optimizer: torch.optim.Optimizer, scale: Tensor
) -> int:
    try:
        content = torch.load(path, weights_only=True)
        if content["settings"] != repr(settings):
            return 0
        model.load_state_dict(content["model"])
        optimizer.load_state_dict(content["optimizer"])
        with torch.no_grad():
            scale.copy_(content["scale"])
        return int(content["step"])
    except Exception as error:  # a damaged archive fails in many ways
        raise CheckpointError(
            f"cannot resume from {path}: it is damaged or belongs to another training ({type(error).__name__}); "
            "delete it to start over"
        ) from error


def _write(out: Path, model: ImageBind, scale: Tensor) -> None:
    """Write the weights under the published names and shapes."""
    tensors: dict[str, Tensor] = {}
    for modality, tower in model.towers.items():
        for name, tensor in tower.state_dict().items():
            if (modality, name) == ("vision", "stem.weight"):
                tensor = torch.stack([tensor / 2, tensor / 2], dim=2)  # the published stem sees the frame twice
            tensors[published_name(modality, name)] = tensor
    tensors["modality_postprocessors.audio.1.log_logit_scale"] = torch.tensor(math.log(20.0))
    tensors["modality_postprocessors.text.1.log_logit_scale"] = scale.detach().clone()
    write_checkpoint(out, tensors, {"licence": "Apache-2.0", "model": CONFIG.name})
