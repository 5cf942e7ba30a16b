"""`ovavel demo`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Demo"]


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Watch a small trained model localize events in a clip of its own made-up world."""

    def run(self) -> int:
        """Run."""
        raise NotImplementedError
