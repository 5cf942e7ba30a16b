"""Economy "auto" decides only with a bundle in which it was compared with all pictures encoded."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.economy_gates import passed_gate

from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.calibration import Background, Reference, Rule, names_fingerprint
from ovavel.runtime.bundle.manifest import EconomyGate
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.economy.settings import Economy
from ovavel.runtime.errors import UnverifiedError, UsageError
from ovavel.runtime.verification.economy import deciding_fingerprint, find_economy_gate, require_economy_gate

DEMO = Path(__file__).parents[3] / "eval" / "demo" / "assets" / "bundle"
AUTO = Economy(mode="auto")
POSITIVE, AGREEMENT = Rule(kind="positive"), Rule(kind="agreement")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.open(shutil.copytree(DEMO, tmp_path / "bundle"))


def gate(bundle: Bundle, **changes: object) -> EconomyGate:
    return msgspec.structs.replace(passed_gate(bundle), **changes)


def test_without_a_gate_auto_is_refused_with_the_command_that_makes_one(bundle: Bundle) -> None:
    with pytest.raises(UnverifiedError, match=r"ovavel eval economy RECORDINGS --bundle .* --write"):
        require_economy_gate(bundle, AUTO)
    for mode in ("off", "exact"):
        assert require_economy_gate(bundle, Economy(mode=mode)) is None


def test_a_gate_travels_with_the_bundle_and_is_of_one_rule(bundle: Bundle) -> None:
    changed = bundle.save_economy_gate(gate(bundle))
    assert find_economy_gate(Bundle.open(changed.path), "positive") == gate(bundle)
    assert require_economy_gate(changed, AUTO) == gate(bundle)
    with pytest.raises(UnverifiedError, match="agreement"):
        require_economy_gate(changed, AUTO, "agreement")
    both = changed.save_economy_gate(gate(bundle, rule="agreement")).save_economy_gate(gate(bundle, decisions=1.0))
    assert [each.rule for each in both.manifest.economy] == ["agreement", "positive"]
    assert find_economy_gate(both, "positive") == gate(bundle, decisions=1.0)


def test_a_gate_holds_for_its_budget_and_smaller_ones(bundle: Bundle) -> None:
    changed = bundle.save_economy_gate(gate(bundle))
    assert require_economy_gate(changed, Economy(mode="auto", budget=0.001))
    with pytest.raises(UnverifiedError, match=r"0\.002.*0\.01"):
        require_economy_gate(changed, Economy(mode="auto", budget=0.01))


def test_a_gate_is_for_the_names_it_was_made_with(bundle: Bundle) -> None:
    gated, words = bundle.save_economy_gate(gate(bundle)), bundle.vocabulary
    renamed = gated.save_vocabulary(words.removed(words.names[:1]))
    with pytest.raises(UnverifiedError, match="other names"):
        require_economy_gate(renamed, AUTO)


def test_a_gate_is_for_the_text_embeddings_it_was_made_with(bundle: Bundle) -> None:
    changed = bundle.save_economy_gate(gate(bundle))
    words = bundle.vocabulary
    silent = changed.save_vocabulary(words.background_added(["silence"], words.embeddings[:1]))
    with pytest.raises(UnverifiedError, match="with other text embeddings"):
        require_economy_gate(silent, AUTO)
    first = silent.vocabulary.names[0]
    without = silent.save_vocabulary(silent.vocabulary.removed(["silence", first]))
    spoken = without.save_vocabulary(without.vocabulary.added([first], words.embeddings[1:2]))  # as by another prompt
    assert names_fingerprint(spoken.vocabulary.names) == names_fingerprint(words.names)
    with pytest.raises(UnverifiedError, match="with other text embeddings"):
        require_economy_gate(spoken, AUTO)
    again = spoken.save_vocabulary(spoken.vocabulary.removed([first]).added([first], words.embeddings[:1]))
    assert again.vocabulary.names != words.names, "their order means nothing"
    assert require_economy_gate(again, AUTO)


def test_a_gate_is_for_the_parameters_of_its_rule(bundle: Bundle) -> None:
    fitted = Rule(kind="temperatures", parameters={"audio_temperature": 0.1, "vision_temperature": 0.2})
    changed = bundle.save_calibration(None, fitted)
    changed = changed.save_economy_gate(gate(changed))
    assert require_economy_gate(changed, AUTO)
    fitted = msgspec.structs.replace(fitted, parameters={"audio_temperature": 0.1, "vision_temperature": 0.3})
    fitted_again = changed.save_calibration(None, fitted)
    with pytest.raises(UnverifiedError, match="other parameters of the rule temperatures"):
        require_economy_gate(fitted_again, AUTO)


def test_a_gate_that_does_not_say_what_decided_is_for_nothing(bundle: Bundle) -> None:
    changed = bundle.save_economy_gate(gate(bundle, decides=""))
    assert b'"decides"' not in (changed.path / "manifest.json").read_bytes()
    with pytest.raises(UnverifiedError, match=r"other text embeddings.*ovavel eval economy"):
        require_economy_gate(Bundle.open(changed.path), AUTO)


class TestFingerprint:
    NAMES = ("bell", "dog", "other")
    ROWS = np.eye(6, dtype=np.float32)

    def vocabulary(self, *rows: int, names: tuple[str, ...] = NAMES, texts: tuple[int, ...] = ()) -> Vocabulary:
        return Vocabulary(
            names=names,
            embeddings=TextEmbeddings(self.ROWS[list(rows)], -self.ROWS[list(rows)]),
            background_texts=tuple(f"text {row}" for row in texts),
            background_embeddings=TextEmbeddings(self.ROWS[list(texts)], self.ROWS[list(texts)]) if texts else None,
        )

    @given(order=st.permutations([0, 1, 2]), further=st.permutations([3, 4, 5]))
    def test_an_order_means_nothing(self, order: list[int], further: list[int]) -> None:
        names = (*(f"name {row}" for row in order), "other")
        words = self.vocabulary(*order, 3, names=names, texts=tuple(further))
        same = self.vocabulary(0, 1, 2, 3, names=("name 0", "name 1", "name 2", "other"), texts=(3, 4, 5))
        assert deciding_fingerprint(AGREEMENT, words) == deciding_fingerprint(AGREEMENT, same)

    def test_whatever_changes_a_decision_changes_it(self) -> None:
        words = self.vocabulary(0, 1, 2)
        sums = (0.0,) * 3, (1.0,) * 3
        reference = Reference(
            names=self.NAMES,
            audio_mean=sums[0],
            audio_deviation=sums[1],
            vision_mean=sums[0],
            vision_deviation=sums[1],
            seconds=9,
        )
        moved = msgspec.structs.replace(reference, vision_mean=sums[1])
        rules = [
            AGREEMENT,
            POSITIVE,
            Rule(kind="temperatures", parameters={"audio_temperature": 0.1, "vision_temperature": 0.2}),
            Rule(kind="temperatures", parameters={"audio_temperature": 0.2, "vision_temperature": 0.1}),
            Rule(kind="agreement", reference=reference),
            Rule(kind="agreement", reference=moved),
            Rule(kind="agreement", background=Background(how="logsumexp")),
            Rule(kind="agreement", background=Background(offset=0.1)),
        ]
        vocabularies = [
            words,
            self.vocabulary(1, 0, 2),
            self.vocabulary(0, 1, 2, names=("dog", "other", "bell")),
            self.vocabulary(0, 1, 2, texts=(3,)),
            self.vocabulary(0, 1, 2, texts=(4,)),
            self.vocabulary(0, 1, 2, texts=(3, 4)),
            Vocabulary(names=self.NAMES, embeddings=TextEmbeddings.shared(self.ROWS[:3])),
        ]
        found = [deciding_fingerprint(rule, words) for rule in rules]
        found += [deciding_fingerprint(AGREEMENT, each) for each in vocabularies[1:]]
        assert len(set(found)) == len(rules) + len(vocabularies) - 1


def test_a_failed_gate_says_why_and_how_to_compare_the_same_rule_again(bundle: Bundle) -> None:
    failed = passed_gate(bundle, "agreement")
    failed = msgspec.structs.replace(failed, passed=False, failures=("decisions: 0.9871 are the same, needs 0.999",))
    with pytest.raises(UnverifiedError, match=r"0\.9871.*smaller than 0\.002.* --fusion agreement --economy-budget"):
        require_economy_gate(bundle.save_economy_gate(failed), AUTO, "agreement")


@pytest.mark.parametrize("budget", [0.0, -1.0, 1.5, float("nan")])
def test_a_budget_is_a_share_above_0(budget: float) -> None:
    with pytest.raises(UsageError, match="--economy-budget"):
        Economy(mode="auto", budget=budget)
