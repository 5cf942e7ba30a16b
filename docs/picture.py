"""Draws `docs/live.svg`, the live view at a moment of a real session.

Usage: python docs/picture.py demo-out/bundle demo-out/clip.mp4 docs/live.svg
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from rich.console import Console

from ovavel.runtime import Session
from ovavel.runtime.sinks.terminal import TerminalSink
from ovavel.runtime.sources.media.source import MediaSource

AT_S = 14
"""Media time of the picture."""


def main(bundle: str, clip: str, out: str) -> None:
    """Run a session over `clip`, as fast as it plays, and save the view as it stands at `AT_S`."""
    sink = TerminalSink(Console(width=100, height=26, file=io.StringIO(), force_terminal=True))
    with Session(bundle, MediaSource(clip, realtime=True), device="cpu") as session:
        sink.open(session.info, session.stats)
        for update in session.updates():
            sink.write(update)
            if update.window and update.window.index == AT_S:
                picture = Console(record=True, width=100, height=26, file=io.StringIO())
                picture.print(sink.render())
                Path(out).write_text(picture.export_svg(title="ovavel live"), encoding="utf-8")
        sink.close()


if __name__ == "__main__":
    main(*sys.argv[1:4])
