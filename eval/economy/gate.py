"""The gate that a bundle needs before the economy mode "auto" may decide with it (docs/economy.md)."""

from __future__ import annotations

from collections.abc import Sequence

from ovavel.eval.economy.compare import Comparison, Measures
from ovavel.runtime.bundle.manifest import EconomyGate
from ovavel.runtime.economy.settings import Economy

__all__ = ["FEWEST_SECONDS", "KEPT_MEASURES", "SAME_DECISIONS", "make_gate"]

SAME_DECISIONS = 0.999
"""Share of the seconds that have to be decided as with all pictures."""
KEPT_MEASURES = 0.995
"""Share of each measure that has to be kept where there are labels."""
FEWEST_SECONDS = 1000
"""Fewer cannot show whether one second in a thousand differs."""


def make_gate(
    comparisons: Sequence[Comparison],
    economy: Economy,
    *,
    rule: str,
    names: str,
    decides: str,
    reference: str,
    saved: float | None,
) -> EconomyGate:
    """Judge comparisons of one economy: each group of streams has to pass by itself.

    `names` and `decides` are the fingerprints of the class names and of what decides, `reference` says what was
    compared, `saved` is the share of the operations of the bundle's own encoders.
    """
    failures = []
    for each in comparisons:
        if each.same < SAME_DECISIONS:
            failures.append(f"{each.group}: {each.same:.5f} of the decisions are the same, needs {SAME_DECISIONS}")
        for name in Measures.__struct_fields__:
            full, economic = (getattr(side, name, None) for side in (each.full, each.economy))
            if full is not None and economic is not None and economic < KEPT_MEASURES * full:
                change = f"{full:.4f} to {economic:.4f}"
                failures.append(f"{each.group}: {name} falls from {change}, needs {KEPT_MEASURES} of it")
    seconds = sum(each.seconds for each in comparisons)
    if seconds < FEWEST_SECONDS:
        failures.append(f"only {seconds} s were compared, needs {FEWEST_SECONDS}")
    if not any(each.events for each in comparisons):
        failures.append("no event was found without economy, so that nothing was at stake")
    drifts = [each.drift_p99 for each in comparisons if each.drift_p99 is not None]
    return EconomyGate(
        passed=not failures,
        rule=rule,
        budget=economy.budget,
        names=names,
        decides=decides,
        reference=reference,
        seconds=seconds,
        decisions=sum(each.same * each.seconds for each in comparisons) / seconds,
        events=min(each.event_f for each in comparisons),
        saved=saved,
        drift_p99=max(drifts, default=None),
        failures=tuple(failures),
    )
