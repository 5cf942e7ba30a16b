"""Decide by a rule: on similarities, and on what a head says of a stream.

Shapes: `...` any leading dimensions, N clips, T seconds, C classes with the background last, K further texts of the
background, D embedding size of vision.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.backends import HeadOutput
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.calibration import DEBIASED, OFFSET, Rule
from ovavel.runtime.errors import UsageError
from ovavel.runtime.pipeline.fusion import fused_labels
from ovavel.runtime.pipeline.rules.evidence import Evidence, debiased, folded
from ovavel.runtime.pipeline.rules.registry import PRESETS, RULES, check_live, parameters_of
from ovavel.runtime.types import FusionKind

__all__ = [
    "bundle_rule",
    "check_rule",
    "decide",
    "evidence_of",
    "live_rule",
    "named_rule",
    "rule_output",
    "rule_scores",
]


def decide(
    rule: Rule,
    audio_similarity: NDArray[np.float32],
    vision_similarity: NDArray[np.float32],
    *,
    names: Sequence[str] = (),
    frames: NDArray[np.float32] | None = None,
    background_texts: int = 0,
) -> NDArray[np.intp]:
    """Decide on clips: (N, T) class indices.

    Args:
        rule: with its parameters.
        audio_similarity: (N, T, C + K) float32, the background and its further texts last.
        vision_similarity: likewise.
        names: C class names, for a rule with reference statistics.
        frames: (N, T, D) vision embeddings, for a rule that looks at them (av2a).
        background_texts: K.

    Raises:
        UsageError: the rule has parameters that are missing or out of range, or statistics of other names.
        ValueError: the shapes do not fit together, or `frames` are missing.
    """
    classes = audio_similarity.shape[-1] - background_texts
    evidence = evidence_of(rule, Evidence(audio_similarity, vision_similarity, frames), classes, names)
    return fused_labels(rule_scores(rule, evidence))


def evidence_of(rule: Rule, given: Evidence, classes: int, names: Sequence[str] = ()) -> Evidence:
    """Fold the background's texts (..., C + K) → (..., C), debias, and add the offset, as `rule` asks.

    Raises:
        UsageError: the reference statistics lack a name.
        ValueError: the shapes do not fit together.
    """
    if given.audio.shape != given.vision.shape or given.audio.ndim < 2 or given.audio.shape[-1] < classes:
        raise ValueError(
            f"similarities of sound {given.audio.shape} and sight {given.vision.shape} must be (..., seconds, classes)"
        )
    audio, vision = (folded(each, classes, rule.background) for each in (given.audio, given.vision))
    evidence = given._replace(audio=audio, vision=vision)
    if rule.reference:
        evidence = debiased(evidence, rule.reference, names)
    if rule.background and rule.background.offset:
        offset = np.zeros(classes, np.float32)
        offset[-1] = rule.background.offset
        evidence = evidence._replace(audio=evidence.audio + offset, vision=evidence.vision + offset)
    return evidence


def rule_scores(rule: Rule, evidence: Evidence) -> NDArray[np.float32]:
    """(..., T, C) float32 scores in [0, 1]; `fused_labels` of them is the decision.

    Raises:
        UsageError: a parameter is missing or out of range, or a head's graph alone computes the scores.
        ValueError: the vision embeddings are missing.
    """
    info, parameters = RULES[rule.kind], parameters_of(rule)
    if info.scores is None:
        raise UsageError(f"the decision rule {rule.kind} is part of a head's graph and has no scores without it")
    if info.needs_frames and evidence.frames is None:
        raise ValueError(f"the decision rule {rule.kind} needs the vision embeddings beside the similarities")
    return info.scores(evidence, parameters)


def rule_output(
    rule: Rule, output: HeadOutput, frames: NDArray[np.float32], classes: int, names: Sequence[str] = ()
) -> HeadOutput:
    """Put the scores of `rule` in the place of those that the head's graph computed.

    The similarities stay as they are, those of the `classes` alone.

    Raises:
        UsageError: as `rule_scores`.
    """
    given = Evidence(output.audio_similarity, output.vision_similarity, frames)
    plain = rule.reference is None and rule.background is None and given.audio.shape[-1] == classes
    if rule.kind in ("published", "learned") and plain:
        return output
    score = rule_scores(rule, evidence_of(rule, given, classes, names))
    return HeadOutput(given.audio[..., :classes], given.vision[..., :classes], score)


def check_rule(rule: Rule, decision: FusionKind, names: Sequence[str], background_texts: int = 0) -> None:
    """Refuse a rule that cannot run with a bundle, before anything is opened.

    Args:
        rule: that is to decide.
        decision: what the bundle's head was exported for.
        names: C class names.
        background_texts: further texts of the background.

    Raises:
        UsageError: it cannot; says why.
    """
    if rule.kind != decision and "learned" in (rule.kind, decision):
        raise UsageError(
            f"the fusion of this bundle's head is {decision!r} and cannot be {rule.kind!r}: leave --fusion out (in "
            "Python: `fusion`)"
        )
    if rule.kind == "learned" and (rule.reference or rule.background or background_texts):
        raise UsageError("a learned fusion takes neither reference statistics nor further texts of the background")
    parameters_of(rule)
    if rule.reference and names:
        debiased(Evidence(*(np.zeros((1, 1, len(names)), np.float32),) * 2), rule.reference, names)


def named_rule(name: str) -> tuple[Rule, bool, bool]:
    """Read the name of a rule, such as "agreement+debiased", or of a preset.

    Returns:
        The rule without what has to be fitted, and whether its name asks for reference statistics and for an offset of
        the background.

    Raises:
        UsageError: there is no such rule.
    """
    if name in PRESETS:
        return PRESETS[name], False, False
    kind, offset = name.removesuffix(OFFSET), name.endswith(OFFSET)
    kind, debias = kind.removesuffix(DEBIASED), kind.endswith(DEBIASED)
    for known in RULES:
        if kind == known:
            return Rule(kind=known), debias, offset
    raise UsageError(
        f"there is no decision rule {name!r}; known: {', '.join((*RULES, *PRESETS))}, and {DEBIASED} or {OFFSET} after "
        "a rule"
    )


def live_rule(own: Rule, decision: FusionKind, asked: str | None, names: Sequence[str], texts: int = 0) -> Rule:
    """Return the rule of a session: the bundle's `own`, or the one that is asked for by name.

    Args:
        own: `Fusion.decides`.
        decision: `Fusion.decision`.
        asked: name of a rule; None: the bundle's own.
        names: C class names.
        texts: further texts of the background.

    Raises:
        UsageError: it cannot run with this bundle, has to be fitted first, or is for benchmarks only.
    """
    rule = own
    if asked not in (None, own.name):
        rule, debias, offset = named_rule(str(asked))
        if debias or offset:
            raise UsageError(
                f"the decision rule {asked} is fitted on clips: `ovavel eval calibrate --rule {asked} --write` does, "
                "and puts it into a bundle, which then decides by it"
            )
    check_live(rule)
    check_rule(rule, decision, names, texts)
    return rule


def bundle_rule(bundle: Bundle, asked: str | None) -> Rule:
    """Return the rule of a session with `bundle`: its own, or the one that is `asked` for by name.

    Raises:
        UsageError: as `live_rule`.
    """
    fusion, vocabulary = bundle.manifest.fusion, bundle.vocabulary
    return live_rule(fusion.decides, fusion.decision, asked, vocabulary.names, len(vocabulary.background_texts))
