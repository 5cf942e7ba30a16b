"""What is fitted on clips for a bundle: the rule that decides, and what makes its scores mean something."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct

from ovavel.runtime.types import RuleKind

if TYPE_CHECKING:
    from ovavel.runtime.bundle.vocabulary import Vocabulary

__all__ = ["DEBIASED", "OFFSET", "OTHER_NAMES", "Background", "Calibration", "Reference", "Rule", "names_fingerprint"]

Share = Annotated[float, Meta(ge=0, le=1)]
Deviation = Annotated[float, Meta(gt=0)]

DEBIASED, OFFSET = "+debiased", "+offset"
"""What the name of a rule ends in that has reference statistics, or an offset of the background."""


class Reference(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Mean and deviation of the similarities of unlabelled seconds, of each name in each sense.

    A class to which everything is similar is no evidence: with a reference, a similarity counts by how many deviations
    it is above its class's mean.
    """

    names: tuple[str, ...]
    """C names that it was measured for, the background among them; their order means nothing."""
    audio_mean: tuple[float, ...]
    audio_deviation: tuple[Deviation, ...]
    vision_mean: tuple[float, ...]
    vision_deviation: tuple[Deviation, ...]
    seconds: Annotated[int, Meta(ge=1)]
    """Seconds that it was measured on."""

    def __post_init__(self) -> None:
        columns = (self.audio_mean, self.audio_deviation, self.vision_mean, self.vision_deviation)
        if any(len(each) != len(self.names) for each in columns) or not np.isfinite(columns).all():
            raise ValueError("reference statistics need a finite mean and deviation for every name in each sense")


class Background(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How the background competes: its texts as one class, and an offset."""

    how: Literal["max", "logsumexp"] = "max"
    """How several texts of the background become one similarity."""
    temperature: Deviation = 0.1
    """Of logsumexp: t · log Σ exp(similarity / t)."""
    offset: float = 0.0
    """Added to the background's similarity in each sense; above 0, fewer events are found."""

    def __post_init__(self) -> None:
        if not np.isfinite([self.temperature, self.offset]).all():
            raise ValueError("the temperature and the offset of the background must be finite")


class Rule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What turns the similarities of both senses into a decision (docs/method.md, Decision rules).

    `ovavel.runtime.pipeline.rules` applies it, and checks its parameters.
    """

    kind: RuleKind
    parameters: dict[str, float] = {}
    """Those that differ from the rule's defaults, by name; see `RULES`."""
    reference: Reference | None = None
    """Statistics that the similarities are debiased with; None: they count as they are."""
    background: Background | None = None
    """None: the largest of the background's texts, without an offset."""

    @property
    def name(self) -> str:
        """Kind, and what is done to the similarities before, e.g. "agreement+debiased"."""
        offset = OFFSET if self.background and self.background.offset else ""
        return f"{self.kind}{DEBIASED if self.reference else ''}{offset}"


class Calibration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How reliable the scores of a bundle are (docs/method.md, Calibration).

    It was fitted for the names of its dataset and for final decisions. With other names there are no probabilities, and
    its margins are only a guide; for seconds that are not final yet, its probabilities are only a guide too.
    """

    temperature: Annotated[float, Meta(gt=0)]
    """Divides the fused scores before the softmax."""
    on: Share
    """Margin over the background that a second needs to begin an event; `EventRules.start_margin` replaces it."""
    off: Share
    """Margin that later seconds need to continue it; at most `on`."""
    ece_before: Share
    """Expected calibration error at temperature 1, on held-out clips if there were any."""
    ece_after: Share
    """The same at `temperature`."""
    segments: Annotated[int, Meta(ge=1)]
    """Seconds it was fitted on."""
    dataset: str
    """Fingerprint of the dataset that they came from."""
    fusion: str = "published"
    """Name of the rule whose scores it was fitted to."""
    names: str
    """`names_fingerprint` of the class names, and further texts of the background, that it was fitted for."""

    def __post_init__(self) -> None:
        if self.off > self.on or not np.isfinite(self.temperature):
            raise ValueError(f"a calibration needs a finite temperature and off ≤ on; got {self}")

    def fits(self, vocabulary: Vocabulary) -> bool:
        """Whether it was fitted for the names of `vocabulary` and its further texts of the background."""
        return self.names == names_fingerprint(vocabulary.names, vocabulary.background_texts)


OTHER_NAMES = (
    "the bundle was calibrated for other names or texts of the background: no probabilities, and its margins are a "
    "guide; 'ovavel eval calibrate --write' measures both again"
)
"""Note for users where `Calibration.fits` is false."""


@lru_cache(maxsize=16)
def names_fingerprint(names: tuple[str, ...], background_texts: tuple[str, ...] = ()) -> str:
    """Return a fingerprint of class names, background last, and of its further texts; the order does not matter."""
    *named, background = names
    further = [sorted(background_texts)] if background_texts else []
    return hashlib.sha256(msgspec.json.encode([*sorted(named), background, *further])).hexdigest()[:12]
