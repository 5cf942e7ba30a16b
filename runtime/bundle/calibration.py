"""What makes the scores of a bundle mean something: a temperature and two margins, fitted on clips with known truth."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct

from ovavel.runtime.types import FusionKind

__all__ = ["OTHER_NAMES", "Calibration", "names_fingerprint"]

Share = Annotated[float, Meta(ge=0, le=1)]


class Calibration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How far the scores of a bundle are to be trusted (docs/method.md, Calibration).

    It was fitted for the names of its dataset and for final decisions. With other names there are no probabilities, and
    its margins are a guide; for seconds that are not final yet, its probabilities are one.
    """

    temperature: Annotated[float, Meta(gt=0)]
    """By which the fused scores are divided before the softmax."""
    on: Share
    """Margin over the background that a second needs to begin an event; `EventRules.start_margin` replaces it."""
    off: Share
    """Margin that later seconds need to continue it; not above `on`."""
    ece_before: Share
    """Expected calibration error at temperature 1, on clips that the fit did not see where there were any."""
    ece_after: Share
    """The same at `temperature`."""
    segments: Annotated[int, Meta(ge=1)]
    """Seconds it was fitted on."""
    dataset: str
    """Fingerprint of the dataset they came from."""
    fusion: FusionKind = "published"
    """The fusion whose scores it was fitted to."""
    names: str
    """`names_fingerprint` of the class names it was fitted for."""

    def __post_init__(self) -> None:
        if self.off > self.on or not np.isfinite(self.temperature):
            raise ValueError(f"a calibration needs a finite temperature and off ≤ on; got {self}")

    def fits(self, names: tuple[str, ...]) -> bool:
        """Whether it was fitted for the class names `names`, background last."""
        return self.names == names_fingerprint(names)


OTHER_NAMES = (
    "the bundle was calibrated for other names: no probabilities, and its margins are a guide; "
    "'ovavel eval calibrate --write' measures both again"
)
"""What a user is to know where `Calibration.fits` is false."""


@lru_cache(maxsize=16)
def names_fingerprint(names: tuple[str, ...]) -> str:
    """Return a fingerprint of class names, background last; the order of the others means nothing."""
    *named, background = names
    return hashlib.sha256(msgspec.json.encode([*sorted(named), background])).hexdigest()[:12]
