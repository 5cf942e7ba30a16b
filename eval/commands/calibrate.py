"""`ovavel eval calibrate`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Calibrate"]


@dataclass(frozen=True, kw_only=True)
class Calibrate:
    """Fit temperature and event thresholds on the validation split."""

    def run(self) -> int:
        """Run."""
        raise NotImplementedError
