"""What `manifest.json` says of a bundle: read strictly, so that a misspelt or unknown field is an error."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from ovavel.runtime.bundle.calibration import Calibration, Rule
from ovavel.runtime.bundle.graphs import Encoders, Graph
from ovavel.runtime.errors import BundleError
from ovavel.runtime.system.untrusted import read_json
from ovavel.runtime.types import BUFFER, FusionKind

__all__ = [
    "ENGINE",
    "FORMAT_VERSION",
    "MANIFEST",
    "FileEntry",
    "Fusion",
    "Gate",
    "Manifest",
    "Model",
    "Parity",
    "ParityCheck",
    "Sha256",
]

MANIFEST = "manifest.json"
FORMAT_VERSION = 1
"""Raised whenever an older runtime would misread a newer bundle. Only this one is read."""
ENGINE = "onnxruntime-cpu"
"""The engine whose precision `Bundle.graph` answers with by default."""

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class FileEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a file of the bundle must be, byte for byte."""

    sha256: Sha256
    bytes: Annotated[int, Meta(ge=0)]


class Model(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The encoders and the temporal head that were exported."""

    name: str
    weights_sha256: Sha256
    """Hash of the checkpoint file the encoders came from."""
    licence: str
    """Licence of those weights, in a sentence; it binds whoever uses the bundle."""
    config: dict[str, Any]
    """Sizes of the encoders, as the exporter was given them."""
    head_layers: Annotated[int, Meta(ge=0)]
    """Blocks per modality in the head; 0 without fine-tuning."""
    head: str = "temporal"
    """Kind of the head."""
    head_sha256: Sha256 | None = None
    """Hash of the temporal head's checkpoint; None without one."""


class Fusion(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the head makes a decision of two embeddings (docs/method.md, Temporal head and Decision)."""

    audio_scale: float = 20.0
    """Norm with which audio embeddings enter the temporal head. Any will do: the head's graph scales them itself."""
    vision_scale: float = 1.0
    score: str = "min-max(sqrt(max(audio_similarity * vision_similarity, 0)))"
    min_max_epsilon: float = 1e-8
    context_segments: int = BUFFER
    """How many segments the temporal head was made for."""
    decision: FusionKind = "published"
    """What live use and recordings decide with by default; `score` is what the head's graph computes."""
    rule: Rule | None = None
    """Decides in place of `decision`, where one was fitted and put into the bundle."""

    @property
    def decides(self) -> Rule:
        """The rule that decides by default."""
        return self.rule or Rule(kind=self.decision)


class ParityCheck(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How far one exported graph is from PyTorch, at worst."""

    graph: Graph
    precision: str = "fp32"
    method: str = "ONNX Runtime on the CPU"
    """What ran the graph for the comparison, e.g. "ONNX Runtime on the CPU, emulating bf16"."""
    cases: int
    """Inputs that were compared."""
    max_abs_difference: float
    min_cosine: float | None
    """Smallest cosine similarity between the two embeddings; None for the head, which gives no embedding."""
    tolerance: float | None
    """What `max_abs_difference` had to stay within; None for a quantised graph, which is held to its cosine."""
    required_cosine: float | None = None
    """What `min_cosine` had to reach; None for a graph in full precision."""


class Gate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A comparison with PyTorch in fp32 that an engine went through at a precision (docs/parity.md)."""

    engine: str
    """What ran the graphs, e.g. "onnxruntime-cpu"."""
    precision: dict[Graph, str]
    """Of each graph that was compared."""
    passed: bool
    reference: str
    """"PyTorch fp32", or "golden outputs of PyTorch fp32"."""
    inputs: int
    """Frames and waveforms that were compared."""
    min_cosine: dict[Graph, float]
    """Smallest cosine similarity of an embedding with the reference's. What is not finite is reported as -1."""
    max_abs_difference: dict[Graph, float]
    """Largest difference of a component of an embedding, or of a similarity for the head; likewise reported as 2."""
    decisions: float
    """Share of the seconds decided alike, in [0, 1]."""
    device: str
    """Name of the CPU or GPU."""
    cpu_features: tuple[str, ...] = ()
    """Of the CPU, where it ran there (`system.hardware.cpu_features`): CPUs of one name differ in them."""
    versions: dict[str, str]
    """Libraries of the engine."""
    graphs_sha256: Sha256
    """Hash over the files of the vision, audio and head graphs: other graphs need another gate."""
    failures: tuple[str, ...]
    """What kept it from passing, the first stage first, e.g. "audio: cosine 0.9100, needs 0.99 (for silence)"."""


class Parity(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The comparisons that let the bundle be written, and those that verify engines."""

    versions: dict[str, str]
    """Libraries that were compared."""
    checks: tuple[ParityCheck, ...]
    gates: tuple[Gate, ...] = ()
    """One for each engine, precision, device and state of the graphs that was compared."""


class Manifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """All that export passes to runtime. It holds no time of day; what was measured is in `parity` alone."""

    format_version: int
    ovavel_version: str
    model: Model
    encoders: Encoders
    """What each sense's encoder takes and gives."""
    graphs: dict[Graph, dict[str, str]]
    """Graph → precision → file."""
    precision: dict[str, dict[Graph, str]]
    """Engine (`BackendInfo.engine`) → graph → the precision it runs unless another is named, where that is exact."""
    exact_on: dict[str, tuple[str, ...]]
    """Precision → the CPU features one of which makes it exact on a CPU, or "any". One that it does not say is held to
    `ovavel.runtime.bundle.precision.EXACT_ON`."""
    files: dict[str, FileEntry]
    """Every file but the manifest itself."""
    fusion: Fusion
    opset: int
    parity: Parity
    vocabulary: str
    """`Vocabulary.version` as export, or adding and removing names, left it: names and embeddings in any other order
    are not what was verified."""
    calibration: Calibration | None = None
    """What makes its scores probabilities; left out of the file where there is none."""

    def calibrated(self, calibration: Calibration | None) -> Manifest:
        """Return this manifest with `calibration` in the place of its own, or without one."""
        return msgspec.structs.replace(self, calibration=calibration)

    def decided(self, rule: Rule) -> Manifest:
        """Return this manifest with `rule` deciding by default."""
        own = Rule(kind=self.fusion.decision)
        return msgspec.structs.replace(
            self, fusion=msgspec.structs.replace(self.fusion, rule=None if rule == own else rule)
        )

    def gated(self, gates: Iterable[Gate]) -> Manifest:
        """Return this manifest with `gates`, each in the place of the older one of the same kind."""
        kept = {_kind(gate): gate for gate in (*self.parity.gates, *gates)}
        parity = msgspec.structs.replace(self.parity, gates=tuple(kept.values()))
        return msgspec.structs.replace(self, parity=parity)

    def encode(self) -> bytes:
        """Return the bytes of `manifest.json`: indented JSON with sorted file names."""
        ordered = msgspec.structs.replace(self, files=dict(sorted(self.files.items())))
        return msgspec.json.format(msgspec.json.encode(ordered), indent=2) + b"\n"

    @classmethod
    def decode(cls, data: bytes, *, where: str) -> Manifest:
        """Read the bytes of a `manifest.json`; `where` names it in errors.

        Raises:
            BundleError: it is not JSON, of another format version, a field is missing, unknown or of the wrong type,
                or it asks for a fusion that this runtime does not do.
        """
        try:
            version = read_json(data, _Version).format_version
        except ValueError as error:
            raise BundleError(f"{where} is not a bundle manifest ({error}); export or copy the bundle again") from error
        if version != FORMAT_VERSION:
            fix = "update ovavel" if version > FORMAT_VERSION else "export the bundle again"
            raise BundleError(
                f"{where} has format version {version}, and this ovavel reads version {FORMAT_VERSION}: {fix}"
            )
        try:
            manifest = read_json(data, cls)
        except ValueError as error:
            raise BundleError(f"{where} is damaged ({error}); export or copy the bundle again") from error
        asked = msgspec.structs.replace(
            manifest.fusion, audio_scale=Fusion().audio_scale, decision=Fusion().decision, rule=None
        )
        if asked != Fusion():
            raise BundleError(
                f"{where} asks for another fusion than this ovavel does ({_difference(asked, Fusion())}): "
                "use the ovavel that wrote it, or export it again"
            )
        return manifest


class _Version(Struct, kw_only=True):
    """The one field that every format version has."""

    format_version: int


def _kind(gate: Gate) -> tuple[object, ...]:
    """What tells gates apart: of two with the same, the newer one counts."""
    precision = tuple(sorted(gate.precision.items()))
    return gate.engine, precision, gate.device, gate.cpu_features, gate.graphs_sha256, gate.reference


def _difference(asked: Struct, done: Struct) -> str:
    pairs = ((field, getattr(asked, field), getattr(done, field)) for field in asked.__struct_fields__)
    return ", ".join(f"{field} = {theirs!r}, not {ours!r}" for field, theirs, ours in pairs if theirs != ours)
