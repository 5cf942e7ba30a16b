"""ImageBind: vision, audio and text encoders with a common embedding space.

An independent implementation from the published specification (docs/method.md, Encoders), compatible with its weights.

Many lines: the model is easier to compare with the paper as one piece.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, cast, get_args

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovavel.runtime.bundle.graphs import Encoders
from ovavel.runtime.errors import CheckpointError, InputError, UsageError
from ovavel.runtime.pipeline.preprocess import PREPARATIONS
from ovavel.training.models.checkpoint import check_entries, read_checkpoint
from ovavel.training.models.imagebind.published_names import modality_of, published_name
from ovavel.training.models.unit import unit_norm

__all__ = [
    "CONTEXT",
    "FRAME",
    "LOG_MEL",
    "VOCABULARY",
    "Block",
    "ImageBind",
    "ImageBindConfig",
    "Modality",
    "PatchTower",
    "TextTower",
    "TowerConfig",
    "published_entries",
    "read_config",
]

# B batch, N tokens, W width of a tower, H its heads, D embedding size

Modality = Literal["vision", "audio", "text"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)

FRAME = (3, 224, 224)
LOG_MEL = (1, 128, 204)
CONTEXT = 77
VOCABULARY = 49_408
"""Number of tokens in CLIP's byte-pair encoding."""
_FRAME_TOKENS = 256  # 16 × 16 patches of 14 × 14
_MEL_TOKENS = 228  # 12 × 19 patches of 16 × 16 every 10
_EPS = 1e-6

