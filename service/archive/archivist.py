"""Writes the archive while the service watches: what each second of a camera looked and sounded like.

A thread of its own asks the head for it and writes it, so that no decision waits for the archive. What cannot be
written is counted by cause; events and accounts do not depend on it.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ovavel.runtime.archive.contexts import Context, ContextVectors
from ovavel.runtime.archive.layout import ContextSecond, model_of
from ovavel.runtime.archive.writer import ArchiveWriter
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.precision import is_pooled
from ovavel.runtime.errors import OutputError, OvavelError
from ovavel.runtime.types import Segment
from ovavel.service.archive.retention import ArchiveRetention
from ovavel.service.config.site import Camera, Site
from ovavel.service.encoding.remote import EncoderLost, RemoteEncoder
from ovavel.service.evidence.retention import Retention
from ovavel.service.store.database import Database

__all__ = ["Archivist", "NoArchive", "is_archived"]

ENCODER_FAILED, BUSY, NEARLY_FULL, UNWRITABLE, UNFORESEEN = (
    "encoder failed",
    "the archive is too slow",
    "the disk is nearly full",
    "the archive cannot be written",
    "unexpected error",
)
"""Causes of seconds that the archive lacks."""

_US = 1_000_000
_TICK_S = 10.0
_RETENTION_S = 60.0
_EVERY = 10
"""Seconds of a camera that are committed together: so many may be lost where the process is killed."""
_MOST_WAITING = 4096
"""Segments of all cameras together, some 8 kB each at full size."""

_log = logging.getLogger(__name__)

ToUtc = Callable[[int], int]
"""Microseconds of media time → of UTC."""


def is_archived(site: Site, camera: Camera) -> bool:
    """Whether the archive has this camera: what it keeps is no media, but says what was seen and heard."""
    return site.keep.archive_gb > 0 and site.media and camera.media


class NoArchive:
    """Keeps nothing: what decides without an archive."""

    def begin(self, *_: object) -> bool:
        """As `Archivist.begin`."""
        return False

    second = end = begin


@dataclass(slots=True)
class _Stream:
    """One run of one camera. Used by the thread that writes."""

    camera: str
    lag: int
    vectors: ContextVectors
    writer: ArchiveWriter
    times: dict[int, int] = field(default_factory=dict)
    """Segment → Unix time at which it begins, of those that are not written and of which something is known."""
    committed: int = 0
    """What its writer had written when it was committed the last time."""

    @property
    def phase(self) -> int:
        """When it is committed: cameras that began together would otherwise all wait for the disk in one second."""
        return zlib.crc32(self.camera.encode()) % _EVERY


class Archivist:
    """Writes what all cameras of a site bring."""

    def __init__(
        self,
        store: Database,
        bundle: Bundle,
        encoder: RemoteEncoder,
        site: Site,
        evidence: Retention,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Write below the folder of `store`.

        Args:
            store: whose folder has the archive as well.
            bundle: that `encoder` runs.
            encoder: shared with the decisions.
            site: which cameras.
            evidence: keeps to the site's limits, and says how much of the disk stays free.
            check: raises OutputError where the folder is not that of the store any more.
        """
        self._encoder, self._site, self._check = encoder, site, check
        self._sizes = bundle.manifest.encoders.sizes
        self._model = model_of(bundle, pooled=is_pooled(encoder.ready.info.precision))
        self.folder: Path = store.folder
        """What `ovavel search --archive` takes."""
        self.retention = ArchiveRetention(store, evidence)
        self.written = Counter[str]()
        """Seconds, by camera."""
        self.lost = Counter[tuple[str, str]]()
        """Seconds that it lacks, by camera and cause."""
        self.trouble = ""
        """Why nothing is written now; empty where it is."""
        self.failing: dict[str, str] = {}
        """Why cameras are not written now although others may be, by camera."""
        self.overdue = ""
        """Why the archive is not kept within its limits; empty where it is."""
        self._runs: dict[str, tuple[int, ToUtc]] = {}  # that are archived: lag and clock
        self._streams: dict[str, _Stream] = {}
        self._jobs: queue.Queue[tuple[str, Callable[[], None]] | None] = queue.Queue()  # by camera
        self._thread = threading.Thread(target=self._run, name="ovavel-archive", daemon=True)

    def start(self) -> None:
        """Write from now on."""
        self._thread.start()

    def change(self, site: Site) -> None:
        """Keep the cameras that `site` says, of runs that begin from now on."""
        self._site = site

    def close(self, within_s: float) -> None:
        """Write what waits, as far as there is time for it."""
        self._jobs.put(None)
        if self._thread.ident is not None:
            self._thread.join(within_s)

    def begin(self, camera: Camera, to_utc: ToUtc) -> bool:
        """A run of `camera` begins; returns whether it is archived, so that `second` needs both embeddings.

        This, `second` and `end` are called by the thread that decides.
        """
        self.end(camera.id)
        if not is_archived(self._site, camera):
            return False
        self._runs[camera.id] = camera.lag, to_utc
        return True

    def second(self, camera: str, segment: Segment) -> None:
        """Take the next second of the run; it has no embeddings where its window was dropped."""
        if (run := self._runs.get(camera)) is None:
            return
        lag, to_utc = run
        if self._jobs.qsize() >= _MOST_WAITING:
            self.lost[camera, BUSY] += 1
            return
        begins_s = to_utc(round(segment.start_s * _US)) // _US
        self._jobs.put((camera, partial(self._second, camera, lag, segment, begins_s)))

    def end(self, camera: str) -> None:
        """The run ends. Twice does nothing."""
        if self._runs.pop(camera, None) is not None:
            self._jobs.put((camera, partial(self._end, camera)))

    def _run(self) -> None:
        looked_s = retained_s = float("-inf")
        while True:
            now_s = time.monotonic()
            if now_s - looked_s >= _TICK_S:
                looked_s = now_s
                self._look_after(retain=now_s - retained_s >= _RETENTION_S)
                retained_s = now_s if now_s - retained_s >= _RETENTION_S else retained_s
            try:
                job = self._jobs.get(timeout=_TICK_S)
            except queue.Empty:
                continue
            if job is None:
                for camera in list(self._streams):
                    self._do(camera, partial(self._end, camera))
                return
            self._do(*job)

    def _do(self, camera: str, job: Callable[[], None]) -> None:
        """Do it; an unforeseen fault costs the seconds of one camera that wait, and its archive restarts."""
        try:
            job()
        except Exception:  # noqa: BLE001 - whatever it is, later seconds are archived
            _log.exception("the archive of camera %s failed and is restarted", camera)
            if stream := self._streams.pop(camera, None):
                self.lost[camera, UNFORESEEN] += len(stream.times)
                stream.times.clear()
                with suppress(Exception):  # it may be what failed
                    self._written(stream, stream.writer.close)

    def _look_after(self, *, retain: bool) -> None:
        """Keep to the limits, and see whether anything may be written."""
        try:
            self._check()
            if retain:
                self._retain()
            trouble = "" if self.retention.may_grow() else NEARLY_FULL
        except Exception as error:  # noqa: BLE001 - whatever it is, later seconds are archived once it is over
            trouble = _reason(error)
        self._report(trouble)

    def _retain(self) -> None:
        """Keep to the limits. Where that fails, the archive is written all the same, until the disk is nearly full."""
        try:
            self.retention.apply_now()
            overdue = ""
        except Exception as error:  # noqa: BLE001 - whatever it is, the next time may succeed
            overdue = _reason(error)
        if overdue and overdue != self.overdue:
            _log.error("the archive is not kept within its limits: %s", overdue)
        self.overdue = overdue

    def _report(self, trouble: str) -> None:
        if bool(trouble) != bool(self.trouble):
            if trouble:
                _log.error("the archive is not written: %s", trouble)
            else:
                _log.info("the archive is written again")
        self.trouble = trouble

    def _fail(self, camera: str, why: str) -> None:
        """Keep why `camera` cannot be written, until it can: it is tried again with each second, and others go on."""
        if camera not in self.failing:
            _log.error("the archive of camera %s is not written: %s", camera, why)
        self.failing[camera] = why

    def _begin(self, camera: str, lag: int) -> _Stream | None:
        """Begin to write; None where that is not possible now, and the next second tries again."""
        if self.trouble:
            return None
        try:
            writer = ArchiveWriter(self.folder, camera, self._model, every=_EVERY)
        except Exception as error:  # noqa: BLE001 - whatever it is, the seconds until it is over are counted
            self._fail(camera, _reason(error))
            return None
        vectors = ContextVectors(lambda *parts: self._encoder.contexts(*parts[:2]), self._sizes, lag=lag)
        self._streams[camera] = stream = _Stream(camera, lag, vectors, writer)
        return stream

    def _second(self, camera: str, lag: int, segment: Segment, begins_s: int) -> None:
        known = segment.vision is not None or segment.audio is not None
        stream = self._streams.get(camera) or self._begin(camera, lag)
        if stream is None:
            if known:
                self._lose(camera)
            return
        if known:
            stream.times[segment.index] = begins_s
        self._take(stream, partial(stream.vectors.push, segment), final_to=segment.index - stream.lag)
        if (begins_s + stream.phase) % _EVERY == 0:  # also where nothing is known of it: what waits is not kept waiting
            self._commit(stream)

    def _end(self, camera: str) -> None:
        if stream := self._streams.get(camera):
            self._take(stream, stream.vectors.flush, final_to=max(stream.times, default=0))
            self._written(stream, stream.writer.close)
            del self._streams[camera]  # not before: `_do` writes what waits, where something fails on the way
        self.failing.pop(camera, None)

    def _take(self, stream: _Stream, ask: Callable[[], list[Context]], *, final_to: int) -> None:
        """Write what `ask` returns: the seconds up to the segment `final_to` that have not been asked for before."""
        try:
            contexts = ask()
        except EncoderLost:
            # Those that were final have been taken for reported; the others are asked for with the next segment.
            late = [index for index in stream.times if index <= final_to]
            for index in late:
                del stream.times[index]
            self.lost[stream.camera, ENCODER_FAILED] += len(late)
            return
        for each in contexts:
            begins_s = stream.times.pop(each.segment, None)
            if begins_s is None:
                continue  # nothing is known of it
            if self.trouble:
                self._lose(stream.camera)
                continue
            second = ContextSecond(utc_s=begins_s, vision=each.vision, audio=each.audio)
            self._written(stream, partial(stream.writer.write, second))

    def _lose(self, camera: str) -> None:
        self.lost[camera, NEARLY_FULL if self.trouble == NEARLY_FULL else UNWRITABLE] += 1

    def _commit(self, stream: _Stream) -> None:
        """Commit what waits; where nothing came since the last time, let go of the day, which can then be removed."""
        self._written(stream, stream.writer.commit)
        if stream.writer.written == stream.committed:
            self._written(stream, stream.writer.close)
        stream.committed = stream.writer.written

    def _written(self, stream: _Stream, write: Callable[[], None]) -> None:
        """Call `write`, and count what reaches the disk or is lost."""
        writer = stream.writer
        before, lost = writer.written, writer.lost
        try:
            write()
        except OutputError as error:
            self.lost[stream.camera, UNWRITABLE] += writer.lost - lost
            self._fail(stream.camera, str(error))
        except Exception:
            if missing := writer.lost - lost:
                self.lost[stream.camera, UNFORESEEN] += missing
            raise
        else:
            if writer.written > before and self.failing.pop(stream.camera, ""):
                _log.info("the archive of camera %s is written again", stream.camera)
        finally:
            self.written[stream.camera] += writer.written - before


def _reason(error: Exception) -> str:
    """What is shown of `error`; one that nobody foresaw is logged with its trace."""
    if isinstance(error, OvavelError):
        return str(error)
    _log.error("unexpected error of the archive", exc_info=error)
    return f"unexpected error: {error!r}"
