"""`ovavel train features`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Features"]


@dataclass(frozen=True, kw_only=True)
class Features:
    """Encode every segment once, into a cache for training."""

    def run(self) -> int:
        """Run."""
        raise NotImplementedError