Activation: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerConfig:
    """Size of one transformer."""

    width: int
    blocks: int
    heads: int

    def __post_init__(self) -> None:
        if min(self.width, self.blocks, self.heads) < 1 or self.width % self.heads:
            raise ValueError(f"a tower needs a positive width that its heads divide, and at least one block: {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageBindConfig:
    """Size of an ImageBind model. Stems and text length are those of the published model."""

    name: str
    vision: TowerConfig
    audio: TowerConfig
    text: TowerConfig
    embedding_size: int
    """D, common to the three encoders."""
    vocabulary: int = VOCABULARY
    """Number of tokens; the published one unless the model has its own tokenizer."""

    def __post_init__(self) -> None:
        if min(self.embedding_size, self.vocabulary) < 1:
            raise ValueError(
                f"sizes must be positive, not {self.embedding_size} (embedding), {self.vocabulary} (tokens)"
            )

    @property
    def encoders(self) -> Encoders:
        """What a bundle says of these towers: one text space serves both senses."""
        return Encoders(
            audio=PREPARATIONS["kaldi-log-mel"].spec("log_mel", self.embedding_size, context_length=CONTEXT),
            vision=PREPARATIONS["clip-frame"].spec("frames", self.embedding_size, context_length=CONTEXT),
        )

    @classmethod
    def huge(cls) -> Self:
        """Return the size of the published model: 1.07 billion parameters in these three modalities."""
        return cls(
            name="huge",
            vision=TowerConfig(width=1280, blocks=32, heads=16),
            audio=TowerConfig(width=768, blocks=12, heads=12),
            text=TowerConfig(width=1024, blocks=24, heads=16),
            embedding_size=1024,
        )

    @classmethod
    def tiny(cls) -> Self:
        """Return the size of a model for tests and demonstrations: the same architecture with 4 million parameters."""
        return cls(
            name="tiny",
            vision=TowerConfig(width=64, blocks=2, heads=4),
            audio=TowerConfig(width=48, blocks=3, heads=4),
            text=TowerConfig(width=64, blocks=2, heads=4),
            embedding_size=32,
        )

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, as stored in a bundle's manifest."""
        return cast("dict[str, Any]", msgspec.to_builtins(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Convert back from `to_dict`.

        Raises:
            UsageError: a value is missing or invalid.
        """
        try:
            return msgspec.convert(dict(values), cls)
        except (msgspec.ValidationError, ValueError) as error:  # also for a name that is not a string
            raise UsageError(f"invalid ImageBind configuration: {error}") from error


def _zeros(x: Tensor) -> Tensor:
    """Return zeros (B, 1, W) for (B, N, W). Adding them to a parameter (1, 1, W) repeats it over the batch.

    This form exports to ONNX without arithmetic on shapes, which GPUs leave to the CPU. `expand` would need it, and for
    `pad` ONNX Runtime long had no CUDA kernel.
    """
    return x.narrow(1, 0, 1) * 0


class Attention(nn.Module):
    """Multi-head self-attention, (B, N, W) → (B, N, W)."""

    def __init__(self, config: TowerConfig, *, causal: bool, extra_token: bool) -> None:
        super().__init__()
        self.heads = config.heads
        self.causal = causal
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.extra_key = nn.Parameter(torch.zeros(1, 1, config.width)) if extra_token else None
        self.extra_value = nn.Parameter(torch.zeros(1, 1, config.width)) if extra_token else None

    def forward(
        self, x: Tensor, zeros: Tensor | None = None, *, first_only: bool = False, key_bias: Tensor | None = None
    ) -> Tensor:
        """Attend; with `first_only`, only the first token is a query → (B, 1, W).

        `zeros` is the result of `_zeros` if the caller has it already. `key_bias` is as in `mixed`.
        """
        return cast("Tensor", self.out(self.mixed(self.qkv(x), zeros, first_only=first_only, key_bias=key_bias)))

    def mixed(
        self, qkv: Tensor, zeros: Tensor | None = None, *, first_only: bool = False, key_bias: Tensor | None = None
    ) -> Tensor:
        """Mix values by queries and keys, (B, N, 3 W) → (B, N, W), without the last matrix.

        `key_bias`, (1, 1, 1, K), is added to the scores of the K keys, the extra one last: with log(s), a key counts as
        s equal ones.
        """
        q, k, v = qkv.chunk(3, dim=-1)
        if first_only:
            q = q.narrow(1, 0, 1)
        if self.extra_key is not None and self.extra_value is not None:
            zeros = _zeros(q) if zeros is None else zeros
            k = torch.cat((k, zeros + self.extra_key), dim=1)
            v = torch.cat((v, zeros + self.extra_value), dim=1)
        q, k, v = (torch.unflatten(part, 2, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, key_bias, is_causal=self.causal)  # (B, H, N, W / H)
        return mixed.transpose(1, 2).flatten(2)


class Block(nn.Module):
    """Pre-norm transformer block, (B, N, W) → (B, N, W)."""

    def __init__(
        self,
        config: TowerConfig,
        *,
        causal: bool = False,
        extra_token: bool = False,
        eps: float = _EPS,
        activation: Activation = F.gelu,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.norm_1 = nn.LayerNorm(config.width, eps=eps)
        self.attention = Attention(config, causal=causal, extra_token=extra_token)
        self.norm_2 = nn.LayerNorm(config.width, eps=eps)
        self.fc1 = nn.Linear(config.width, 4 * config.width)
        self.fc2 = nn.Linear(4 * config.width, config.width)

    def forward(
        self, x: Tensor, zeros: Tensor | None = None, *, first_only: bool = False, key_bias: Tensor | None = None
    ) -> Tensor:
        """Apply the block; with `first_only`, return only the first token of the result, (B, 1, W)."""
        mixed = self.attention(self.norm_1(x), zeros, first_only=first_only, key_bias=key_bias)
        x = (x.narrow(1, 0, 1) if first_only else x) + mixed
        return x + cast("Tensor", self.fc2(self.activation(self.fc1(self.norm_2(x)))))


class PatchTower(nn.Module):
    """Encoder of inputs cut into patches: frames and log-mels. Its class token becomes the embedding."""

    stem_norm: nn.Module
    input_norm: nn.Module

    def __init__(
        self,
        config: TowerConfig,
        size: int,
        stem: nn.Conv2d,
        tokens: int,
        *,
        audio: bool = False,
        eps: float = _EPS,
        activation: Activation = F.gelu,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stem_norm = nn.LayerNorm(config.width, eps=1e-5) if audio else nn.Identity()
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.positions = nn.Parameter(torch.zeros(1, 1 + tokens, config.width))
        self.input_norm = nn.Identity() if audio else nn.LayerNorm(config.width, eps=eps)
        self.blocks = nn.ModuleList(
            Block(config, extra_token=audio, eps=eps, activation=activation) for _ in range(config.blocks)
        )
        self.output_norm = nn.LayerNorm(config.width, eps=eps)
        self.projection = nn.Linear(config.width, size, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        """Encode (B, channels, height, width) → (B, D) of unit norm."""
        return self.encode(image, self.positions)

    def encode(self, image: Tensor, positions: Tensor, key_bias: Tensor | None = None) -> Tensor:
        """Encode an image whose patches have the `positions`, (1, N, W). `key_bias` is as in `Attention.mixed`."""
        x = self.stem_norm(self.stem(image).flatten(2).transpose(1, 2))
        zeros = _zeros(x)
        x = torch.cat((zeros + self.class_token, x), dim=1) + positions
        x = self.input_norm(x)
        *blocks, last = self.blocks
        for block in blocks:
            x = block(x, zeros, key_bias=key_bias)
        x = last(x, zeros, first_only=True, key_bias=key_bias)  # the other tokens are not needed any more
        return unit_norm(self.projection(self.output_norm(x.squeeze(1))))


class TextTower(nn.Module):
    """Encoder of token ids. The token with the highest id, which is the end token, becomes the embedding."""

    def __init__(
        self,
        config: TowerConfig,
        size: int,
        vocabulary: int,
        *,
        eps: float = _EPS,
        activation: Activation = F.gelu,
    ) -> None:
        super().__init__()
        # Not nn.Embedding: its random initialization on the meta device imports 0.1 GB of compiler.
        self.embedding = nn.Parameter(torch.zeros(vocabulary, config.width))
        self.positions = nn.Parameter(torch.zeros(1, CONTEXT, config.width))
        self.blocks = nn.ModuleList(
            Block(config, causal=True, eps=eps, activation=activation) for _ in range(config.blocks)
        )
        self.output_norm = nn.LayerNorm(config.width, eps=eps)
        self.projection = nn.Linear(config.width, size, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode (B, 77) int64 → (B, D) of unit norm."""
        x = F.embedding(tokens, self.embedding) + self.positions
        for block in self.blocks:
            x = block(x)
        end = tokens.argmax(dim=-1)[:, None, None].expand(-1, 1, x.shape[2])
        return unit_norm(self.projection(self.output_norm(x.gather(1, end)[:, 0])))


def _vision_tower(config: ImageBindConfig) -> nn.Module:
    # The published stem is a Conv3d over the frame and its copy; a Conv2d with the sum of its kernels is equivalent.
    stem = nn.Conv2d(FRAME[0], config.vision.width, kernel_size=14, stride=14, bias=False)
    return PatchTower(config.vision, config.embedding_size, stem, _FRAME_TOKENS, audio=False)


def _audio_tower(config: ImageBindConfig) -> nn.Module:
    stem = nn.Conv2d(LOG_MEL[0], config.audio.width, kernel_size=16, stride=10, bias=False)
    return PatchTower(config.audio, config.embedding_size, stem, _MEL_TOKENS, audio=True)


def _text_tower(config: ImageBindConfig) -> nn.Module:
    return TextTower(config.text, config.embedding_size, config.vocabulary)


_TOWERS: Mapping[Modality, Callable[[ImageBindConfig], nn.Module]] = {
    "vision": _vision_tower,
    "audio": _audio_tower,
    "text": _text_tower,
}


class ImageBind(nn.Module):
    """The encoders of some or all modalities.

    All embeddings are float32 of unit norm. The published model then scales audio by 20 and text by a learned factor.
    Here the former is a constant of the temporal head, and the latter cancels in every cosine similarity.
    Use `load` to create a model; the constructor leaves the weights uninitialized.
    """

    towers: nn.ModuleDict
    """One encoder per modality, each usable alone, e.g. `model.towers["vision"]`."""

    def __init__(self, config: ImageBindConfig, modalities: Collection[Modality] = MODALITIES) -> None:
        super().__init__()
        unknown = sorted(set(modalities) - set(MODALITIES))
        if unknown or not modalities:
            raise UsageError(f"the modalities are {', '.join(MODALITIES)}, not {', '.join(unknown) or 'none'}")
        self.config = config
        self.towers = nn.ModuleDict({name: _TOWERS[name](config) for name in MODALITIES if name in modalities})

    @classmethod
    def load(
        cls,
        path: str | Path,
        config: ImageBindConfig | None = None,
        modalities: Collection[Modality] = MODALITIES,
    ) -> Self:
        """Load the published checkpoint or one with the same names, in evaluation mode and frozen.

        The weights stay mapped to the file and take memory when they are first used, so do not change the file while
        the model is in use. Half-precision weights are converted to float32, which copies them.

        Args:
            path: `.pth` or safetensors. Depth, thermal and IMU entries are ignored.
            config: size of the model; None: `ImageBindConfig.huge()`, the published one.
            modalities: encoders to load; entries of the others are ignored.

        Raises:
            CheckpointError: not a checkpoint of this model; the message names missing, extra or misshaped entries.
        """
        config = config or ImageBindConfig.huge()
        with torch.device("meta"):
            model = cls(config, modalities)
        model.requires_grad_(requires_grad=False)
        ours = (None, *modalities)  # entries of no modality are refused, not ignored
        found = {name: tensor for name, tensor in read_checkpoint(path).items() if modality_of(name) in ours}
        expected = published_entries(config, modalities)
        optional = frozenset(name for name in expected if name.endswith(".mask"))  # rebuilt by causal attention
        check_entries(path, found, expected, model=f"ImageBind {config.name!r}", optional=optional)
        for modality, tower in model.towers.items():
            state = {}
            for name in tower.state_dict():
                tensor = found[published_name(modality, name)].float()
                state[name] = tensor.sum(dim=2) if (modality, name) == ("vision", "stem.weight") else tensor
            try:
                tower.load_state_dict(state, assign=True)
            except RuntimeError as error:
                raise CheckpointError(f"{path} does not fit ImageBind {config.name!r}: {error}") from error
        return model.eval()

    def vision(self, frames: Tensor) -> Tensor:
        """Encode frames (B, 3, 224, 224) float32, prepared as in docs/method.md, Frame → (B, D)."""
        return self._encode("vision", frames, FRAME)

    def audio(self, log_mels: Tensor) -> Tensor:
        """Encode log-mels (B, 1, 128, 204) float32, prepared as in docs/method.md, Waveform → (B, D)."""
        return self._encode("audio", log_mels, LOG_MEL)

    def text(self, tokens: Tensor) -> Tensor:
        """Encode tokens (B, 77) int64, prepared as in docs/method.md, Text → (B, D)."""
        return self._encode("text", tokens, (CONTEXT,))

    def _encode(self, modality: Modality, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        if modality not in self.towers:
            raise UsageError(f"this ImageBind was loaded without {modality}; name it in `modalities`")
        if tuple(x.shape[1:]) != shape:
            raise UsageError(f"{modality} takes (B, {', '.join(map(str, shape))}), not {tuple(x.shape)}")
        return cast("Tensor", self.towers[modality](x))


def published_entries(
    config: ImageBindConfig, modalities: Collection[Modality] = MODALITIES
) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the published state dict for a model of this size."""
    with torch.device("meta"):
        model = ImageBind(config, modalities)
    entries = {}
    for modality, tower in model.towers.items():
        for name, tensor in tower.state_dict().items():
            shape = tuple(tensor.shape)
            if (modality, name) == ("vision", "stem.weight"):
                shape = (*shape[:2], 2, *shape[2:])
            entries[published_name(modality, name)] = shape
        if modality == "text":
            entries["modality_preprocessors.text.mask"] = (CONTEXT, CONTEXT)
        if modality != "vision":
            entries[f"modality_postprocessors.{modality}.1.log_logit_scale"] = ()
    return entries


def read_config(name: str) -> ImageBindConfig:
    """Return the configuration `huge` or `tiny`, or the one in the JSON file `name`, which may be a bundle's manifest.

    Raises:
        UsageError: there is no such configuration.
        InputError: the file does not exist or is not JSON.
    """
    if name in ("huge", "tiny"):
        return ImageBindConfig.huge() if name == "huge" else ImageBindConfig.tiny()
    try:
        values = json.loads(Path(name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        kind = InputError if Path(name).suffix else UsageError  # a file, or an unknown name
        raise kind(f"--config must be huge, tiny or a JSON file, not {name!r} ({error})") from error
    if not isinstance(values, dict):
        raise UsageError(f"the configuration {name} must be a JSON object")
    model = values.get("model")
    config = model.get("config") if isinstance(model, dict) else values
    return ImageBindConfig.from_dict(config if isinstance(config, dict) else {})
