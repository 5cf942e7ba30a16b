"""`ovavel train demo-world`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DemoWorld"]


@dataclass(frozen=True, kw_only=True)
class DemoWorld:
    """Make the demo world and train its model from scratch."""

    def run(self) -> int:
        """Run."""
        raise NotImplementedError
