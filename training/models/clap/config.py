"""Size of a CLAP model, as its `config.json` gives it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

__all__ = ["ClapConfig"]

_Size = Annotated[int, Meta(ge=1, le=2**20)]
_Eps = Annotated[float, Meta(gt=0, lt=1)]


class AudioSize(Struct, frozen=True, kw_only=True):
    """HTSAT."""

    patch_embeds_hidden_size: _Size = 96
    hidden_size: _Size = 768
    depths: tuple[_Size, ...] = (2, 2, 6, 2)
    num_attention_heads: tuple[_Size, ...] = (4, 8, 16, 32)
    layer_norm_eps: _Eps = 1e-5
    num_mel_bins: Literal[64] = 64
    spec_size: Literal[256] = 256
    patch_size: Literal[4] = 4
    patch_stride: tuple[Literal[4], Literal[4]] = (4, 4)
    patch_embed_input_channels: Literal[1] = 1
    window_size: Literal[8] = 8
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    enable_patch_layer_norm: bool = True
    enable_fusion: bool = False
    hidden_act: Literal["gelu"] = "gelu"
    projection_hidden_act: Literal["relu"] = "relu"

    def __post_init__(self) -> None:
        if self.enable_fusion:
            raise ValueError("enable_fusion; use the weights of the unfused model (clap-htsat-unfused)")
        if not (self.qkv_bias and self.enable_patch_layer_norm) or self.mlp_ratio != 4:
            raise ValueError("a form of HTSAT that was not published")
        if not 1 <= len(self.depths) <= 4 or len(self.num_attention_heads) != len(self.depths):
            raise ValueError("one to four stages, each with its number of heads")
        if self.hidden_size != self.patch_embeds_hidden_size << len(self.depths) - 1:
            raise ValueError("a hidden_size that is not patch_embeds_hidden_size, doubled with each stage")
        if any((self.patch_embeds_hidden_size << i) % heads for i, heads in enumerate(self.num_attention_heads)):
            raise ValueError("a width that num_attention_heads does not divide")


class TextSize(Struct, frozen=True, kw_only=True):
    """RoBERTa."""

    vocab_size: _Size = 50_265
    hidden_size: _Size = 768
    intermediate_size: _Size = 3072
    num_hidden_layers: _Size = 12
    num_attention_heads: _Size = 12
    max_position_embeddings: Annotated[int, Meta(ge=79, le=2**20)] = 514
    type_vocab_size: Literal[1] = 1
    pad_token_id: Literal[1] = 1
    layer_norm_eps: _Eps = 1e-12
    hidden_act: Literal["gelu"] = "gelu"
    projection_hidden_act: Literal["relu"] = "relu"

    def __post_init__(self) -> None:
        if self.intermediate_size != 4 * self.hidden_size:
            raise ValueError("an intermediate_size other than four times the hidden_size")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("a hidden_size that num_attention_heads does not divide")


class ClapConfig(Struct, frozen=True, kw_only=True):
    """The fields of `config.json` that matter here; `clap-htsat-unfused` by default."""

    text_config: TextSize = field(default_factory=TextSize)
    audio_config: AudioSize = field(default_factory=AudioSize)
    projection_dim: _Size = 512
    """D."""
