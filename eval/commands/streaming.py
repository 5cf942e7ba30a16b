"""`ovavel eval streaming`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Streaming"]


@dataclass(frozen=True, kw_only=True)
class Streaming:
    """Score a bundle second by second, at every lag."""

    def run(self) -> int:
        """Run."""
        raise NotImplementedError
