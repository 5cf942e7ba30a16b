"""Keeps pictures, sound and clips of events: files and rows, written by one thread."""

from __future__ import annotations

import errno
import logging
import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ovavel.runtime.errors import OutputError
from ovavel.runtime.types import WINDOW_S, SegmentScores
from ovavel.service.capture.messages import Captured, Clip, Cut
from ovavel.service.capture.recorder import NOT_KEPT
from ovavel.service.config.site import Camera, Site
from ovavel.service.config.sources import is_encoded
from ovavel.service.evidence import files
from ovavel.service.evidence.peaks import AROUND, Peak, Peaks
from ovavel.service.evidence.retention import NoRoomError, Retention
from ovavel.service.evidence.spectrogram import spectrogram
from ovavel.service.failpoints import reach
from ovavel.service.store import assets
from ovavel.service.store.assets import AssetKind, MediaFile
from ovavel.service.store.database import Database

__all__ = ["Keeper", "RunEvidence", "kinds_of"]

GONE = "capture died"
NO_PICTURE, NO_SOUND = "nothing was seen", "nothing was heard"
DISK_FULL = "the disk is full"
TOO_SLOW = "the disk is too slow"
MOST_WAITING = 500
"""Pictures that wait to be written, of some 20 KB each: a disk that hangs does not fill the memory."""
_MOST_FAILURES = 3
_US = 1_000_000
_TICK_S = 10.0
_APPLY_S, _SWEEP_S = 60.0, 3600.0
"""Of a hundred thousand events, looking for what has to go takes a third of a second."""

_log = logging.getLogger(__name__)

ToUtc = Callable[[int], int]
"""Microseconds of media time → of UTC."""


