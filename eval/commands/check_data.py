"""`ovavel eval check-data`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CheckData"]


@dataclass(frozen=True, kw_only=True)
class CheckData:
    """Check a copy of OV-AVEBench: what is missing, unreadable, or of the wrong length or count."""

    def run(self) -> int:
        """Run."""
        raise NotImplementedError
