"""Whether the economy mode "auto" may decide: only after a comparison with all pictures encoded (docs/economy.md)."""

from __future__ import annotations

import hashlib

import msgspec

from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.calibration import Rule, names_fingerprint
from ovavel.runtime.bundle.manifest import EconomyGate
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.economy.settings import BUDGET, Economy
from ovavel.runtime.errors import UnverifiedError
from ovavel.runtime.pipeline.rules.apply import bundle_rule

__all__ = ["deciding_fingerprint", "find_economy_gate", "require_economy_gate"]


def find_economy_gate(bundle: Bundle, rule: str) -> EconomyGate | None:
    """Return the gate for decisions by the rule called `rule`; None if there is none."""
    return next((gate for gate in bundle.manifest.economy if gate.rule == rule), None)


def deciding_fingerprint(rule: Rule, vocabulary: Vocabulary) -> str:
    """Return a fingerprint of what decides: the rule with its parameters, names and texts with their embeddings.

    The order of names and of the background's further texts does not matter.
    """
    digest = hashlib.sha256(msgspec.json.encode(rule, order="deterministic"))
    further = vocabulary.background_embeddings
    for texts, embeddings in (
        (vocabulary.names[:-1], vocabulary.embeddings[:-1]),
        ((vocabulary.background,), vocabulary.embeddings[-1:]),
        (vocabulary.background_texts, vocabulary.embeddings[:0] if further is None else further),
    ):
        order = sorted(range(len(texts)), key=texts.__getitem__)
        digest.update(msgspec.json.encode([texts[row] for row in order]) + embeddings[order].raw)
    return digest.hexdigest()[:12]


def require_economy_gate(bundle: Bundle, economy: Economy, fusion: str | None = None) -> EconomyGate | None:
    """Return the gate that lets `economy` decide by the bundle's own rule, or the one that `fusion` names.

    None for a mode that needs none.

    Raises:
        UnverifiedError: there is no such gate, it is for other names, texts or parameters or a smaller drift budget, or
            it failed.
        UsageError: the rule cannot run with this bundle.
    """
    if economy.mode != "auto":
        return None
    rule = bundle_rule(bundle, fusion)
    gate = find_economy_gate(bundle, rule.name)
    command = f"ovavel eval economy RECORDINGS --bundle {bundle.path} --out economy --write"
    if fusion:
        command += f" --fusion {fusion}"
    budget = "" if economy.budget == BUDGET else f" --economy-budget {economy.budget}"
    fix = f"`{command}{budget}` compares them; use --economy exact until then"
    if gate is None:
        raise UnverifiedError(
            f"--economy auto of the bundle {bundle.path} has not been compared with all pictures encoded, for "
            f"decisions by {rule.name}: {fix}"
        )
    if gate.decides != deciding_fingerprint(rule, bundle.vocabulary):
        renamed = gate.names != names_fingerprint(bundle.vocabulary.names)
        other = "names" if renamed else f"text embeddings, or with other parameters of the rule {rule.name}"
        raise UnverifiedError(f"--economy auto of the bundle {bundle.path} was compared with other {other}: {fix}")
    if not gate.passed:
        why = gate.failures[0] if gate.failures else "it does not say why"
        raise UnverifiedError(
            f"--economy auto of the bundle {bundle.path} decides differently from all pictures encoded ({why}): use "
            f"--economy exact, or compare a budget smaller than {gate.budget}: `{command} --economy-budget SMALLER`"
        )
    if economy.budget > gate.budget:
        raise UnverifiedError(
            f"--economy auto of the bundle {bundle.path} was compared with a drift budget of {gate.budget}, and "
            f"--economy-budget asks for {economy.budget}: {fix}"
        )
    return gate
