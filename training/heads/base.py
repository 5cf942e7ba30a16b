"""What every head is, and its file.

Shapes: B batch, T segments, D embedding size, C classes with the background last.
"""

from __future__ import annotations

import inspect
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from ovavel.runtime.errors import CheckpointError, UsageError
from ovavel.training.heads.registry import find_head
from ovavel.training.models.checkpoint import check_entries, read_checkpoint, read_metadata, write_checkpoint

__all__ = ["AUDIO_SCALE", "Head", "Reach", "ScoreKind", "load_head", "make_head"]

AUDIO_SCALE = 20.0
"""Norm with which audio embeddings enter a head as published; vision enters with norm 1."""

ScoreKind = Literal["geometric", "prob-avg", "feature-avg", "learned"]
"""What is min-max scaled into scores: the root of the product of both similarities; their mean; the similarity of the
mean of both features; or what the head's own `fuse` makes of both similarities."""

_FORMAT = "ovavel head 1"


class Reach(NamedTuple):
    """Which seconds can change what a head makes of one second, besides that second itself."""

    before: int | None
    """Seconds before it; None: all in the window."""
    after: int | None
    """Seconds after it; None: all in the window. 0: the head is causal."""


class Head(nn.Module):
    """From the embeddings of up to ten seconds to features of the same shape.

    A kind of head is a subclass that an entry point in `ovavel.heads` names. It has a `name`, that of the entry point;
    an `__init__` that takes keyword arguments; a `config` that returns those arguments; a `forward`; and a `reach`.
    """

    name: ClassVar[str]
    """Of the entry point that makes it."""
    score: ScoreKind = "geometric"
    """How `HeadGraph` scores with this head."""
    blocks: int = 1
    """Blocks per modality; 0: features are the embeddings, as without training."""

    def __init__(self, dim: int, *, audio_scale: float = AUDIO_SCALE) -> None:
        """Keep what all heads have.

        Args:
            dim: embedding size D.
            audio_scale: norm with which audio enters; vision enters with norm 1.

        Raises:
            UsageError: one of them is out of range.
        """
        super().__init__()
        if not isinstance(dim, int) or dim < 1:
            raise UsageError(f"the embeddings of a head have a positive size, not {dim!r}")
        if not isinstance(audio_scale, int | float) or not 0 < audio_scale < math.inf:
            raise UsageError(f"the audio scale of a head must be above 0, not {audio_scale!r}")
        self.dim, self.audio_scale = dim, float(audio_scale)

    @property
    def reach(self) -> Reach:
        """Which seconds can change one second's features and scores."""
        return Reach(None, None)

    @property
    def parameter_count(self) -> int:
        """Number of parameters, those of a trunk among them, trained or not; 0 without blocks."""
        return sum(weight.numel() for weight in self.parameters())

    def config(self) -> dict[str, Any]:
        """Return the keyword arguments that make this head again, as JSON can hold them."""
        return {"dim": self.dim, "audio_scale": self.audio_scale}

    def check_sizes(self, audio: Tensor, vision: Tensor) -> None:
        """Refuse embeddings that are not (…, D), such as those of senses that have spaces of their own.

        Raises:
            UsageError: a sense has embeddings of another size.
        """
        sizes = audio.shape[-1], vision.shape[-1]
        if sizes != (self.dim, self.dim):
            raise UsageError(
                f"a {self.name} head with blocks needs embeddings of one size for both senses, {self.dim} here, not "
                f"{sizes[0]} for audio and {sizes[1]} for vision; take the head without blocks"
            )

    def forward(self, audio: Tensor, vision: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D) of unit norm, twice → (B, T, D) features of audio and of vision, of any norm."""
        raise NotImplementedError

    def fuse(self, audio_similarity: Tensor, vision_similarity: Tensor) -> Tensor:
        """(B, T, C) cosine similarities, twice → (B, T, C) scores in [0, 1]; asked where `score` is "learned"."""
        raise NotImplementedError

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Load a head of this kind that `save` wrote, in evaluation mode.

        Raises:
            CheckpointError: not a head, or one of another kind; the message names what is missing, extra or misshaped.
        """
        head = load_head(path)
        if not isinstance(head, cls):
            raise CheckpointError(f"{path} is a head of the kind {head.name!r}, not {cls.name!r}; use `load_head`")
        return head

    def save(self, path: str | Path, notes: Mapping[str, str] | None = None) -> None:
        """Write a safetensors file that `load_head` reads back, whole or not at all.

        Args:
            path: the file.
            notes: more metadata, such as the recipe the head was trained with.

        Raises:
            OutputError: it could not be written.
        """
        config = json.dumps(self.config(), sort_keys=True)
        metadata = {"format": _FORMAT, "head": self.name, "config": config}
        write_checkpoint(path, self.state_dict(), {**(notes or {}), **metadata})


def make_head(name: str, **settings: Any) -> Head:
    """Make a head of the kind `name` with random weights.

    Raises:
        UsageError: there is no such kind, or a setting is unknown or invalid.
    """
    make = find_head(name)
    try:
        inspect.signature(make).bind(**settings)
    except TypeError as error:
        raise UsageError(f"the head {name!r} cannot be made with these settings: {error}") from error
    head = make(**settings)
    if not isinstance(head, Head):
        raise UsageError(f"the head {name!r} is a {type(head).__name__}, not a Head of ovavel.training.heads.base")
    return head


def load_head(path: str | os.PathLike[str]) -> Head:
    """Load a head of any kind that `Head.save` wrote, or a published temporal head, in evaluation mode.

    Raises:
        CheckpointError: not a head, or one of a kind that is not installed.
    """
    metadata = read_metadata(path := Path(path))
    if metadata.get("format") == _FORMAT:
        return _load_own(path, metadata)
    published: Head = find_head("temporal").load(path)  # type: ignore[attr-defined]
    return published


def _load_own(path: Path, metadata: Mapping[str, str]) -> Head:
    found = read_checkpoint(path)
    try:
        name, config = metadata["head"], json.loads(metadata["config"])
        if config.get("blocks", 0) > max(len(found), 1):
            raise UsageError(f"it says that it has {config['blocks']} blocks and holds {len(found)} entries")
        with torch.device("meta"):
            expected = {entry: tensor.shape for entry, tensor in make_head(name, **config).state_dict().items()}
    except KeyError as error:
        raise CheckpointError(f"{path} does not say what head it is: it lacks {error}; save it again") from error
    except (UsageError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{path} is not a head that can be loaded: {error}") from error
    counters = {entry for entry in expected if entry.endswith("num_batches_tracked")}
    check_entries(
        path,
        {entry: tensor for entry, tensor in found.items() if entry not in counters},
        {entry: shape for entry, shape in expected.items() if entry not in counters},
        model=f"a head of the kind {name!r}",
    )
    head = make_head(name, **config)
    head.load_state_dict({e: t if e in counters else t.float() for e, t in found.items()}, strict=not counters)
    return head.eval()
