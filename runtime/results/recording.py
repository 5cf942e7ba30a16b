"""A whole recording at once: a session over a file, gathered into one `Localization`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack

from ovavel.runtime.backends import Backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.economy.settings import Economy
from ovavel.runtime.pipeline.channels import Channel
from ovavel.runtime.pipeline.tracker import EventRules
from ovavel.runtime.results import Localization
from ovavel.runtime.results.thumbnails import thumbnail
from ovavel.runtime.session import Session
from ovavel.runtime.session_info import SessionInfo
from ovavel.runtime.sinks import Sink
from ovavel.runtime.sources import Source
from ovavel.runtime.stats import Stats
from ovavel.runtime.system.progress import Progress, no_progress
from ovavel.runtime.types import LAG, Event, Gap, GapCause, SegmentScores, Update
from ovavel.runtime.verification.open import Verified

__all__ = ["Recorder", "localize_recording"]

_MOST_THUMBNAILS = 200


class Recorder:
    """A sink that gathers a session over a recording, to be asked for its `Localization` afterwards."""

    name = "memory"

    def __init__(self, *, thumbnails: bool = False, duration_s: float | None = None) -> None:
        """Gather; `thumbnails` keeps a few small pictures, spread over the `duration_s` that is expected."""
        self._thumbnails = thumbnails
        self._every = max(1, math.ceil((duration_s or 0) / _MOST_THUMBNAILS))
        self._scores: list[SegmentScores] = []
        self._events: list[Event] = []
        self._gaps: list[Gap] = []
        self._notes: list[str] = []
        self._pictures: dict[int, bytes] = {}

    def open(self, info: SessionInfo, stats: Stats) -> None:
        """Nothing to prepare."""

    def write(self, update: Update) -> None:
        """Keep what is final, and the notices."""
        self._notes += [notice.message for notice in update.notices]
        self._scores += [scores for scores in update.scores if scores.final]
        self._events += [event for event in update.events if event.state == "end"]
        window = update.window
        if window is None:
            return
        self._gaps += window.gaps
        if self._thumbnails and window.frame is not None and window.index % self._every == 0:
            self._pictures[window.index] = thumbnail(window.frame)
            if len(self._pictures) > 2 * _MOST_THUMBNAILS:  # longer than it said, or it did not say
                self._every *= 2
                self._pictures = {i: picture for i, picture in self._pictures.items() if i % self._every == 0}

    def close(self) -> None:
        """Nothing to give back."""

    def localization(self, session: Session) -> Localization:
        """Put together what was gathered of `session`, once that is over."""
        duration_s, counts = session.source.duration_s, session.counts
        return Localization(
            info=session.info,
            duration_s=duration_s if duration_s is not None else float(len(self._scores)),
            scores=tuple(self._scores),
            events=tuple(sorted(self._events, key=lambda event: (event.start_s, event.id))),
            gaps=tuple(self._gaps),
            thumbnails=self._pictures,
            dropped=session.stats.dropped,
            notes=tuple(self._notes),
            channels=session.stats.channels,
            economy=None if session.info.economy.mode == "off" else session.stats.economy.figures,
            trailing_s=counts.samples_dropped.get(GapCause.END_OF_MEDIA, 0) / counts.rate_hz,
        )


def localize_recording(
    bundle: Bundle,
    source: Source,
    *,
    backend: Backend | Verified,
    lag: int = LAG,
    rules: EventRules | None = None,
    thumbnails: bool = False,
    channel: Channel = "auto",
    fusion: str | None = None,
    economy: Economy | None = None,
    sinks: Sequence[Sink] = (),
    progress: Progress = no_progress,
) -> Localization:
    """Decide on every second of `source`. `progress` is called with them; `thumbnails` keeps a few small pictures.

    `channel`, `fusion` and `economy` are those of `Session`. `sinks` get every update too, and are closed at the end.

    Many parameters: those of `Session` and what to keep.

    Raises:
        MediaError: the source cannot be read. What was decided before is lost with it.
        OutputError: a sink cannot write.
    """
    recorder = Recorder(thumbnails=thumbnails, duration_s=source.duration_s)
    with ExitStack() as opened:
        for sink in sinks:
            opened.callback(sink.close)
        session = Session(
            bundle,
            source,
            backend=backend,
            lag=lag,
            rules=rules,
            channel=channel,
            fusion=fusion,
            economy=economy,
        )
        opened.enter_context(session)
        for sink in sinks:
            sink.open(session.info, session.stats)
        for update in session.updates():
            for sink in (recorder, *sinks):
                sink.write(update)
            if update.window:
                progress("localizing", update.window.start_s + 1, source.duration_s)
    return recorder.localization(session)
