"""`ovavel vocab test`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Test"]


@dataclass(frozen=True, kw_only=True)
class Test:
    """Score phrasings against recordings, to choose words that work."""

    def run(self) -> int:
        """Run."""
        raise NotImplementedError
