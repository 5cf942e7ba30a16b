"""The graphs in a bundle, and the inputs and outputs of its encoders."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

from ovavel.runtime.types import Sense

__all__ = [
    "DECIDING",
    "SENSES",
    "TEXT_GRAPHS",
    "EncoderSpec",
    "Encoders",
    "Graph",
    "GraphSpec",
    "Parameter",
    "Shape",
    "graph_specs",
]

# B batch, T segments, C classes with the background last

TextGraph: TypeAlias = Literal["text", "audio_text", "vision_text"]
Graph = Literal["vision", "audio", "text", "audio_text", "vision_text", "head"]
"""A bundle has one graph "text" if a single text encoder serves both senses, otherwise one for each sense."""

DECIDING: tuple[Graph, ...] = ("vision", "audio", "head")
"""The graphs that a window passes through."""
TEXT_GRAPHS: tuple[TextGraph, ...] = ("text", "audio_text", "vision_text")
SENSES: tuple[Sense, ...] = ("audio", "vision")
"""In the order in which the head takes them."""

Parameter: TypeAlias = int | float | tuple[float, ...]
Shape: TypeAlias = tuple[int | str, ...]
"""A letter stands for a size that may differ from call to call."""
_Size = Annotated[int, Meta(ge=1, le=2**20)]


class EncoderSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Input and output of one sense's encoder, and which text encoder shares its embedding space."""

    input: str
    """Name of the graph's input."""
    shape: Annotated[tuple[_Size, ...], Meta(min_length=1, max_length=4)]
    """Shape of one prepared second, without the batch, e.g. (3, 224, 224)."""
    embedding_size: _Size
    """D of this sense; senses may differ."""
    preprocessing: str
    """Name of the preprocessing in `ovavel.runtime.pipeline.preprocess.PREPARATIONS`."""
    parameters: dict[str, Parameter]
    """Parameters of the preprocessing: sample rate or frame size, normalization."""
    text: TextGraph = "text"
    """Graph of the text encoder whose embeddings this sense is compared with."""
    tokenizer: str = "tokenizer.json"
    """Tokenizer file of this text encoder."""
    context_length: _Size
    """L, tokens in a row of this text encoder."""


class Encoders(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The encoders of both senses."""

    audio: EncoderSpec
    vision: EncoderSpec

    def __post_init__(self) -> None:
        descriptions = [
            (each.embedding_size, each.context_length, each.tokenizer) for each in (self.audio, self.vision)
        ]
        if self.shared_text and descriptions[0] != descriptions[1]:
            raise ValueError("senses with one text encoder need one embedding size, tokenizer and length of texts")

    def of(self, sense: Sense) -> EncoderSpec:
        """The encoder of `sense`."""
        return self.audio if sense == "audio" else self.vision

    @property
    def sizes(self) -> tuple[int, int]:
        """D of audio and of vision."""
        return self.audio.embedding_size, self.vision.embedding_size

    @property
    def shared_text(self) -> bool:
        """Whether one text encoder serves both senses."""
        return self.audio.text == self.vision.text

    @property
    def text_senses(self) -> tuple[Sense, ...]:
        """One sense for each text encoder."""
        return ("vision",) if self.shared_text else SENSES

    @property
    def text_graphs(self) -> tuple[TextGraph, ...]:
        """The graphs of the text encoders, each once."""
        return tuple(self.of(sense).text for sense in self.text_senses)

    @property
    def tokenizers(self) -> tuple[str, ...]:
        """The files of the tokenizers, each once."""
        return tuple(dict.fromkeys(self.of(sense).tokenizer for sense in self.text_senses))


class GraphSpec(Struct, frozen=True, kw_only=True):
    """Names and shapes at the border of a graph, in the order in which it takes and returns them.

    Tokens are int64 and all others float32, whatever the graph's precision.
    """

    inputs: dict[str, Shape]
    outputs: dict[str, Shape]


def graph_specs(encoders: Encoders) -> dict[Graph, GraphSpec]:
    """Return names and shapes of all graphs of a bundle with `encoders`."""
    audio, vision = encoders.sizes
    specs: dict[Graph, GraphSpec] = {}
    for sense in SENSES:
        each = encoders.of(sense)
        embedding: dict[str, Shape] = {"embedding": ("B", each.embedding_size)}
        specs[sense] = GraphSpec(inputs={each.input: ("B", *each.shape)}, outputs=embedding)
        specs[each.text] = GraphSpec(inputs={"tokens": ("B", each.context_length)}, outputs=embedding)
    specs["head"] = GraphSpec(
        inputs={
            "audio": ("B", "T", audio),
            "vision": ("B", "T", vision),
            "audio_text": ("C", audio),
            "vision_text": ("C", vision),
        },
        outputs=dict.fromkeys(("audio_similarity", "vision_similarity", "score"), ("B", "T", "C")),
    )
    return specs
