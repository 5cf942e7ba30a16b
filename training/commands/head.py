"""`ovavel train head`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Head"]


@dataclass(frozen=True, kw_only=True)
class Head:
    """Train a temporal head on cached features."""

    def run(self) -> int:
        """Run."""
        raise NotImplementedError
