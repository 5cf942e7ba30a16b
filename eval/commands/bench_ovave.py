"""`ovavel eval bench-ovave`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BenchOvave"]


@dataclass(frozen=True, kw_only=True)
class BenchOvave:
    """Score a bundle on OV-AVEBench, beside the published figures."""

    def run(self) -> int:
        """Run."""
        raise NotImplementedError
