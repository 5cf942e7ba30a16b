"""Economy "auto" decides only with a bundle in which it was compared with all pictures encoded."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.calibration import names_fingerprint
from ovavel.runtime.bundle.manifest import EconomyGate
from ovavel.runtime.economy.settings import Economy
from ovavel.runtime.errors import UnverifiedError, UsageError
from ovavel.runtime.verification.economy import find_economy_gate, require_economy_gate

DEMO = Path(__file__).parents[3] / "eval" / "demo" / "assets" / "bundle"
AUTO = Economy(mode="auto")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.open(shutil.copytree(DEMO, tmp_path / "bundle"))


def gate(bundle: Bundle, **changes: object) -> EconomyGate:
    made = EconomyGate(
        passed=True,
        rule="positive",
        budget=0.002,
        names=names_fingerprint(bundle.vocabulary.names),
        reference="2 days of the demo world",
        seconds=172_800,
        decisions=0.9995,
        events=0.999,
        saved=0.87,
        drift_p99=0.0011,
    )
    return msgspec.structs.replace(made, **changes)


def test_without_a_gate_auto_is_refused_with_the_command_that_makes_one(bundle: Bundle) -> None:
    with pytest.raises(UnverifiedError, match=r"ovavel eval economy RECORDINGS --bundle .* --write"):
        require_economy_gate(bundle, AUTO, "positive")
    for mode in ("off", "exact"):
        assert require_economy_gate(bundle, Economy(mode=mode), "positive") is None


def test_a_gate_travels_with_the_bundle_and_is_of_one_rule(bundle: Bundle) -> None:
    changed = bundle.save_economy_gate(gate(bundle))
    assert find_economy_gate(Bundle.open(changed.path), "positive") == gate(bundle)
    assert require_economy_gate(changed, AUTO, "positive") == gate(bundle)
    with pytest.raises(UnverifiedError, match="agreement"):
        require_economy_gate(changed, AUTO, "agreement")
    both = changed.save_economy_gate(gate(bundle, rule="agreement")).save_economy_gate(gate(bundle, decisions=1.0))
    assert [each.rule for each in both.manifest.economy] == ["agreement", "positive"]
    assert find_economy_gate(both, "positive") == gate(bundle, decisions=1.0)


def test_a_gate_holds_for_its_budget_and_smaller_ones(bundle: Bundle) -> None:
    changed = bundle.save_economy_gate(gate(bundle))
    assert require_economy_gate(changed, Economy(mode="auto", budget=0.001), "positive")
    with pytest.raises(UnverifiedError, match=r"0\.002.*0\.01"):
        require_economy_gate(changed, Economy(mode="auto", budget=0.01), "positive")


def test_a_gate_is_for_the_names_it_was_made_with(bundle: Bundle) -> None:
    with pytest.raises(UnverifiedError, match="other names"):
        require_economy_gate(bundle.save_economy_gate(gate(bundle, names="0" * 12)), AUTO, "positive")


def test_a_failed_gate_says_why(bundle: Bundle) -> None:
    failed = gate(bundle, passed=False, failures=("decisions: 0.9871 are the same, needs 0.999",))
    with pytest.raises(UnverifiedError, match=r"0\.9871"):
        require_economy_gate(bundle.save_economy_gate(failed), AUTO, "positive")


@pytest.mark.parametrize("budget", [0.0, -1.0, 1.5, float("nan")])
def test_a_budget_is_a_share_above_0(budget: float) -> None:
    with pytest.raises(UsageError, match="--economy-budget"):
        Economy(mode="auto", budget=budget)
