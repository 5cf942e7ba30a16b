"""Run one job of the matrix in a process of its own, within a time limit."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

__all__ = ["Answer", "in_process"]

_LONGEST_MESSAGE = 300
_GRACE_S = 10.0
"""For a call on the GPU to return, and what was measured to be written, after the time is up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of a job."""

    wrote: bytes = b""
    """Its answer; empty where there is none."""
    why: str | None = None
    """Why there is none, or why it is not whole."""


def in_process(
    job: Mapping[str, Any], folder: Path, *, limit_s: float, doing: str = "it", grace_s: float = _GRACE_S
) -> Answer:
    """Run a job. Once its time is up it is asked to end, which keeps what it has; `grace_s` later it is killed.

    Args:
        job: fields of `ovavel.export.gpu_bench.row.Job`.
        folder: for the answer, the log and the cache of engines.
        limit_s: seconds it may take.
        doing: what takes so long, in words.
        grace_s: seconds for ending.
    """
    answer, said = folder / "answer.json", folder / "said.txt"
    answer.unlink(missing_ok=True)
    command = [sys.executable, "-m", "ovavel.export.gpu_bench.row", msgspec.json.encode(job).decode(), str(answer)]
    cache = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    late = None
    with said.open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, env=cache
        )
        try:
            code = process.wait(timeout=max(1.0, limit_s))
        except subprocess.TimeoutExpired:
            late = f"{doing} took longer than {limit_s:.0f} s"
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=grace_s)
            code = 0
        finally:
            with contextlib.suppress(ProcessLookupError):  # also what it started: compilers, say
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if late or (code == 0 and answer.is_file()):
        return Answer(wrote=answer.read_bytes() if answer.is_file() else b"", why=late)
    lines = [line for line in said.read_text(errors="replace").splitlines() if line.strip()]
    last = lines[-1].strip()[:_LONGEST_MESSAGE] if lines else "it said nothing"
    return Answer(why=f"it died of {signal.Signals(-code).name}: {last}" if code < 0 else last)
