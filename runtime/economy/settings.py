"""What of the economy is asked for, and what of it a session runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ovavel.runtime.errors import UsageError
from ovavel.runtime.types import EconomyMode

__all__ = ["BUDGET", "Economy", "EconomyPlan"]

BUDGET = 0.002
"""Default drift budget: 1 - cosine of a reused embedding and the picture's own, at the 99th percentile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Economy:
    """What is asked for."""

    mode: EconomyMode = "off"
    budget: float = BUDGET
    """Drift that a reused embedding may have, as 1 - cosine at the 99th percentile; for the mode "auto"."""
    every_picture: str = ""
    """Who needs the vision embedding of every second, e.g. "the archive"; sound then never decides alone."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.budget) and 0 < self.budget <= 1):
            raise UsageError(f"--economy-budget must be above 0 and at most 1, not {self.budget}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EconomyPlan:
    """What a session runs of it."""

    asked: EconomyMode = "off"
    mode: EconomyMode = "off"
    """What runs: "off" where "exact" was asked for and nothing of it is proven for this session."""
    sound: bool = False
    """Whether sound decides alone where pictures cannot change the decision."""
    still: bool = False
    """Whether a picture that has not changed keeps its embedding."""
    budget: float = BUDGET
    why_not: str = ""
    """Why sound does not decide alone although economy was asked for; empty if it does, or was not asked to."""

    @property
    def facts(self) -> tuple[object, ...]:
        """What of it decides; nothing where every picture is looked at."""
        if self.mode == "off":
            return ()
        return (("economy", self.mode, self.sound, self.budget if self.still else None),)

    @property
    def text(self) -> str:
        """In a few words, for people."""
        return self.note or self.mode

    @property
    def note(self) -> str:
        """What runs instead of all that was asked for, and why, e.g. "off, as …"; empty where all of it runs."""
        if not self.why_not:
            return ""
        return f"{self.mode}, as {self.why_not}" if self.mode == "off" else f"{self.mode}, but {self.why_not}"
