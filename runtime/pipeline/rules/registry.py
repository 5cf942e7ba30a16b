"""The rules by name: what computes them, their parameters, and whether they are for streams."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.bundle.calibration import Rule
from ovavel.runtime.errors import UsageError
from ovavel.runtime.pipeline.fusion import fused_score, positive_score
from ovavel.runtime.pipeline.rules.agreement import agreement
from ovavel.runtime.pipeline.rules.av2a import av2a
from ovavel.runtime.pipeline.rules.clip_prior import clip_prior
from ovavel.runtime.pipeline.rules.cuerator import cuerator
from ovavel.runtime.pipeline.rules.evidence import Evidence
from ovavel.runtime.pipeline.rules.temperatures import temperatures
from ovavel.runtime.types import RuleKind

__all__ = ["PRESETS", "RULES", "Parameter", "RuleInfo", "check_live", "parameters_of"]

Scores = Callable[[Evidence, Mapping[str, float]], NDArray[np.float32]]
"""Evidence and parameters → (..., T, C) scores in [0, 1], whose arg max is the decision."""


class Parameter(NamedTuple):
    """A number that a rule is given."""

    low: float
    high: float
    """Where a fit looks for it, both ends included."""
    default: float | None = None
    """Published value; None: it has to be fitted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleInfo:
    """One rule."""

    scores: Scores | None
    """None: the head's graph computes them."""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    needs_frames: bool = False
    """Whether it looks at the vision embeddings too."""
    looks_around: bool = False
    """Whether a second's scores depend on the other seconds of the buffer, not on its own similarities alone."""
    not_live: str = ""
    """Why it has no form for streams; empty where it has one."""


def _published(evidence: Evidence, parameters: Mapping[str, float]) -> NDArray[np.float32]:  # noqa: ARG001
    return fused_score(evidence.audio, evidence.vision)


def _positive(evidence: Evidence, parameters: Mapping[str, float]) -> NDArray[np.float32]:  # noqa: ARG001
    return positive_score(evidence.audio, evidence.vision)


_WIDE = Parameter(0.0, 2.1)

RULES: Mapping[RuleKind, RuleInfo] = MappingProxyType(
    {
        "published": RuleInfo(scores=_published),
        "positive": RuleInfo(scores=_positive),
        "learned": RuleInfo(scores=None, looks_around=True),
        "agreement": RuleInfo(scores=agreement),
        "av2a": RuleInfo(
            scores=av2a,
            parameters={
                "alpha": Parameter(0.0, 1.0, 0.52),
                "start": Parameter(0.0, 1.0, 0.96),
                "check": Parameter(0.0, 1.0, 0.37),
                "filter": Parameter(0.0, 1.0, 0.18),
                "decay": Parameter(0.0, 10.0, 4.55),
            },
            needs_frames=True,
            looks_around=True,
        ),
        "cuerator": RuleInfo(
            scores=cuerator,
            looks_around=True,
            parameters={
                f"theta{i}": {0: Parameter(-0.1, 0.5), 5: Parameter(0.0, 0.8)}.get(i, _WIDE) for i in range(10)
            },
        ),
        "temperatures": RuleInfo(
            scores=temperatures,
            parameters={
                "audio_temperature": Parameter(1e-3, 1e3),
                "vision_temperature": Parameter(1e-3, 1e3),
            },
        ),
        "clip-prior": RuleInfo(
            scores=clip_prior,
            looks_around=True,
            parameters={"delta": Parameter(-1.0, 1.0)},
            not_live="it takes a whole clip to hold one class at most, which is a property of OV-AVEBench and of no "
            "stream or recording",
        ),
    }
)
"""Every rule. Those for streams decide on each buffer of ten seconds as on a clip."""

_DEMO_WORLD = (0.38674, 2.1, 2.09421, 0.81901, 1.01062, 0.49076, 2.1, 1.41849, 0.0, 0.57276)
"""θ of the best rule without a head in the demo world (docs/demo-world.md, Decision rules)."""


def _numbered(theta: tuple[float, ...]) -> dict[str, float]:
    return {f"theta{i}": value for i, value in enumerate(theta)}


PRESETS: Mapping[str, Rule] = MappingProxyType(
    {
        "paper": Rule(kind="published"),
        "paper-training-free": Rule(kind="agreement"),
        "demo-world-training-free": Rule(kind="cuerator", parameters=_numbered(_DEMO_WORLD)),
    }
)
"""Rules with their parameters by a name of their own."""


def parameters_of(rule: Rule) -> dict[str, float]:
    """The parameters of `rule`, its defaults among them.

    Raises:
        UsageError: it names one that there is not, one is out of range, or has to be fitted first.
    """
    known = RULES[rule.kind].parameters
    if odd := rule.parameters.keys() - known.keys():
        names = ", ".join(known) or "none"
        raise UsageError(f"the decision rule {rule.kind} has no parameter {min(odd)!r}; it has {names}")
    found = {}
    for name, parameter in known.items():
        value = rule.parameters.get(name, parameter.default)
        if value is None:
            raise UsageError(
                f"the decision rule {rule.kind} has parameters that are fitted on labelled clips, and {name} is "
                f"missing: `ovavel eval calibrate --rule {rule.kind} --write` fits them and puts them into a bundle"
            )
        if not parameter.low <= value <= parameter.high:
            raise UsageError(
                f"{name} of the decision rule {rule.kind} must be from {parameter.low:g} to {parameter.high:g}, "
                f"not {value:g}"
            )
        found[name] = value
    return found


def check_live(rule: Rule) -> None:
    """Refuse a rule that has no form for streams and recordings.

    Raises:
        UsageError: it has none; says why.
    """
    if why := RULES[rule.kind].not_live:
        raise UsageError(f"the decision rule {rule.kind} is for benchmarks only: {why}. Choose another --fusion")
