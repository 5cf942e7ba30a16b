"""A gate that lets economy "auto" decide."""

from __future__ import annotations

from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.calibration import names_fingerprint
from ovavel.runtime.bundle.manifest import EconomyGate
from ovavel.runtime.economy.settings import BUDGET
from ovavel.runtime.pipeline.rules.apply import bundle_rule
from ovavel.runtime.verification.economy import deciding_fingerprint


def passed_gate(bundle: Bundle, fusion: str | None = None, *, budget: float = BUDGET) -> EconomyGate:
    """A gate that passed, for what decides in `bundle` now: its own rule, or the one that `fusion` names."""
    rule, words = bundle_rule(bundle, fusion), bundle.vocabulary
    return EconomyGate(
        passed=True,
        rule=rule.name,
        budget=budget,
        names=names_fingerprint(words.names),
        decides=deciding_fingerprint(rule, words),
        reference="2 days of the demo world",
        seconds=172_800,
        decisions=0.9995,
        events=0.999,
        saved=0.87,
        drift_p99=0.0011,
    )
