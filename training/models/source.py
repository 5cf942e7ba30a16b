"""The encoders that a bundle is exported from, whatever they are: ImageBind, or CLIP for sight and CLAP for sound."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import msgspec
from msgspec.structs import replace
from torch import nn

from ovavel.runtime.bundle.graphs import Encoders, Graph
from ovavel.runtime.bundle.vocabulary import TOKENIZER
from ovavel.runtime.errors import CheckpointError, UsageError
from ovavel.runtime.pipeline.preprocess import PREPARATIONS
from ovavel.training.models.clap.config import ClapConfig
from ovavel.training.models.clap.model import clap_tower, load_clap
from ovavel.training.models.clap.published_names import clap_entries
from ovavel.training.models.clap.tokenizer import CONTEXT as CLAP_CONTEXT
from ovavel.training.models.clap.tokenizer import roberta_tokenizer
from ovavel.training.models.clip.model import ClipConfig, clip_entries, load_clip
from ovavel.training.models.folder import convert_config, read_kind, weights_file
from ovavel.training.models.imagebind.model import (
    CONTEXT,
    VOCABULARY,
    ImageBind,
    ImageBindConfig,
    Modality,
    published_entries,
)
from ovavel.training.models.tokenizer import model_tokenizer

__all__ = ["AnyPaths", "ClipAndClap", "ImageBindWeights", "Model", "as_paths", "joined_sha256", "open_model"]

AnyPaths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


class Model(Protocol):
    """Encoders on the disk, loaded one at a time."""

    @property
    def name(self) -> str:
        """As a manifest calls it."""

    @property
    def encoders(self) -> Encoders:
        """What a bundle says of them."""

    @property
    def config(self) -> dict[str, Any]:
        """Their sizes, in plain values."""

    @property
    def weights(self) -> tuple[Path, ...]:
        """The files of the weights."""

    def tokenizers(self) -> Mapping[str, bytes]:
        """Return what the files of their tokenizers hold, by name."""

    def tower(self, graph: Graph) -> nn.Module:
        """Load one encoder, frozen and in evaluation mode. Raises CheckpointError."""

    def size(self, graph: Graph) -> int:
        """Return the number of its weights."""


class ImageBindWeights:
    """ImageBind's checkpoint. See `Model`."""

    def __init__(
        self, path: str | os.PathLike[str], config: ImageBindConfig, tokenizer: str | os.PathLike[str] | None = None
    ) -> None:
        self.weights = (Path(path),)
        self.size_of_towers = config
        self._tokenizer = tokenizer
        if self.weights[0].is_dir():
            raise UsageError(
                f"{path} is a folder: give ImageBind's checkpoint, or two folders of weights, CLIP's and CLAP's"
            )
        if not self.weights[0].is_file():
            raise CheckpointError(f"there is no checkpoint {path}")

    @property
    def name(self) -> str:
        """See `Model`."""
        return f"imagebind_{self.size_of_towers.name}"

    @property
    def encoders(self) -> Encoders:
        """See `Model`."""
        return self.size_of_towers.encoders

    @property
    def config(self) -> dict[str, Any]:
        """See `Model`."""
        return self.size_of_towers.to_dict()

    def tokenizers(self) -> Mapping[str, bytes]:
        """See `Model`."""
        size = self.size_of_towers
        return {TOKENIZER: model_tokenizer(self._tokenizer, model=size.name, vocabulary=size.vocabulary)}

    def tower(self, graph: Graph) -> nn.Module:
        """See `Model`."""
        modality = cast("Modality", graph)
        return ImageBind.load(self.weights[0], self.size_of_towers, modalities=(modality,)).towers[modality]

    def size(self, graph: Graph) -> int:
        """See `Model`."""
        entries = published_entries(self.size_of_towers, (cast("Modality", graph),))
        return sum(math.prod(shape) for shape in entries.values())


