"""Settings of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from ovavel.runtime.errors import UsageError

__all__ = ["SCENARIOS", "Scenario", "Settings"]

Scenario = Literal["parity", "single", "offline", "live", "capture"]
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to measure, and how much."""

    scenarios: Sequence[Scenario] = ("single",)
    windows: int | None = None
    """Of single stream; None: 30, or as many as take 10 s, 1000 at most."""
    warm_up_s: float = 20.0
    """Time limit for a row that does not become steady."""
    offline_s: float = 0.5
    """Minimum time per batch size."""
    largest_batch: int = 64
    deadline_ms: float = 1000.0
    trial_s: float = 5.0
    """Of a number of cameras, in the live scenario."""
    most_cameras: int = 4096
    capture_windows: int = 10
    rates: bool = False
    """Measure the best rates of the device and the share of them that was reached."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.scenarios) - set(SCENARIOS))
        if unknown or not self.scenarios:
            raise UsageError(f"scenarios are {', '.join(SCENARIOS)}; not {', '.join(unknown) or 'none at all'}")
        for name in ("windows", "largest_batch", "most_cameras", "capture_windows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name.replace('_', ' ')} must be at least 1, not {value}")
        for name in ("warm_up_s", "offline_s", "deadline_ms", "trial_s"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UsageError(f"{name} must be positive, not {getattr(self, name)}")
