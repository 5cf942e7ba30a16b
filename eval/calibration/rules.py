"""Fit a decision rule on labelled clips, and make the rules that a command is asked for by name.

Formulas: docs/method.md, Decision rules. Fit on one split and evaluate on another.

Shapes: N clips, T segments per clip (ten), C classes with the background last, K further texts of the background.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from msgspec.structs import replace
from numpy.random import default_rng
from numpy.typing import NDArray

from ovavel.eval.accuracy.metrics import score_clips
from ovavel.eval.accuracy.protocols import decide, without_head
from ovavel.eval.calibration.fit import golden_section
from ovavel.eval.datasets.splits import EvaluationInputs, Split
from ovavel.runtime.bundle.calibration import Background, Reference, Rule
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.errors import UsageError
from ovavel.runtime.pipeline.fusion import fused_labels
from ovavel.runtime.pipeline.localizer import Head, deciding_head
from ovavel.runtime.pipeline.rules.apply import check_rule, evidence_of, named_rule, rule_scores
from ovavel.runtime.pipeline.rules.evidence import Evidence
from ovavel.runtime.pipeline.rules.registry import RULES, Parameter
from ovavel.runtime.pipeline.rules.temperatures import log_probabilities
from ovavel.runtime.system.progress import Progress, no_progress

__all__ = ["RuleMaker", "fit_rule", "has_to_be_fitted", "measure_reference", "search"]

_DRAWS, _STEPS = 150, 150
_DIGITS = 5
_WIDEST_STEP, _COOLING = 0.25, 0.98
_LEAST_DEVIATION = 1e-6
_ROUNDS = 8  # over the two temperatures; each moves the other's minimum by less
_PRECISION = 1e-4  # of the logarithm of a temperature


def has_to_be_fitted(name: str) -> bool:
    """Whether the rule `name` has anything that is fitted, and no published value.

    Raises:
        UsageError: there is no such rule.
    """
    rule, debias, offset = named_rule(name)
    missing = RULES[rule.kind].parameters.keys() - rule.parameters.keys()
    return debias or offset or any(RULES[rule.kind].parameters[each].default is None for each in missing)


def fit_rule(
    name: str,
    given: Evidence,
    truth: NDArray[np.integer],
    names: Sequence[str],
    *,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Rule:
    """Fit the rule `name` on clips: statistics, parameters and offset, whatever it has.

    The two temperatures have the smallest mean of -ln p[truth]; all else has the highest Avg. of the metrics that a
    seeded search finds, which begins with the published values where there are any.

    Args:
        name: kind, "+debiased" and "+offset" where that is wanted; see `named_rule`.
        given: (N, T, C + K) similarities, and the vision embeddings.
        truth: (N, T) class indices in [0, C).
        names: C class names.
        seed: of the search.
        progress: called with the candidates that are done.

    Raises:
        UsageError: there is no such rule, or it cannot run on these clips.
    """
    rule, debias, offset = named_rule(name)
    classes = len(names)
    if debias:
        reference = measure_reference(evidence_of(rule, given, classes), names)
        rule = replace(rule, reference=reference)
    evidence = evidence_of(rule, given, classes, names)
    space = dict(RULES[rule.kind].parameters)
    if rule.kind == "temperatures":
        rule, space = replace(rule, parameters=_fit_temperatures(evidence, truth)), {}
    if offset:
        reach = float(2 * max(each[..., -1].std() for each in (evidence.audio, evidence.vision)))
        space["offset"] = Parameter(-reach, reach, 0.0)
    if not space:
        return rule

    def made(values: Mapping[str, float]) -> Rule:
        parameters = {**rule.parameters, **{each: value for each, value in values.items() if each != "offset"}}
        background = Background(offset=values["offset"]) if offset else rule.background
        return replace(rule, parameters=parameters, background=background)

    def avg(values: Mapping[str, float]) -> float:
        tried = made(values)
        labels = fused_labels(rule_scores(tried, evidence_of(tried, given, classes, names)))
        return score_clips(labels, truth, classes).avg

    return made(search(space, avg, seed=seed, progress=progress))


def measure_reference(evidence: Evidence, names: Sequence[str]) -> Reference:
    """Mean and deviation of each class's similarity in each sense, over all seconds of (N, T, C) `evidence`."""
    columns = []
    for similarity in (evidence.audio, evidence.vision):
        flat = similarity.reshape(-1, len(names)).astype(np.float64)
        columns += [flat.mean(axis=0), np.maximum(flat.std(axis=0), _LEAST_DEVIATION)]
    rounded = (tuple(float(f"{value:.6g}") for value in column) for column in columns)
    audio_mean, audio_deviation, vision_mean, vision_deviation = rounded
    return Reference(
        names=tuple(names),
        audio_mean=audio_mean,
        audio_deviation=audio_deviation,
        vision_mean=vision_mean,
        vision_deviation=vision_deviation,
        seconds=evidence.audio[..., 0].size,
    )


