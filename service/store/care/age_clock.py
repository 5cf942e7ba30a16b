"""The time by which things are old: a wall clock that jumps far ahead ages nothing before it has proved steady."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from ovavel.runtime.errors import OutputError
from ovavel.runtime.system.files import atomic_write
from ovavel.service.store.accounts import CLOCKS_US
from ovavel.service.store.database import Database, rows

if TYPE_CHECKING:
    from typing import Self

__all__ = ["AHEAD_US", "STEADY_US", "AgeClock"]

AHEAD_US = 86_400_000_000
"""A wall clock that is more than a day ahead of what the monotonic one has counted may be wrong."""
STEADY_US = 86_400_000_000
"""It is believed once it has stayed where it is for a day: long enough for NTP, or for a person who reads of it."""
_FILE = "clock.json"
_KEEP_US = 3_600_000_000


class _Kept(Struct, frozen=True, kw_only=True):
    believed_us: int


class AgeClock:
    """Follows the wall clock, back at once, far ahead only after `STEADY_US`. May be used by several threads."""

    def __init__(self, last_us: int | None, *, path: Path | None = None) -> None:
        """Begin where an earlier service left: at `last_us` on the wall clock; None: there was none.

        Where that is now is kept in the file `path`, for a start while the clock is wrong.
        """
        self._path, self._kept_us = path, -_KEEP_US
        self._believed_us = last_us or 0
        self._monotonic_us: int | None = None
        self._ahead: tuple[int, int] | None = None  # offset of a clock that is not believed yet, and since when
        self._lock = threading.Lock()

    @classmethod
    def of(cls, store: Database, *, keep: bool) -> Self:
        """One that begins where the last service left `store`; `keep`: and says so to the next one."""
        path = store.folder / _FILE
        try:
            last_us: int | None = msgspec.json.decode(path.read_bytes(), type=_Kept).believed_us
        except (OSError, msgspec.MsgspecError):
            found = rows(store.read, "SELECT committed_us FROM run ORDER BY rowid DESC LIMIT 1")
            last_us = int(found[0][0]) if found else None
        return cls(last_us, path=path if keep else None)

    def observe(self, *, now_us: int, monotonic_us: int) -> int:
        """Compare the wall clock with a monotonic one; returns the time by which things are old."""
        with self._lock:
            time_us = self._observe(now_us, monotonic_us)
            if self._path and monotonic_us - self._kept_us >= _KEEP_US:
                self._kept_us = monotonic_us
                with contextlib.suppress(OutputError):  # in an hour, then
                    atomic_write(self._path, msgspec.json.encode(_Kept(believed_us=self._believed_us)) + b"\n")
            return time_us

    def _observe(self, now_us: int, monotonic_us: int) -> int:
        expected_us = self._believed_us + (0 if self._monotonic_us is None else monotonic_us - self._monotonic_us)
        self._monotonic_us = monotonic_us
        if self._believed_us >= CLOCKS_US and now_us > expected_us + AHEAD_US:
            offset_us = now_us - monotonic_us
            if self._ahead is None or abs(offset_us - self._ahead[0]) > AHEAD_US:
                self._ahead = (offset_us, monotonic_us)
            if monotonic_us - self._ahead[1] < STEADY_US:
                self._believed_us = expected_us
                return expected_us
        self._ahead = None
        # One that is not set, as at the boot of a small machine, says nothing of how long it was off.
        self._believed_us = now_us if now_us >= CLOCKS_US else max(now_us, expected_us)
        return now_us

    @property
    def waits_s(self) -> float:
        """How long the wall clock must still stay where it is to be believed; 0 where it is."""
        with self._lock:
            if self._ahead is None or self._monotonic_us is None:
                return 0.0
            return max(0, STEADY_US - (self._monotonic_us - self._ahead[1])) / 1e6