def kinds_of(site: Site, camera: Camera) -> tuple[AssetKind, ...]:
    """What is kept of the camera's events."""
    if not (site.media and camera.media):
        return ()
    sound: tuple[AssetKind, ...] = ("sound",) if camera.sound and camera.keep_sound else ()
    clip: tuple[AssetKind, ...] = () if camera.mask and not is_encoded(camera) else ("clip",)
    return ("snapshot", *sound, *clip)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A clip that was asked for."""

    camera: str
    child: int
    path: str
    to_utc: ToUtc


@dataclass(frozen=True, slots=True)
class _Job:
    """What is to be done about one asset of an event."""

    event: str
    kind: AssetKind
    run: Callable[[], None]
    failures: int = 0
    """How often it failed unexpectedly."""


class Keeper:
    """Evidence of all cameras of a site."""

    def __init__(
        self, store: Database, site: Site, ask: Callable[[str, Cut], bool], check: Callable[[], None] = lambda: None
    ) -> None:
        """Keep in `store`.

        Args:
            store: whose folder has the files as well.
            site: what to keep, and for how long.
            ask: asks a camera's capture process for a clip; whether it could be asked.
            check: raises OutputError where the folder is not that of the store any more.
        """
        self._store, self._site, self._ask, self._check = store, site, ask, check
        self._wanted: dict[str, _Wanted] = {}
        self._lock = threading.Lock()
        self._jobs: queue.Queue[_Job | None] = queue.Queue()
        self._unsettled: list[_Job] = []  # rows that could not be written
        self.unsettled = Counter[AssetKind]()
        """Assets that are pending until the next start, as writing their rows failed unexpectedly again and again."""
        self.trouble = ""
        """Why nothing could be kept last time; empty where it could."""
        self.retention = Retention(store, site.keep)
        self._applied_s = -_APPLY_S
        self._thread = threading.Thread(target=self._run, name="ovavel-evidence", daemon=True)

    def start(self) -> None:
        """Write from now on."""
        self._thread.start()

    def close(self, within_s: float) -> None:
        """Write what waits, as far as there is time for it."""
        with self._lock:
            left, self._wanted = self._wanted, {}
        for event in left:
            self.lacks(event, "clip", "the service stopped")
        self._jobs.put(None)
        if self._thread.ident is not None:
            self._thread.join(within_s)

    def change(self, site: Site) -> None:
        """Keep what `site` says: of runs that begin from now on, and for so long."""
        self._site = site
        self.retention.keep = site.keep

    def run(self, camera: Camera, child: int, to_utc: ToUtc) -> RunEvidence:
        """Evidence of one run of a camera, captured by its child of this number."""
        return RunEvidence(self, self._site, camera, child, to_utc)

    def picture(self, event: str, kind: AssetKind, data: bytes, path: str, span_us: tuple[int, int]) -> None:
        """Keep a picture of an event."""
        if self._jobs.qsize() >= MOST_WAITING:
            self.lacks(event, kind, TOO_SLOW)
            return
        self._jobs.put(_Job(event, kind, lambda: self._picture(event, kind, data, path, span_us)))

    def lacks(self, event: str, kind: AssetKind, cause: str) -> None:
        """Say why there is no such asset."""
        self._jobs.put(_Job(event, kind, lambda: self._settle(event, kind, cause)))

    def clip(self, event: str, wanted: _Wanted, from_s: float, to_s: float) -> None:
        """Ask for the clip of an event."""
        part = files.part_of(self._store.folder.resolve() / wanted.path)
        with self._lock:
            self._wanted[event] = wanted
        if not self.retention.may_grow():
            self._forget(event, DISK_FULL)
        elif not self._ask(
            wanted.camera, Cut(event=event, child=wanted.child, path=str(part), from_s=from_s, to_s=to_s)
        ):
            self._forget(event, GONE)

    def clipped(self, camera: str, clip: Clip) -> None:  # noqa: ARG002 - events are unique
        """Take the answer of a capture process."""
        with self._lock:
            wanted = self._wanted.pop(clip.event, None)
        if wanted is not None and clip.error:
            self.lacks(clip.event, "clip", DISK_FULL if clip.error == os.strerror(errno.ENOSPC) else clip.error)
        elif wanted is not None:
            self._jobs.put(_Job(clip.event, "clip", lambda: self._clip(clip, wanted)))

    def gone(self, camera: str, child: int) -> None:
        """A capture process has ended: what was asked of it will not come."""
        with self._lock:
            lost = [event for event, each in self._wanted.items() if (each.camera, each.child) == (camera, child)]
        for event in lost:
            self._forget(event, GONE)

    def _forget(self, event: str, cause: str) -> None:
        with self._lock:
            wanted = self._wanted.pop(event, None)
        if wanted is not None:
            self.lacks(event, "clip", cause)

    def _run(self) -> None:
        tick_s, sweep_s = -_TICK_S, time.monotonic()
        while True:
            now_s = time.monotonic()
            if now_s - tick_s >= _TICK_S:
                tick_s = now_s
                self._look_after(sweep=now_s - sweep_s >= _SWEEP_S)
                sweep_s = now_s if now_s - sweep_s >= _SWEEP_S else sweep_s
            try:
                job = self._jobs.get(timeout=_TICK_S)
            except queue.Empty:
                continue
            if job is None:
                self._applied_s = -_APPLY_S
                self._look_after(sweep=False)
                return
            self._do(job)

    def _do(self, job: _Job) -> None:
        try:
            job.run()
        except Exception as error:  # noqa: BLE001 - an unforeseen fault costs one asset, not all later ones
            _log.exception("the %s of event %s could not be kept", job.kind, job.event)
            if (failures := job.failures + 1) == _MOST_FAILURES:
                self.unsettled[job.kind] += 1
                return
            cause = f"unexpected error: {error!r}"
            again = _Job(job.event, job.kind, lambda: self._settle(job.event, job.kind, cause), failures)
            self._unsettled.append(again)

    def _look_after(self, *, sweep: bool) -> None:
        """Write rows that could not be written before, and keep to the limits."""
        unsettled, self._unsettled = self._unsettled, []
        for job in unsettled:
            self._do(job)
        failed, self.trouble = self.trouble, ""
        try:
            self._check()
            now_s = time.monotonic()
            if failed or now_s - self._applied_s >= _APPLY_S or self.retention.lacking_bytes > 0:
                self._applied_s = now_s
                self.retention.apply_now()
            if sweep and not self._unsettled:
                with self._lock:
                    parts = frozenset(files.part_of(self._store.folder / each.path) for each in self._wanted.values())
                files.sweep(self._store, being_written=parts)
        except OutputError as error:
            self.trouble = str(error)  # the next time, then
        except Exception as error:  # noqa: BLE001 - whatever it is, evidence of later events is kept
            _log.exception("the limits of evidence could not be applied")
            self.trouble = f"unexpected error: {error!r}"

    def _picture(self, event: str, kind: AssetKind, data: bytes, path: str, span_us: tuple[int, int]) -> None:
        try:
            self._check()
            self.retention.make_room(len(data))
            digest = files.write(self._store.folder / path, data)
        except OutputError as error:
            self._settle(event, kind, _cause(error))
            return
        self._settle(
            event,
            kind,
            MediaFile(
                path=path,
                bytes=len(data),
                sha256=digest,
                start_us=span_us[0],
                end_us=span_us[1],
                has_audio=False,
                codec="webp",
            ),
        )

    def _clip(self, clip: Clip, wanted: _Wanted) -> None:
        path = self._store.folder / wanted.path
        try:
            self._check()
            self.retention.make_room(0)
            files.finish(path)
        except OutputError as error:
            files.part_of(path).unlink(missing_ok=True)
            self._settle(clip.event, "clip", _cause(error))
            return
        self._settle(
            clip.event,
            "clip",
            MediaFile(
                path=wanted.path,
                bytes=clip.bytes,
                sha256=clip.sha256,
                start_us=wanted.to_utc(round(clip.start_s * _US)),
                end_us=wanted.to_utc(round(clip.end_s * _US)),
                has_audio=clip.has_audio,
                codec=clip.codec,
                note=clip.note,
            ),
        )

    def _settle(self, event: str, kind: AssetKind, outcome: MediaFile | str) -> None:
        """Write the row; where the store cannot be written now, later. An event that was deleted keeps no file."""
        try:
            with self._store.write() as transaction:
                if isinstance(outcome, str):
                    assets.fail(transaction, event, kind, outcome)
                    kept = True
                else:
                    kept = assets.ready(transaction, event, kind, outcome)
        except OutputError:
            self._unsettled.append(_Job(event, kind, lambda: self._settle(event, kind, outcome)))
            return
        if isinstance(outcome, MediaFile):
            reach("asset.row-ready")
            if not kept:
                files.remove(self._store.folder / outcome.path)


class RunEvidence:
    """Evidence of one run of one camera. Used by the thread that decides."""

    def __init__(self, keeper: Keeper, site: Site, camera: Camera, child: int, to_utc: ToUtc) -> None:
        self.kinds = kinds_of(site, camera)
        """What its events are to have."""
        self._keeper, self._camera, self._child, self._to_utc = keeper, camera, child, to_utc
        self._clips = site.clip
        self._peaks = Peaks(int(camera.bridge_s / WINDOW_S))

    def window(self, window: Captured) -> None:
        """What a second looked and sounded like."""
        if self.kinds:
            self._peaks.window(window)

    def scored(self, scores: Sequence[SegmentScores]) -> None:
        """What was decided on."""
        if self.kinds:
            self._peaks.scored(scores)

    def over(self, event: str, label: str, start_s: float, end_s: float) -> None:
        """An event has ended, and the store knows that it is to have assets."""
        if not self.kinds:
            return
        peak = self._peaks.take(label, start_s, end_s)
        if "snapshot" in self.kinds:
            self._picture(event, "snapshot", peak.picture if peak else None, peak, 0)
        if "sound" in self.kinds:
            heard = [spectrum for _, spectrum in peak.spectra] if peak else []
            self._picture(event, "sound", spectrogram(heard) if any(heard) else None, peak, AROUND)
        if "clip" in self.kinds:
            wanted = _Wanted(self._camera.id, self._child, self._path(event, "clip", end_s), self._to_utc)
            self._keeper.clip(event, wanted, start_s - self._clips.pre_s, end_s + self._clips.post_s)

    def _picture(self, event: str, kind: AssetKind, data: bytes | None, peak: Peak | None, around: int) -> None:
        if data is None or peak is None:
            cause = NOT_KEPT if peak is None else NO_PICTURE if kind == "snapshot" else NO_SOUND
            self._keeper.lacks(event, kind, cause)
            return
        first, last = (peak.index, peak.index) if not around else (peak.spectra[0][0], peak.spectra[-1][0])
        span_us = self._to_utc(round(first * WINDOW_S * _US)), self._to_utc(round((last + 1) * WINDOW_S * _US))
        self._keeper.picture(event, kind, data, self._path(event, kind, peak.index), span_us)

    def _path(self, event: str, kind: AssetKind, time_s: float) -> str:
        day = datetime.fromtimestamp(self._to_utc(round(time_s * _US)) / _US, UTC).strftime("%Y-%m-%d")
        return assets.path_of(self._camera.id, day, event, kind)


def _cause(error: OutputError) -> str:
    """A few words, as counters need them."""
    reason = error.__cause__
    if isinstance(error, NoRoomError) or (isinstance(reason, OSError) and reason.errno in (errno.ENOSPC, errno.EDQUOT)):
        return DISK_FULL
    return (reason.strerror if isinstance(reason, OSError) else None) or str(error)
