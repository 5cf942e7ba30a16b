"""Running one job of the matrix in a separate process, within a time limit."""

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

_MAX_MESSAGE = 300
_GRACE_S = 10.0
"""Time after the limit for a GPU call to return and for measurements to be written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Result of a job."""

    content: bytes = b""
    """Content of its answer file; empty if there is none."""
    why: str | None = None
    """Why there is no answer, or why it is incomplete."""


def in_process(
    job: Mapping[str, Any], folder: Path, *, limit_s: float, doing: str = "it", grace_s: float = _GRACE_S
) -> Answer:
    """Run a job. At the time limit it is terminated, which keeps what it measured; `grace_s` later it is killed.

    Args:
        job: fields of `ovavel.export.gpu_bench.row.Job`.
        folder: folder for the answer, the log and the engine cache.
        limit_s: time limit in seconds.
        doing: description of the job, for the message about the time limit.
        grace_s: seconds between termination and kill.
    """
    answer, output = folder / "answer.json", folder / "output.txt"
    answer.unlink(missing_ok=True)
    command = [sys.executable, "-m", "ovavel.export.gpu_bench.row", msgspec.json.encode(job).decode(), str(answer)]
    cache = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    late = None
    with output.open("wb") as log:
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
            with contextlib.suppress(ProcessLookupError):  # including children such as compilers
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if late or (code == 0 and answer.is_file()):
        return Answer(content=answer.read_bytes() if answer.is_file() else b"", why=late)
    lines = [line for line in output.read_text(errors="replace").splitlines() if line.strip()]
    last = lines[-1].strip()[:_MAX_MESSAGE] if lines else "no output"
    return Answer(why=f"killed by {signal.Signals(-code).name}: {last}" if code < 0 else last)
