"""The view that fits where the output goes."""

from __future__ import annotations

import sys
from typing import Literal

from ovavel.runtime.sinks import Sink

__all__ = ["open_view"]


def open_view(kind: Literal["auto", "terminal", "lines"] = "auto") -> Sink:
    """Return a live view or plain lines on standard output; auto takes the live view where that is a terminal."""
    if kind == "terminal" or (kind == "auto" and sys.stdout.isatty()):
        from ovavel.runtime.sinks.terminal import TerminalSink

        return TerminalSink()
    from ovavel.runtime.sinks.lines import LinesSink

    return LinesSink()
