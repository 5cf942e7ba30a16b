"""`ovavel train prepare`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Prepare"]


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """Cut raw videos into OV-AVEBench's ten frames and one sound each."""

    def run(self) -> int:
        """Run."""
        raise NotImplementedError
