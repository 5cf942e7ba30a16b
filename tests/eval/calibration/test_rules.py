"""Fitting decision rules: what is searched is found again, and what is fitted is kept apart from what is measured."""

from __future__ import annotations

import math

import numpy as np
import pytest
from support.rules import NAMES, C, made

from ovavel.eval.accuracy.metrics import score_clips
from ovavel.eval.calibration.rules import fit_rule, has_to_be_fitted, measure_reference, search
from ovavel.runtime.errors import UsageError
from ovavel.runtime.pipeline.rules.apply import decide
from ovavel.runtime.pipeline.rules.evidence import Evidence
from ovavel.runtime.pipeline.rules.registry import RULES, Parameter
from ovavel.runtime.pipeline.rules.temperatures import log_probabilities


def clips(seed: int, count: int = 40, *, noise: float = 1.0) -> tuple[Evidence, np.ndarray]:
    """Similarities of clips with one event each, of which sound is the noisier witness, and the truth."""
    random = np.random.default_rng(seed)
    truth = np.full((count, 10), C - 1)
    for clip in range(count):
        start = random.integers(0, 6)
        truth[clip, start : start + random.integers(2, 5)] = random.integers(C - 1)
    strong = np.eye(C)[truth]
    audio = 0.3 * strong + random.normal(0, 0.12 * noise, strong.shape) + np.linspace(0, 0.3, C)
    vision = 0.3 * strong + random.normal(0, 0.06 * noise, strong.shape)
    frames = random.normal(0, 0.2, (count, 10, 8)) + random.normal(0, 1, (count, 1, 8))
    return Evidence(*(each.astype(np.float32) for each in (audio, vision, frames))), truth


def avg(rule: object, evidence: Evidence, truth: np.ndarray) -> float:
    labels = decide(rule, evidence.audio, evidence.vision, names=NAMES, frames=evidence.frames)  # type: ignore[arg-type]
    return score_clips(labels, truth, C).avg


def test_a_search_finds_a_peak_and_does_so_again() -> None:
    space = {"x": Parameter(-1.0, 3.0), "y": Parameter(0.0, 10.0)}

    def peak(at: dict[str, float]) -> float:
        return -((at["x"] - 0.7) ** 2) - 0.1 * (at["y"] - 9) ** 2

    found = search(space, peak, seed=1)  # type: ignore[arg-type]
    assert found["x"] == pytest.approx(0.7, abs=0.1)
    assert found["y"] == pytest.approx(9, abs=0.3)
    assert search(space, peak, seed=1) == found  # type: ignore[arg-type]
    assert search(space, lambda at: at["x"] + at["y"], draws=30, steps=100) == pytest.approx({"x": 3, "y": 10}, abs=0.2)


def test_published_values_stay_where_nothing_is_better() -> None:
    space = {"alpha": Parameter(0.0, 1.0, 0.52), "decay": Parameter(0.0, 10.0, 4.55)}
    tried = []
    assert search(space, lambda at: tried.append(dict(at)) or 1.0) == {"alpha": 0.52, "decay": 4.55}
    assert all(0 <= each["alpha"] <= 1 and 0 <= each["decay"] <= 10 for each in tried)


@pytest.mark.parametrize(
    "name", ["cuerator", "temperatures", "av2a", "clip-prior", "agreement+debiased", "agreement+offset"]
)
def test_what_is_fitted_is_better_than_agreement_and_hardly_worse_on_other_clips(name: str) -> None:
    (evidence, truth), (other, other_truth) = clips(0), clips(1)
    rule = fit_rule(name, evidence, truth, NAMES)
    assert rule.name == name or name.endswith("+offset")
    plain = fit_rule("agreement", evidence, truth, NAMES)
    assert avg(rule, evidence, truth) >= avg(plain, evidence, truth)
    assert avg(rule, other, other_truth) > avg(plain, other, other_truth) - 0.03


def test_the_same_clips_give_the_same_rule() -> None:
    evidence, truth = clips(0, count=20)
    assert fit_rule("cuerator", evidence, truth, NAMES) == fit_rule("cuerator", evidence, truth, NAMES)


def test_two_temperatures_are_where_the_likelihood_is_highest() -> None:
    # With less noise every second is decided rightly, and the coldest temperatures are the best.
    evidence, truth = clips(0, noise=3.0)
    found = fit_rule("temperatures", evidence, truth, NAMES).parameters

    def loss(audio: float, vision: float) -> float:
        log = log_probabilities(evidence, audio, vision)
        return -float(np.take_along_axis(log, truth[..., None], axis=-1).mean())

    best = loss(found["audio_temperature"], found["vision_temperature"])
    for factor in (0.8, 1.25):
        assert loss(found["audio_temperature"] * factor, found["vision_temperature"]) > best
        assert loss(found["audio_temperature"], found["vision_temperature"] * factor) > best
    assert found["audio_temperature"] > found["vision_temperature"], "the noisier sense counts less"


def test_reference_statistics_are_of_each_class_in_each_sense() -> None:
    audio, vision, _ = made(0, clips=20)
    reference = measure_reference(Evidence(audio, vision), NAMES)
    assert reference.seconds == 200
    assert reference.names == NAMES
    for c in range(C):
        values = [float(x) for x in audio[..., c].ravel()]
        mean = sum(values) / 200
        assert reference.audio_mean[c] == pytest.approx(mean, rel=1e-4)
        assert reference.audio_deviation[c] == pytest.approx(
            math.sqrt(sum((x - mean) ** 2 for x in values) / 200), rel=1e-4
        )
        assert reference.vision_mean[c] == pytest.approx(float(vision[..., c].mean()), rel=1e-4)


def test_which_rules_have_something_to_fit() -> None:
    fitted = {kind for kind in RULES if has_to_be_fitted(kind)}
    assert fitted == {"cuerator", "temperatures", "clip-prior"}
    assert has_to_be_fitted("agreement+debiased")
    assert has_to_be_fitted("av2a+offset")
    assert not has_to_be_fitted("paper")
    with pytest.raises(UsageError, match="no decision rule"):
        has_to_be_fitted("agreement+offset+debiased+")
