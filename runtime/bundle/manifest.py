"""The content of a bundle's `manifest.json`, read strictly: a misspelt or unknown field is an error."""

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
    "EconomyGate",
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
"""Increased whenever an older runtime would misread a newer bundle. Only this version is read."""
ENGINE = "onnxruntime-cpu"
"""The engine whose precision `Bundle.graph` uses by default."""

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class FileEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Size and hash that a file of the bundle must have."""

    sha256: Sha256
    bytes: Annotated[int, Meta(ge=0)]


class Model(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The encoders and the temporal head that were exported."""

    name: str
    weights_sha256: Sha256
    """Hash of the checkpoint file the encoders came from."""
    licence: str
    """Licence of those weights, in a sentence; it binds every user of the bundle."""
    config: dict[str, Any]
    """Sizes of the encoders, as given to the exporter."""
    head_layers: Annotated[int, Meta(ge=0)]
    """Blocks per modality in the head; 0 without fine-tuning."""
    head: str = "temporal"
    """Kind of the head."""
    head_sha256: Sha256 | None = None
    """Hash of the temporal head's checkpoint; None without one."""


class Fusion(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the head turns two embeddings into a decision (docs/method.md, Temporal head and Decision)."""

    audio_scale: float = 20.0
    """Norm of the audio embeddings at the input of the temporal head; the head's graph scales them itself."""
    vision_scale: float = 1.0
    score: str = "min-max(sqrt(max(audio_similarity * vision_similarity, 0)))"
    min_max_epsilon: float = 1e-8
    context_segments: int = BUFFER
    """Number of segments that the temporal head was made for."""
    decision: FusionKind = "published"
    """The default fusion for live use and recordings; `score` is the one that the head's graph computes."""
    rule: Rule | None = None
    """Decides in place of `decision`, where one was fitted and put into the bundle."""

    @property
    def decides(self) -> Rule:
        """The rule that decides by default."""
        return self.rule or Rule(kind=self.decision)


class ParityCheck(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Largest deviation of one exported graph from PyTorch."""

    graph: Graph
    precision: str = "fp32"
    method: str = "ONNX Runtime on the CPU"
    """What ran the graph for the comparison, e.g. "ONNX Runtime on the CPU, emulating bf16"."""
    cases: int
    """Number of inputs compared."""
    max_abs_difference: float
    min_cosine: float | None
    """Minimum cosine similarity of the two embeddings; None for the head, which has no embedding output."""
    tolerance: float | None
    """Limit of `max_abs_difference`; None for a quantized graph, whose cosine is limited instead."""
    required_cosine: float | None = None
    """Limit of `min_cosine`; None for a graph in full precision."""


class Gate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The result of comparing an engine at a precision with PyTorch in fp32 (docs/parity.md)."""

    engine: str
    """The engine that ran the graphs, e.g. "onnxruntime-cpu"."""
    precision: dict[Graph, str]
    """Precision of each graph that was compared."""
    passed: bool
    reference: str
    """"PyTorch fp32", or "golden outputs of PyTorch fp32"."""
    inputs: int
    """Number of frames and waveforms compared."""
    min_cosine: dict[Graph, float]
    """Minimum cosine similarity of an embedding with the reference's; non-finite values count as -1."""
    max_abs_difference: dict[Graph, float]
    """Largest difference of an embedding's component, or of a similarity for the head; non-finite values count as 2."""
    decisions: float
    """Share of the seconds with the same decision, in [0, 1]."""
    device: str
    """Name of the CPU or GPU."""
    cpu_features: tuple[str, ...] = ()
    """Features of the CPU if it ran there (`system.hardware.cpu_features`): CPUs with the same name may differ."""
    versions: dict[str, str]
    """Versions of the engine's libraries."""
    graphs_sha256: Sha256
    """Hash over the files of the vision, audio and head graphs; the gate is valid only for these."""
    failures: tuple[str, ...]
    """Why it failed, the first stage first, e.g. "audio: cosine 0.9100, needs 0.99 (for silence)"."""


class Parity(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The comparisons made at export, and those that verify engines."""

    versions: dict[str, str]
    """Versions of the libraries that were compared."""
    checks: tuple[ParityCheck, ...]
    gates: tuple[Gate, ...] = ()
    """One gate for each engine, precision, device and state of the graphs that was compared."""


class EconomyGate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The result of comparing the economy mode "auto" with all pictures encoded (docs/economy.md)."""

    passed: bool
    rule: str
    """Name of the rule that decided."""
    budget: Annotated[float, Meta(gt=0, le=1)]
    """Drift budget; the gate is valid for this one and smaller ones."""
    names: str
    """`names_fingerprint` of the class names."""
    decides: str = ""
    """`deciding_fingerprint` of the rule and the vocabulary, its names among them; the gate is valid for these alone.
    An empty one is valid for none."""
    reference: str
    """What was compared, e.g. "2 days of the demo world, seed 7"."""
    seconds: Annotated[int, Meta(ge=1)]
    """Seconds compared."""
    decisions: Annotated[float, Meta(ge=0, le=1)]
    """Share of the seconds with the same final decision."""
    events: Annotated[float, Meta(ge=0, le=1)]
    """F score of the events, those with all pictures encoded being the truth."""
    saved: Annotated[float, Meta(ge=0, le=1)] | None = None
    """Share of the encoders' operations that was saved; None where their sizes are not known."""
    drift_p99: float | None = None
    """99th percentile of the drift of reused embeddings, as 1 - cosine."""
    failures: tuple[str, ...] = ()
    """Why it failed, e.g. "decisions: 0.9981 are the same, needs 0.999"."""


class Manifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Everything that export passes to the runtime. It has no timestamps; measurements are only in `parity`."""

    format_version: int
    ovavel_version: str
    model: Model
    encoders: Encoders
    """Input and output of each sense's encoder."""
    graphs: dict[Graph, dict[str, str]]
    """Graph → precision → file."""
    precision: dict[str, dict[Graph, str]]
    """Engine (`BackendInfo.engine`) → graph → its default precision, where that is exact."""
    exact_on: dict[str, tuple[str, ...]]
    """Precision → CPU features, any one of which makes it exact on a CPU, or "any". For precisions that are not listed,
    `ovavel.runtime.bundle.precision.EXACT_ON` applies."""
    files: dict[str, FileEntry]
    """Every file except the manifest itself."""
    fusion: Fusion
    opset: int
    parity: Parity
    vocabulary: str
    """`Vocabulary.version` after export or the latest change: names and embeddings in another order were not
    verified."""
    calibration: Calibration | None = None
    """Turns its scores into probabilities; left out of the file if there is none."""
    economy: tuple[EconomyGate, ...] = ()
    """One for each rule that the economy mode "auto" was compared with; left out of the file if there is none."""

    def calibrated(self, calibration: Calibration | None) -> Manifest:
        """Return this manifest with `calibration` instead of its own, or without one."""
        return msgspec.structs.replace(self, calibration=calibration)

    def decided(self, rule: Rule) -> Manifest:
        """Return this manifest with `rule` deciding by default."""
        own = Rule(kind=self.fusion.decision)
        return msgspec.structs.replace(
            self, fusion=msgspec.structs.replace(self.fusion, rule=None if rule == own else rule)
        )

    def calibration_for(self, rule: Rule) -> Calibration | None:
        """Return the calibration if it was fitted to the scores of `rule`; names leave out a rule's parameters."""
        own = self.fusion.decides
        if self.calibration is None or self.calibration.fusion != rule.name or (rule.name == own.name and rule != own):
            return None
        return self.calibration

    def gated(self, gates: Iterable[Gate]) -> Manifest:
        """Return this manifest with `gates`, each replacing the older one of the same kind."""
        kept = {_kind(gate): gate for gate in (*self.parity.gates, *gates)}
        parity = msgspec.structs.replace(self.parity, gates=tuple(kept.values()))
        return msgspec.structs.replace(self, parity=parity)

    def economized(self, gate: EconomyGate) -> Manifest:
        """Return this manifest with `gate`, which replaces the one of the same rule."""
        others = (each for each in self.economy if each.rule != gate.rule)
        return msgspec.structs.replace(self, economy=(*others, gate))

    def encode(self) -> bytes:
        """Return the bytes of `manifest.json`: indented JSON with sorted file names."""
        ordered = msgspec.structs.replace(self, files=dict(sorted(self.files.items())))
        return msgspec.json.format(msgspec.json.encode(ordered), indent=2) + b"\n"

    @classmethod
    def decode(cls, data: bytes, *, where: str) -> Manifest:
        """Read the bytes of a `manifest.json`; `where` names it in errors.

        Raises:
            BundleError: it is not JSON, has another format version, a field is missing, unknown or of the wrong type,
                or it requires a fusion that this runtime does not support.
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
                f"{where} requires a fusion that this ovavel does not support ({_difference(asked, Fusion())}): "
                "use the ovavel that wrote it, or export it again"
            )
        return manifest


class _Version(Struct, kw_only=True):
    """The one field that every format version has."""

    format_version: int


def _kind(gate: Gate) -> tuple[object, ...]:
    """Key of a gate: of two with the same key, the newer one counts."""
    precision = tuple(sorted(gate.precision.items()))
    return gate.engine, precision, gate.device, gate.cpu_features, gate.graphs_sha256, gate.reference


def _difference(asked: Struct, done: Struct) -> str:
    pairs = ((field, getattr(asked, field), getattr(done, field)) for field in asked.__struct_fields__)
    return ", ".join(f"{field} = {theirs!r}, not {ours!r}" for field, theirs, ours in pairs if theirs != ours)
