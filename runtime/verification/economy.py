"""Whether the economy mode "auto" may decide: only after a comparison with all pictures encoded (docs/economy.md)."""

from __future__ import annotations

from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.calibration import names_fingerprint
from ovavel.runtime.bundle.manifest import EconomyGate
from ovavel.runtime.economy.settings import Economy
from ovavel.runtime.errors import UnverifiedError

__all__ = ["find_economy_gate", "require_economy_gate"]


def find_economy_gate(bundle: Bundle, rule: str) -> EconomyGate | None:
    """Return the gate for decisions by the rule called `rule`; None if there is none."""
    return next((gate for gate in bundle.manifest.economy if gate.rule == rule), None)


def require_economy_gate(bundle: Bundle, economy: Economy, rule: str) -> EconomyGate | None:
    """Return the gate that lets `economy` decide by the rule called `rule`; None for a mode that needs none.

    Raises:
        UnverifiedError: there is no such gate, it is for other names or a smaller drift budget, or it failed.
    """
    if economy.mode != "auto":
        return None
    gate = find_economy_gate(bundle, rule)
    fix = (
        f"`ovavel eval economy RECORDINGS --bundle {bundle.path} --out economy --write` compares them; use --economy "
        "exact until then"
    )
    if gate is None:
        raise UnverifiedError(
            f"--economy auto of the bundle {bundle.path} has not been compared with all pictures encoded, for "
            f"decisions by {rule}: {fix}"
        )
    if gate.names != names_fingerprint(bundle.vocabulary.names):
        raise UnverifiedError(f"--economy auto of the bundle {bundle.path} was compared with other names: {fix}")
    if not gate.passed:
        why = gate.failures[0] if gate.failures else "it does not say why"
        raise UnverifiedError(
            f"--economy auto of the bundle {bundle.path} decides differently from all pictures encoded ({why}): use "
            "--economy exact, or compare it again with a smaller --economy-budget"
        )
    if economy.budget > gate.budget:
        raise UnverifiedError(
            f"--economy auto of the bundle {bundle.path} was compared with a drift budget of {gate.budget:g}, and "
            f"--economy-budget asks for {economy.budget:g}: {fix}"
        )
    return gate
