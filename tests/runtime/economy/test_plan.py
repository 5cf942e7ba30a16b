"""What of the economy a session can run: by its rule, its head, its engine, and who needs every picture."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from support.rules import rule as fitted_rule

from ovavel.runtime.backends import HeadOutput
from ovavel.runtime.bundle.calibration import Rule
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.economy.plan import plan_economy
from ovavel.runtime.economy.settings import Economy
from ovavel.runtime.economy.sound import hears_alone
from ovavel.runtime.pipeline.fusion import cosine_similarity, fused_score
from ovavel.runtime.types import RuleKind

TEXTS = TextEmbeddings.shared(np.eye(3, 6, dtype=np.float32))


def head(audio: NDArray[np.float32], vision: NDArray[np.float32], text: TextEmbeddings) -> HeadOutput:
    similarities = cosine_similarity(audio, text.audio), cosine_similarity(vision, text.vision)
    return HeadOutput(*similarities, fused_score(*similarities))


def both_ways(audio: NDArray[np.float32], vision: NDArray[np.float32], text: TextEmbeddings) -> HeadOutput:
    """A head that listens where it looks."""
    return head(audio + np.float32(1e-3) * vision, vision, text)


def test_rules_that_sound_does_not_settle_say_why() -> None:
    for kind, why in (
        ("published", "two negative similarities"),
        ("learned", "part of the head's graph"),
        ("av2a", "surroundings"),
        ("cuerator", "surroundings"),
    ):
        plan = plan_economy(Economy(mode="exact"), fitted_rule(kind), head, TEXTS)
        assert (plan.mode, plan.sound) == ("off", False)
        assert why in plan.why_not
        assert why in plan.text
    assert plan_economy(Economy(mode="auto"), Rule(kind="published"), head, TEXTS).sound


def test_a_head_that_listens_where_it_looks_is_found_out() -> None:
    assert hears_alone(head, TEXTS)
    assert not hears_alone(both_ways, TEXTS)
    plan = plan_economy(Economy(mode="exact"), Rule(kind="agreement"), both_ways, TEXTS)
    assert plan.mode == "off"
    assert "depends on what it sees" in plan.why_not


def test_sessions_on_one_backend_try_its_head_once_for_the_same_texts() -> None:
    class Opened:
        calls = 0

        def head(self, audio: NDArray[np.float32], vision: NDArray[np.float32], text: TextEmbeddings) -> HeadOutput:
            self.calls += 1
            return head(audio, vision, text)

    class Slotted(Opened):
        __slots__ = ()
        __hash__ = None  # type: ignore[assignment]

    opened, slotted = Opened(), Slotted()
    assert hears_alone(opened.head, TEXTS)
    once = opened.calls
    assert hears_alone(opened.head, TEXTS)
    assert opened.calls == once
    assert hears_alone(opened.head, TextEmbeddings.shared(-TEXTS.audio))
    assert opened.calls == 2 * once, "other texts"
    assert all(hears_alone(slotted.head, TEXTS) for _ in range(2))
    assert slotted.calls == 2 * once


def test_who_needs_every_picture_gets_every_picture() -> None:
    rule = Rule(kind="agreement")
    archived = plan_economy(Economy(mode="exact", every_picture="the archive"), rule, head, TEXTS)
    assert (archived.mode, archived.why_not) == ("off", "the archive needs every picture")
    plan = plan_economy(Economy(mode="exact"), rule, head, TEXTS)
    assert (plan.mode, plan.why_not, plan.text) == ("exact", "", "exact")


@pytest.mark.parametrize(("kind", "mode"), [("agreement", "exact"), ("positive", "off"), ("temperatures", "off")])
def test_picture_and_sound_stay_concurrent_where_sound_seldom_decides_alone(kind: RuleKind, mode: str) -> None:
    plan = plan_economy(Economy(mode="exact"), fitted_rule(kind), head, TEXTS, concurrent=True)
    assert (plan.mode, "at once" in plan.why_not) == (mode, mode == "off")
    assert plan_economy(Economy(mode="auto"), fitted_rule(kind), head, TEXTS, concurrent=True).sound