class ClipAndClap:
    """CLIP for sight and CLAP for sound, each with a text encoder and a space of its own. See `Model`."""

    def __init__(self, first: str | os.PathLike[str], second: str | os.PathLike[str]) -> None:
        """Read the configurations in the two folders, in either order.

        Raises:
            UsageError: they are not one of CLIP and one of CLAP.
            InputError: a configuration cannot be read, or is of a form that is not supported.
            CheckpointError: a folder holds no weights.
        """
        kinds = {read_kind(Path(folder))[0]: Path(folder) for folder in (first, second)}
        if set(kinds) != {"clip", "clap"}:
            found = " and ".join(f"{folder} of {kind}" for kind, folder in kinds.items())
            raise UsageError(f"two folders of weights must be one of clip and one of clap, and these are {found}")
        self.folders = (kinds["clip"], kinds["clap"])
        vision, audio = self.folders
        self._clip = convert_config(read_kind(vision)[1], ClipConfig, vision)
        self._clap = convert_config(read_kind(audio)[1], ClapConfig, audio)
        self.weights = (weights_file(vision), weights_file(audio))

    @property
    def name(self) -> str:
        """See `Model`."""
        return " and ".join(folder.resolve().name for folder in self.folders)

    @property
    def encoders(self) -> Encoders:
        """See `Model`."""
        audio = PREPARATIONS["clap-log-mel"].spec("log_mel", self._clap.projection_dim, context_length=CLAP_CONTEXT)
        vision = PREPARATIONS["clip-frame"].spec("frames", self._clip.projection_dim, context_length=CONTEXT)
        return Encoders(
            audio=replace(audio, text="audio_text", tokenizer=f"audio_{TOKENIZER}"),
            vision=replace(vision, text="vision_text"),
        )

    @property
    def config(self) -> dict[str, Any]:
        """See `Model`."""
        return {"vision": msgspec.to_builtins(self._clip), "audio": msgspec.to_builtins(self._clap)}

    def tokenizers(self) -> Mapping[str, bytes]:
        """See `Model`."""
        vision, audio = self.folders
        vocabulary = self._clip.text_config.vocab_size
        own = None if vocabulary == VOCABULARY else vision / TOKENIZER
        return {
            TOKENIZER: model_tokenizer(own, model=vision.name, vocabulary=vocabulary),
            f"audio_{TOKENIZER}": roberta_tokenizer(audio, self._clap.text_config),
        }

    def tower(self, graph: Graph) -> nn.Module:
        """See `Model`."""
        vision, audio = self.weights
        if graph in ("vision", "vision_text"):
            return load_clip(vision, self._clip, "vision" if graph == "vision" else "text")
        return load_clap(audio, self._clap, "audio" if graph == "audio" else "text")

    def size(self, graph: Graph) -> int:
        """See `Model`."""
        import torch

        if graph in ("vision", "vision_text"):
            entries = clip_entries(self._clip, "vision" if graph == "vision" else "text")
        else:
            sense: Literal["audio", "text"] = "audio" if graph == "audio" else "text"
            with torch.device("meta"):
                entries = clap_entries(sense, clap_tower(self._clap, sense).state_dict())
        return sum(math.prod(shape) for entry in entries.values() for shape in entry.shapes.values())


def open_model(
    weights: AnyPaths,
    config: ImageBindConfig | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
) -> Model:
    """Return the encoders of ImageBind's checkpoint, or of two folders of weights: CLIP's and CLAP's.

    Args:
        weights: one path, or two.
        config: size of ImageBind; None: the published one. The folders state their own.
        tokenizer: `tokenizer.json` of an ImageBind with a tokenizer of its own.

    Raises:
        UsageError: a number of paths that is no model, or folders of other kinds.
        InputError, CheckpointError: there is nothing to load, or a configuration is not supported.
    """
    paths = as_paths(weights)
    if len(paths) == 1:
        return ImageBindWeights(paths[0], config or ImageBindConfig.huge(), tokenizer)
    if len(paths) != 2:
        raise UsageError(f"give ImageBind's checkpoint, or the folders of CLIP and of CLAP, not {len(paths)} paths")
    if tokenizer is not None:
        raise UsageError("--tokenizer is for ImageBind; the folders of CLIP and CLAP have their own")
    return ClipAndClap(*paths)


def as_paths(weights: AnyPaths) -> tuple[Path, ...]:
    """Return one path or several as a tuple."""
    return (Path(weights),) if isinstance(weights, str | os.PathLike) else tuple(map(Path, weights))


def joined_sha256(hashes: Sequence[str]) -> str:
    """Return the hash of one file, or one over the hashes of several."""
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
