"""What of the economy a session can run, and why not all of it."""

from __future__ import annotations

from ovavel.runtime.bundle.calibration import Rule
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.economy.settings import Economy, EconomyPlan
from ovavel.runtime.economy.sound import hears_alone, why_never, why_not_exact
from ovavel.runtime.pipeline.localizer import Head

__all__ = ["plan_economy"]


def plan_economy(
    economy: Economy,
    rule: Rule,
    head: Head,
    text: TextEmbeddings,
    *,
    concurrent: bool = False,
) -> EconomyPlan:
    """Return what of `economy` a session can run.

    Args:
        economy: what is asked for.
        rule: that decides.
        head: such as `Backend.head`.
        text: of its names.
        concurrent: whether the engine encodes picture and sound at once, which sound first gives up: then only a rule
            by which sound often decides alone is worth it.
    """
    if economy.mode == "off":
        return EconomyPlan()
    auto = economy.mode == "auto"
    why_not = why_never(rule) if auto else why_not_exact(rule)
    if economy.every_picture:
        why_not = f"{economy.every_picture} needs every picture"
    elif not why_not and not auto and concurrent and rule.kind != "agreement":
        why_not = (
            f"this engine encodes picture and sound at once, and by the rule {rule.name} sound seldom decides alone"
        )
    elif not why_not and not hears_alone(head, text):
        why_not = "what the head of this bundle makes of sound depends on what it sees"
    return EconomyPlan(
        asked=economy.mode,
        mode="off" if why_not and not auto else economy.mode,
        sound=not why_not,
        still=auto,
        budget=economy.budget,
        why_not=why_not,
    )
