"""Each rule against its formula, written out in loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rules import FITTED, C, T, made, rule

from ovavel.runtime.bundle.calibration import Background, Reference, Rule
from ovavel.runtime.pipeline.rules.apply import decide, evidence_of, rule_scores
from ovavel.runtime.pipeline.rules.av2a import label_shift
from ovavel.runtime.pipeline.rules.cuerator import rivalry
from ovavel.runtime.pipeline.rules.evidence import Evidence, folded
from ovavel.runtime.pipeline.rules.registry import RULES

THETA = FITTED["cuerator"]


def best_of(values: dict[int, float], otherwise: int) -> int:
    return max(values, key=lambda c: values[c]) if values else otherwise


def agreement(audio: np.ndarray, vision: np.ndarray, _: np.ndarray) -> list[int]:
    return [int(a.argmax()) if a.argmax() == v.argmax() else C - 1 for a, v in zip(audio, vision, strict=True)]


def cuerator(audio: np.ndarray, vision: np.ndarray, _: np.ndarray) -> list[int]:
    theta = list(THETA.values())
    senses = {"a": audio.astype(float), "v": vision.astype(float)}

    def b(m: str, t: int, c: int) -> float:
        return 0.5 * (senses[m][t, c] + min(senses["a"][t, c], senses["v"][t, c]))

    def mean_b(m: str, c: int) -> float:
        return sum(b(m, t, c) for t in range(len(audio))) / len(audio)

    def gap(value: object, c: int) -> float:
        return max(value(other) for other in range(C) if other != c) - value(c)  # type: ignore[operator]

    labels = []
    for t in range(len(audio)):
        chosen = []
        for m, other, first in (("a", "v", 0), ("v", "a", 5)):
            kept = {}
            for c in range(C):
                threshold = (
                    theta[first]
                    + theta[first + 1] * gap(lambda k, o=other, t=t: senses[o][t, k], c)
                    + theta[first + 2] * gap(lambda k, m=m, t=t: b(m, t, k), c)
                    + theta[first + 3] * gap(lambda k, m=m: mean_b(m, k), c)
                    + theta[first + 4] * (senses[m][t, c] - mean_b(m, c))
                )
                if senses[m][t, c] > threshold:
                    kept[c] = senses[m][t, c]
            chosen.append(best_of(kept, -1))
        labels.append(chosen[0] if chosen[0] == chosen[1] != -1 else C - 1)
    return labels


def temperatures(audio: np.ndarray, vision: np.ndarray, _: np.ndarray) -> list[int]:
    labels = []
    for a, v in zip(audio.astype(float), vision.astype(float), strict=True):
        log = np.zeros(C)
        for values, temperature in ((a, 0.05), (v, 0.2)):
            total = math.log(sum(math.exp(x / temperature) for x in values))
            log += [x / temperature - total for x in values]
        labels.append(int(log.argmax()))
    return labels


def clip_prior(audio: np.ndarray, vision: np.ndarray, _: np.ndarray) -> list[int]:
    rows = []
    for a, v in zip(audio.astype(float), vision.astype(float), strict=True):
        product = [math.sqrt(max(x, 0) * max(y, 0)) for x, y in zip(a, v, strict=True)]
        rows.append([(p - min(product)) / (max(product) - min(product) + 1e-8) for p in product])
    label = best_of({c: sum(row[c] for row in rows) for c in range(C - 1)}, -1)
    return [label if row[label] - row[-1] > 0.1 else C - 1 for row in rows]


def av2a(audio: np.ndarray, vision: np.ndarray, frames: np.ndarray) -> list[int]:
    alpha, start, check, least, decay = (parameter.default for parameter in RULES["av2a"].parameters.values())
    p = np.zeros((len(audio), C))
    for weight, values in ((1 - alpha, vision.astype(float)), (alpha, audio.astype(float))):
        for t, row in enumerate(values):
            deviation = math.sqrt(sum((x - row.mean()) ** 2 for x in row) / C)
            p[t] += [weight / (1 + math.exp(-(x - row.mean()) / deviation)) for x in row]
    threshold, counts = np.full(C, start), np.zeros(C)
    accepted = np.zeros_like(p, dtype=bool)
    for t in range(len(p)):
        for c in range(C):
            accepted[t, c] = p[t, c] > threshold[c]
            counts[c] += accepted[t, c]
        if t + 1 < len(p):
            confusion = sum(np.outer(p[s], p[s]) for s in range(t + 1)) / (t + 1)
            shift = np.linalg.inv(confusion.T @ confusion + np.eye(C)) @ confusion.T @ p[t + 1] * p[t + 1]
            one, two = frames[t].astype(float), frames[t + 1].astype(float)
            alike = one @ two / np.linalg.norm(one) / np.linalg.norm(two)
            threshold = threshold - start * np.exp(-decay * counts) * alike * shift
    kept = np.zeros_like(accepted)
    for c in range(C):
        if p[:, c].mean() <= least:
            continue
        t = 0
        while t < len(p):
            end = t
            while end < len(p) and accepted[end, c]:
                end += 1
            if end - t > 1 and p[t:end, c].mean() > check:
                kept[t:end, c] = True
            t = max(end, t + 1)
    return [best_of({c: p[t, c] for c in range(C) if kept[t, c]}, C - 1) for t in range(len(p))]


SLOW = {
    "agreement": agreement,
    "cuerator": cuerator,
    "temperatures": temperatures,
    "clip-prior": clip_prior,
    "av2a": av2a,
}


@pytest.mark.parametrize("kind", SLOW)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), seconds=st.integers(1, T))
def test_a_rule_decides_by_its_formula(kind: str, seed: int, seconds: int) -> None:
    audio, vision, frames = made(seed, seconds=seconds)
    labels = decide(rule(kind), audio, vision, frames=frames)
    assert labels.tolist() == [SLOW[kind](a, v, f) for a, v, f in zip(audio, vision, frames, strict=True)]


@pytest.mark.parametrize("kind", SLOW)
def test_the_formulas_are_put_to_the_test(kind: str) -> None:
    """Each rule finds events and background in what the other tests are made of, and differs from agreement."""
    audio, vision, frames = made(0, clips=100)
    labels = decide(rule(kind), audio, vision, frames=frames)
    assert 0.02 < (labels != C - 1).mean() < 0.98
    if kind != "agreement":
        assert (labels != decide(rule("agreement"), audio, vision)).any()


def test_by_hand() -> None:
    """Two classes and the background, one second: numbers that a reader can follow."""
    audio, vision = (np.array([[row]], np.float32) for row in ([0.5, 0.3, 0.2], [0.4, 0.6, 0.1]))
    assert decide(rule("agreement"), audio, vision).tolist() == [[2]]
    # Sound counts 4 times as much as sight: 0.5/0.05 + 0.4/0.2 = 12 against 0.3/0.05 + 0.6/0.2 = 9.
    assert decide(rule("temperatures"), audio, vision).tolist() == [[0]]
    scores = rule_scores(rule("temperatures"), Evidence(audio, vision))
    odds = np.exp([12, 9, 4.5])
    np.testing.assert_allclose(scores[0, 0], odds / odds.sum(), rtol=1e-5)
    np.testing.assert_allclose(rivalry(np.array([0.5, 0.3, 0.2])), [-0.2, 0.2, 0.3])
    # Roots of the products 0.2, 0.18, 0.02 are 0.447, 0.424, 0.141: class 0 leads the background by 1.
    assert decide(Rule(kind="clip-prior", parameters={"delta": 0.99}), audio, vision).tolist() == [[0]]
    assert decide(Rule(kind="clip-prior", parameters={"delta": 1.0}), audio, vision).tolist() == [[2]]
    # One unknown: p = (1, 0.5), μ = (0.5, 1): G = 1.25, right side 1, y = 1 / (1.25² + 1), w = y · p ⊙ μ.
    shift = label_shift(np.array([[[1.0, 0.5]]]), np.array([[0.5, 1.0]]))
    np.testing.assert_allclose(shift, [[0.5 / 2.5625, 0.5 / 2.5625]])


def test_debiasing_counts_deviations_above_the_mean_of_each_class() -> None:
    audio, vision = (np.array([[row]], np.float32) for row in ([0.5, 0.3, 0.2], [0.5, 0.4, 0.1]))
    names = ("bell", "car", "other")
    reference = Reference(  # in another order: rows are found by name
        names=("other", "car", "bell"),
        audio_mean=(0.2, 0.1, 0.5),
        audio_deviation=(0.1, 0.1, 0.1),
        vision_mean=(0.1, 0.2, 0.5),
        vision_deviation=(0.1, 0.05, 0.1),
        seconds=100,
    )
    evidence = evidence_of(rule("agreement", reference=reference), Evidence(audio, vision), 3, names)
    np.testing.assert_allclose(evidence.audio[0, 0], [0, 2, 0], atol=1e-5)
    np.testing.assert_allclose(evidence.vision[0, 0], [0, 4, 0], atol=1e-5)
    assert decide(rule("agreement"), audio, vision).tolist() == [[0]]
    assert decide(rule("agreement", reference=reference), audio, vision, names=names).tolist() == [[1]]


def test_several_texts_of_the_background_compete_as_one_class() -> None:
    similarity = np.array([[0.5, 0.1, 0.3, 0.4]], np.float32)  # two names would be columns 0 and 1, the rest background
    np.testing.assert_allclose(folded(similarity, 2, None), [[0.5, 0.4]])
    soft = Background(how="logsumexp", temperature=0.1)
    expected = 0.1 * math.log(math.exp(1) + math.exp(3) + math.exp(4))
    np.testing.assert_allclose(folded(similarity, 2, soft), [[0.5, expected]], rtol=1e-6)
    np.testing.assert_array_equal(folded(similarity, 4, soft), similarity)
    audio = similarity[None]
    for offset, label in ((0.0, 0), (0.2, 1)):
        chosen = rule("agreement", background=Background(offset=offset))
        assert decide(chosen, audio, audio, background_texts=2).tolist() == [[label]]
