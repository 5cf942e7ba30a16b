"""How long a run trained: a file of its own, because all others are the same, byte for byte, in each run."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
from msgspec import Struct, structs

from ovavel.runtime.system.files import atomic_write
from ovavel.runtime.system.untrusted import read_json

__all__ = ["TIMES", "EpochTime", "note_times", "read_times", "trained_side_by_side"]

TIMES = "times.json"


class EpochTime(Struct, frozen=True, kw_only=True):
    """Seconds that one epoch took; an epoch that was interrupted counts from its last start."""

    training_s: float
    validation_s: float
    """Scoring of the validation and the test split, and writing the head."""
    side_by_side: int = 1
    """Runs that were trained at once, each in a process of its own."""


_side_by_side = 1


def trained_side_by_side(processes: int) -> None:
    """Note, in times of this process from now on, that so many processes train at once."""
    global _side_by_side
    _side_by_side = processes


def note_times(out: Path, epoch: int, time: EpochTime) -> None:
    """Note the time of the epoch with this number, counted from 0, in the folder of its run."""
    times, time = read_times(out)[:epoch], structs.replace(time, side_by_side=_side_by_side)
    if len(times) == epoch:
        atomic_write(out / TIMES, msgspec.json.encode((*times, time)) + b"\n")
    else:  # of some epochs it is not known, and so not of the run
        (out / TIMES).unlink(missing_ok=True)


def read_times(out: Path) -> tuple[EpochTime, ...]:
    """Return the time of each epoch of the run in a folder; empty where it is unknown."""
    with contextlib.suppress(OSError, ValueError):
        return read_json((out / TIMES).read_bytes(), tuple[EpochTime, ...])
    return ()
