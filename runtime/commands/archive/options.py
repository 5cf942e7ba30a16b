"""Options that the commands of the archive share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from ovavel.runtime.commands.options import Many, Maybe
from ovavel.runtime.errors import UsageError

__all__ = ["SpanOptions"]


@dataclass(frozen=True, kw_only=True)
class SpanOptions:
    """Which cameras, and when."""

    archive: Path
    """Folder of the archive, as given to 'ovavel localize --archive'."""
    camera: Many[str] = ()
    """Only these cameras; all of them by default."""
    from_: Annotated[str | None, arg(name="from", help_behavior_hint="")] = None
    """Only from this time on, such as 2026-11-29 or 2026-11-29T14:30; in this machine's time zone unless it has an
    offset."""
    to: Maybe[str] = None
    """Only before this time."""

    pooled: bool = False
    """Take what was archived in a precision with pooled sound, such as int8-pooled, instead of the rest: the two are
    not compared with each other."""

    @property
    def span_s(self) -> tuple[int | None, int | None]:
        """Unix times of the first second and after the last one; None: no limit.

        Raises:
            UsageError: they are no times, or the first is not before the second.
        """
        from ovavel.runtime.archive.times import parse_time

        first = math.floor(parse_time(self.from_, "--from").timestamp()) if self.from_ else None
        last = math.ceil(parse_time(self.to, "--to").timestamp()) if self.to else None
        if first is not None and last is not None and first >= last:
            raise UsageError(f"--from {self.from_} is not before --to {self.to}; exchange them")
        return first, last
