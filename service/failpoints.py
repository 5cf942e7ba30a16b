"""Named places where a test kills the process, to prove that nothing is lost there."""

from __future__ import annotations

import os
import signal
from collections import Counter

__all__ = ["FAILPOINTS", "VARIABLE", "reach"]

VARIABLE = "OVAVEL_FAILPOINT"
"""Environment variable "NAME" or "NAME:N": the process kills itself when it reaches NAME for the N-th time."""

FAILPOINTS = (
    "store.transaction-open",
    "store.before-commit",
    "store.after-commit",
    "store.migration-copied",
    "store.before-ballast-freed",
    "store.backup-written",
    "store.replaced-kept",
    "delivery.sent",
    "delivery.marked",
    "asset.file-written",
    "asset.file-renamed",
    "asset.row-ready",
    "asset.rows-removed",
    "asset.file-removed",
)
"""Every failpoint, so that a test can try each."""

_reached: Counter[str] = Counter()


def reach(name: str) -> None:
    """Kill this process as `kill -9` does if `VARIABLE` names this failpoint; otherwise do nothing."""
    asked = os.environ.get(VARIABLE)
    if not asked:
        return
    wanted, _, count = asked.partition(":")
    if wanted == name:
        _reached[name] += 1
        if _reached[name] >= int(count or 1):
            os.kill(os.getpid(), signal.SIGKILL)
