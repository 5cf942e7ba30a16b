"""What every rule keeps to: order of classes and clips, streams and clips, and what its formula leaves as it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rules import FITTED, NAMES, TEXT, C, T, made, rule, segments, vocabulary

from ovavel.eval.accuracy.protocols import without_head
from ovavel.eval.streaming.measure import stream_scores
from ovavel.runtime.bundle.calibration import Background, Reference, Rule
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.errors import UsageError
from ovavel.runtime.pipeline.fusion import fused_labels
from ovavel.runtime.pipeline.localizer import BUFFER, Localizer, deciding_head
from ovavel.runtime.pipeline.rules.apply import check_rule, decide, evidence_of, live_rule, named_rule, rule_scores
from ovavel.runtime.pipeline.rules.evidence import Evidence
from ovavel.runtime.pipeline.rules.registry import PRESETS, RULES, check_live

DECIDING = [kind for kind, info in RULES.items() if info.scores]
LIVE = [kind for kind in DECIDING if not RULES[kind].not_live]
EXTRA = TextEmbeddings.shared(np.roll(TEXT.vision, 1, axis=1)[:2])

REFERENCE = Reference(
    names=NAMES,
    audio_mean=tuple(0.1 * c for c in range(C)),
    audio_deviation=(0.2,) * C,
    vision_mean=tuple(0.05 * c for c in range(C)),
    vision_deviation=(0.3,) * C,
    seconds=100,
)
FORMS = [*(rule(kind) for kind in LIVE), rule("agreement", reference=REFERENCE, background=Background(offset=0.2))]

seeds = st.integers(0, 2**32 - 1)
every = pytest.mark.parametrize("kind", DECIDING)
quick = settings(max_examples=20, deadline=None)


@every
@quick
@given(seed=seeds)
def test_the_order_of_the_named_classes_means_nothing(kind: str, seed: int) -> None:
    audio, vision, frames = made(seed)
    order = [*np.random.default_rng(seed).permutation(C - 1), C - 1]
    labels = decide(rule(kind), audio, vision, frames=frames)
    moved = decide(rule(kind), audio[..., order], vision[..., order], frames=frames)
    np.testing.assert_array_equal(np.array(order)[moved], labels)


@every
@quick
@given(seed=seeds)
def test_a_clip_is_decided_alike_whatever_is_beside_it(kind: str, seed: int) -> None:
    audio, vision, frames = made(seed, clips=4)
    labels = decide(rule(kind), audio, vision, frames=frames)
    for n in range(4):
        alone = decide(rule(kind), audio[n : n + 1], vision[n : n + 1], frames=frames[n : n + 1])
        np.testing.assert_array_equal(alone[0], labels[n])


@every
@quick
@given(seed=seeds, seconds=st.integers(1, T))
def test_scores_are_in_range_and_their_arg_max_is_the_decision(kind: str, seed: int, seconds: int) -> None:
    audio, vision, frames = made(seed, seconds=seconds)
    scores = rule_scores(rule(kind), Evidence(audio, vision, frames))
    assert scores.shape == audio.shape
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    assert scores.min() >= 0
    assert scores.max() <= 1
    np.testing.assert_array_equal(fused_labels(scores), decide(rule(kind), audio, vision, frames=frames))


@every
@pytest.mark.parametrize("value", [0.0, 0.3, -1.0])
def test_nothing_stands_out(kind: str, value: float) -> None:
    flat = np.full((2, T, C), value, np.float32)
    labels = decide(rule(kind), flat, flat, frames=np.ones((2, T, 4), np.float32))
    assert np.isin(labels, (0, C - 1)).all()


@quick
@given(seed=seeds, scale=st.sampled_from([0.125, 0.5, 2.0, 8.0]), shift=st.floats(-1, 1))
def test_what_a_formula_leaves_unchanged(seed: int, scale: float, shift: float) -> None:
    audio, vision, frames = (each.astype(np.float64) for each in made(seed))

    def same(kind: Rule, audio_moved: np.ndarray, vision_moved: np.ndarray) -> bool:
        before = decide(kind, audio, vision, frames=frames)
        return np.array_equal(before, decide(kind, audio_moved, vision_moved, frames=frames))

    # deviations from a mean know no unit and no zero, whichever the sense; nor do ranks
    assert same(rule("av2a"), audio * scale + shift, vision - shift)
    assert same(rule("agreement"), audio * scale + shift, vision - shift)
    # a softmax knows no zero
    assert same(rule("temperatures"), audio + shift, vision - shift)
    # all of CueRator's rule but θ0 and θ5 is proportional to the similarities
    assert same(
        Rule(kind="cuerator", parameters={**FITTED["cuerator"], "theta0": 0.0, "theta5": 0.0}),
        audio * scale,
        vision * scale,
    )
    assert same(rule("clip-prior"), audio * scale, vision / scale)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
@pytest.mark.parametrize("lag", [0, 2, 9])
def test_a_stream_is_decided_in_buffers(form: Rule, lag: int) -> None:
    """With full lag ten seconds are decided as one clip; with less, each by the buffer that its lag lets it see."""
    clip = segments(7, 10)
    stream = Localizer(without_head, vocabulary(), lag=lag, rule=form)
    final = [s for segment in clip for s in stream.push(segment) if s.final] + stream.flush()
    audio, vision = (np.stack([getattr(s, sense) for s in clip])[None] for sense in ("audio", "vision"))
    head = deciding_head(without_head, form, NAMES)
    batch = stream_scores(head, audio, vision, TEXT)[0, :, lag]
    assert [s.label for s in final] == [NAMES[c] for c in fused_labels(batch)]
    assert {s.rule for s in final} == {form.name}
    if lag == BUFFER - 1:
        similarities = without_head(audio, vision, TEXT)[:2]
        labels = decide(form, *similarities, names=NAMES, frames=vision)
        assert [s.label for s in final] == [NAMES[c] for c in labels[0]]


@pytest.mark.parametrize("kind", LIVE)
def test_a_decision_never_looks_further_than_its_lag(kind: str) -> None:
    one, other = segments(1, 8), [*segments(1, 5), *segments(2, 8)[5:]]
    found = []
    for clip in (one, other):
        stream = Localizer(without_head, vocabulary(), lag=2, rule=rule(kind))
        found.append([(s.index, s.label, s.score) for segment in clip for s in stream.push(segment) if s.final])
    assert found[0][:3] == found[1][:3], "seconds 0 to 2 are final before second 5"


def test_further_texts_of_the_background_in_a_stream() -> None:
    clip = segments(3, 10)
    words = vocabulary().background_added(("silence", "an empty room"), EXTRA)
    labels = [s.label for s in Localizer(without_head, words, rule=rule("agreement")).score(clip)]
    audio, vision = (np.stack([getattr(s, sense) for s in clip])[None] for sense in ("audio", "vision"))
    similarities = without_head(audio, vision, TextEmbeddings.joined([TEXT, EXTRA]))[:2]
    expected = decide(rule("agreement"), *similarities, background_texts=2)
    assert labels == [NAMES[c] for c in expected[0]]
    published = Localizer(without_head, words).score(clip)  # the head's own scores would know nothing of them
    positive = rule_scores(rule("published"), evidence_of(rule("published"), Evidence(*similarities), C))
    np.testing.assert_array_equal(np.stack([s.scores for s in published]), positive[0])
    assert all(s.vision_similarity.shape == (C,) for s in published)


def test_a_rule_that_cannot_run_says_why() -> None:
    audio, vision, _ = made(0)
    with pytest.raises(ValueError, match="needs the vision embeddings"):
        decide(rule("av2a"), audio, vision)
    with pytest.raises(UsageError, match=r"theta0 is missing.*eval calibrate --rule cuerator"):
        decide(Rule(kind="cuerator"), audio, vision)
    with pytest.raises(UsageError, match="no parameter 'beta'; it has alpha"):
        check_rule(Rule(kind="av2a", parameters={"beta": 1.0}), "positive", NAMES)
    with pytest.raises(UsageError, match="alpha of the decision rule av2a must be from 0 to 1, not 2"):
        check_rule(Rule(kind="av2a", parameters={"alpha": 2.0}), "positive", NAMES)
    with pytest.raises(UsageError, match="part of a head's graph"):
        decide(Rule(kind="learned"), audio, vision)
    with pytest.raises(UsageError, match="'learned' and cannot be 'agreement'"):
        check_rule(Rule(kind="agreement"), "learned", NAMES)
    with pytest.raises(UsageError, match="measured without 'whistle' and 1 more"):
        check_rule(rule("agreement", reference=REFERENCE), "positive", ("whistle", "hum", "other"))
    with pytest.raises(UsageError, match=r"no decision rule 'vote'; known: published, .*paper.*\+debiased"):
        named_rule("vote")
    with pytest.raises(ValueError, match="must be"):
        decide(rule("agreement"), audio, vision[..., :-1])


def test_live_use_refuses_the_clip_prior_and_what_is_not_fitted() -> None:
    own = Rule(kind="positive")
    with pytest.raises(UsageError, match=r"clip-prior is for benchmarks only: .*OV-AVEBench"):
        live_rule(own, "positive", "clip-prior", NAMES)
    with pytest.raises(UsageError, match="clip-prior is for benchmarks only"):
        check_live(rule("clip-prior"))
    with pytest.raises(UsageError, match=r"agreement\+debiased is fitted on clips"):
        live_rule(own, "positive", "agreement+debiased", NAMES)
    with pytest.raises(UsageError, match="audio_temperature is missing"):
        live_rule(own, "positive", "temperatures", NAMES)
    assert live_rule(own, "positive", None, NAMES) is own
    assert live_rule(own, "positive", "av2a", NAMES) == Rule(kind="av2a")
    fitted = rule("cuerator", reference=REFERENCE)
    assert live_rule(fitted, "positive", "cuerator+debiased", NAMES) is fitted
    assert live_rule(fitted, "positive", "positive", NAMES) == own


def test_every_preset_can_run() -> None:
    for preset in PRESETS.values():
        check_live(preset)
        check_rule(preset, "published", ())