def search(
    space: Mapping[str, Parameter],
    objective: Callable[[Mapping[str, float]], float],
    *,
    seed: int = 0,
    draws: int = _DRAWS,
    steps: int = _STEPS,
    progress: Progress = no_progress,
) -> dict[str, float]:
    """Find values with a high objective: uniform draws, then smaller and smaller steps from the best so far.

    The same space, objective and seed give the same values. Defaults, where all parameters have one, are tried first,
    and kept where nothing is better.

    Args:
        space: parameter → where to look.
        objective: to be high.
        seed: of the draws and steps.
        draws: uniform candidates.
        steps: candidates near the best so far.
        progress: called with the candidates that are done.
    """
    random = default_rng(seed)
    low, high = (np.array([getattr(each, end) for each in space.values()]) for end in ("low", "high"))
    defaults = [each.default for each in space.values()]
    best: dict[str, float] = {}
    value = -math.inf
    for number in range(draws + steps):
        if number == 0 and None not in defaults:
            point = np.array(defaults, np.float64)
        elif number < draws:
            point = random.uniform(low, high)
        else:
            moved = random.random(len(space)) < max(0.3, 1 / len(space))
            moved[random.integers(len(space))] = True
            width = _WIDEST_STEP * _COOLING ** (number - draws) * (high - low)
            point = np.array(list(best.values())) + moved * random.normal(0, 1, len(space)) * width
        tried = dict(zip(space, np.clip(np.round(point, _DIGITS), low, high).tolist(), strict=True))
        found = objective(tried)
        if found > value + 1e-12:
            best, value = tried, found
        progress("fitting the decision rule", number + 1, draws + steps)
    return best


def _fit_temperatures(evidence: Evidence, truth: NDArray[np.integer]) -> dict[str, float]:
    """Two temperatures with the smallest mean of -ln p[truth]: convex in their inverses, so each in turn finds it."""

    def loss(logs: Sequence[float]) -> float:
        found = log_probabilities(evidence, math.exp(logs[0]), math.exp(logs[1]))
        return -float(np.take_along_axis(found, truth[..., None], axis=-1).mean())

    logs = [0.0, 0.0]
    for _ in range(_ROUNDS):
        for sense in (0, 1):

            def along(x: float, sense: int = sense) -> float:
                return loss([*logs[:sense], x, *logs[sense + 1 :]])

            logs[sense] = golden_section(along, _PRECISION)
    audio, vision = (float(f"{math.exp(each):.5g}") for each in logs)
    return {"audio_temperature": audio, "vision_temperature": vision}


class RuleMaker:
    """Makes rules by name for a data set and a bundle; those that have to be fitted are, on one split."""

    def __init__(self, inputs: EvaluationInputs, fit: str, *, training_free: bool = False) -> None:
        """Fit on the split `fit`. With `training_free`, rules see the embeddings as they are, without the head."""
        self._inputs = inputs
        self._fit = fit
        self._training_free = training_free
        self._found: dict[str, Split] = {}
        self._evidence: dict[Split, Evidence] = {}
        self.head: Head = without_head if training_free else inputs.backend.head
        """What gives the similarities."""

    @property
    def background(self) -> TextEmbeddings | None:
        """Embeddings of the K further texts of the background; None without any."""
        return self._inputs.bundle.vocabulary.background_embeddings

    @property
    def own(self) -> Rule:
        """The bundle's own rule."""
        return self._inputs.bundle.manifest.fusion.decides

    def deciding(self, rule: Rule) -> Head:
        """The head with the scores of `rule`."""
        return deciding_head(self.head, rule, self._inputs.dataset.names, self.background)

    def split(self, name: str) -> Split:
        """The split `name`, read once."""
        if name not in self._found:
            self._found[name] = self._inputs.split(name)
        return self._found[name]

    def evidence(self, split: Split) -> Evidence:
        """(N, T, C + K) similarities of the clips of `split`."""
        if split not in self._evidence:
            text = self._inputs.text
            texts = text if self.background is None else TextEmbeddings.joined([text, self.background])
            output = decide(self.head, split.audio, split.vision, texts)
            self._evidence[split] = Evidence(output.audio_similarity, output.vision_similarity, split.vision)
        return self._evidence[split]

    def scores(self, rule: Rule, split: Split) -> NDArray[np.float32]:
        """(N, T, C) scores of `rule` on the clips of `split`, each as a whole."""
        names = self._inputs.dataset.names
        return rule_scores(rule, evidence_of(rule, self.evidence(split), len(names), names))

    def fitted(self, name: str, progress: Progress = no_progress) -> Rule:
        """Return the rule `name`, all that it has fitted, even where there are published values.

        Raises:
            UsageError: there is no such rule, or it cannot run with this bundle.
        """
        split = self.split(self._fit)
        rule = fit_rule(name, self.evidence(split), split.truth, self._inputs.dataset.names, progress=progress)
        return self._checked(rule)

    def rule(self, name: str, measured: str, progress: Progress = no_progress) -> Rule:
        """Return the rule `name`: the bundle's own, or a new one, fitted where it has to be.

        Args:
            name: see `named_rule`.
            measured: split that it will be measured on.
            progress: called while it is fitted.

        Raises:
            UsageError: there is no such rule, it cannot run with this bundle, or would be measured on what it was
                fitted on.
        """
        if name == self.own.name and not self._training_free:
            return self._checked(self.own)
        if not has_to_be_fitted(name):
            return self._checked(named_rule(name)[0])
        if measured == self._fit:
            raise UsageError(
                f"the decision rule {name} is fitted on {self._fit}, and would be measured on the same clips; measure "
                "on another split"
            )
        return self.fitted(name, progress)

    def _checked(self, rule: Rule) -> Rule:
        names, own = self._inputs.dataset.names, self._inputs.bundle.manifest.fusion.decision
        texts = len(self._inputs.bundle.vocabulary.background_texts)
        check_rule(rule, "published" if self._training_free else own, names, texts)
        return rule
