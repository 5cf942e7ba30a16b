"""`ovavel train table`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Table"]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Train and score several recipes, and print them as the paper's tables."""

    def run(self) -> int:
        """Run."""
        raise NotImplementedError
