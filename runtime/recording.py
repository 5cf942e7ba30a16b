"""A whole recording at once: a session over a file, gathered into one `Localization`."""

from __future__ import annotations

import math
from collections.abc import Callable

from ovavel.runtime.backends import Backend
from ovavel.runtime.bundle import Bundle
from ovavel.runtime.localizer import LAG
from ovavel.runtime.results import Localization
from ovavel.runtime.results.thumbnails import thumbnail
from ovavel.runtime.session import Session
from ovavel.runtime.sources import Source
from ovavel.runtime.tracker import EventRules
from ovavel.runtime.types import RATE_HZ, Event, Gap, SegmentScores

__all__ = ["localize_recording"]

_MOST_THUMBNAILS = 200


def localize_recording(
    bundle: Bundle,
    source: Source,
    *,
    backend: Backend,
    lag: int = LAG,
    rules: EventRules | None = None,
    thumbnails: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Localization:
    """Decide on every second of `source`. `progress` is told the seconds done; `thumbnails` keeps a few small pictures.

    Raises:
        MediaError: the source cannot be read. What was decided before is lost with it.
    """
    scores: list[SegmentScores] = []
    events: list[Event] = []
    gaps: list[Gap] = []
    pictures: dict[int, bytes] = {}
    every = max(1, math.ceil((source.duration_s or 0) / _MOST_THUMBNAILS))
    with Session(bundle, source, backend=backend, lag=lag, rules=rules) as session:
        for update in session.updates():
            scores += [s for s in update.scores if s.final]
            events += [event for event in update.events if event.state == "end"]
            window = update.window
            if window:
                gaps += window.gaps
                if thumbnails and window.frame is not None and window.index % every == 0:
                    pictures[window.index] = thumbnail(window.frame)
                    if len(pictures) > 2 * _MOST_THUMBNAILS:  # longer than it said, or it did not say
                        every *= 2
                        pictures = {index: picture for index, picture in pictures.items() if index % every == 0}
                if progress:
                    progress(window.start_s + 1)
        info = session.info
    return Localization(
        source=info.source,
        duration_s=source.duration_s if source.duration_s is not None else float(len(scores)),
        senses=info.senses,
        labels=info.labels,
        scores=tuple(scores),
        events=tuple(sorted(events, key=lambda event: (event.start_s, event.id))),
        gaps=tuple(gaps),
        thumbnails=pictures,
        model=info.model,
        licence=info.licence,
        bundle_sha256=info.bundle_sha256,
        backend=info.backend,
        dropped=session.stats.dropped,
        trailing_s=session.counts.samples_dropped.get("end of media", 0) / RATE_HZ,
    )
