"""`ovavel archive check`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

__all__ = ["Check"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """Examine an archive: that every second in it is whole, and that its search index fits.

    Examples:
        ovavel archive check archive
        ovavel archive check archive --repair

    Returns 1 if something is wrong that was not repaired. Cameras may be written meanwhile.
    """

    folder: Positional[Path]
    """Folder of the archive."""
    repair: bool = False
    """Take damaged seconds out, rebuild the index where it does not fit, and finish removals that were cut short."""

    def run(self) -> int:
        """Examine every day."""
        from ovavel.runtime.archive.care import Finding, examine
        from ovavel.runtime.reporting.text import one_line, shown_name

        days, left = 0, 0
        for each in examine(self.folder, repair=self.repair):
            if isinstance(each, Finding):
                left += not each.repaired
                done = "repaired" if each.repaired else "not repaired"
                print(f"{shown_name(str(each.folder))}: {one_line(each.what)}; {done}")
            else:
                days += 1
        print(f"{days} days of cameras can be searched" + (f"; {left} faults are left" if left else ""))
        if left and not self.repair:
            print("'ovavel archive check --repair' repairs what can be repaired")
        return 1 if left else 0
