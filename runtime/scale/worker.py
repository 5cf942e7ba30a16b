"""Localizes one recording after another, in whatever process: with one backend, and with a record of each."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.calibration import OTHER_NAMES
from ovavel.runtime.errors import (
    BundleError,
    InputError,
    MediaError,
    OvavelError,
    UsageError,
)
from ovavel.runtime.reporting.text import encodable, one_line
from ovavel.runtime.results import render_results, result_paths
from ovavel.runtime.results.localization import Localization
from ovavel.runtime.results.recording import localize_recording
from ovavel.runtime.scale.done import Done, EventSum, ResultFolder, Summary, output_name, recording_id
from ovavel.runtime.scale.job import Job, Recording
from ovavel.runtime.scale.media import Media, opened
from ovavel.runtime.scale.work import Outcome
from ovavel.runtime.sinks.records import EventFields, GapRecord
from ovavel.runtime.sources.access import Access, pixel_limit, shown_url
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.types import Event, Gap
from ovavel.runtime.verification.first_use import changed_since_first_use
from ovavel.runtime.verification.open import Verified, open_verified

__all__ = ["Localized", "Worker", "summary"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Localized(Outcome):
    """A recording whose results were written now."""

    duration_s: float = 0.0
    """Length of what was localized now."""
    events: int = 0
    undecodable: bool = False
    """Whether it has video or audio that FFmpeg has no decoder for."""


class Worker:
    """Localizes recordings of one job. The backend is opened with the first that is not done yet."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._folder = ResultFolder(job.out)
        self._opened: tuple[Bundle, Verified] | None = None
        self._news: list[str] = []

    def process(self, recording: Recording) -> Outcome:
        """Localize the recording unless this was done before, and record what became of it. Raises nothing."""
        try:
            with opened(recording) as media:
                return self._process(recording, media)
        except InputError as error:
            return Outcome(state="unequal", text=str(error))
        except OvavelError as error:
            return Outcome.of(error)

    def give_up(self, recording: Recording, killed: int) -> Outcome:
        """Record that the recording ended so many processes that localized it. Raises nothing."""
        cause = f"it ended {killed} processes that localized it: its decoder may be faulty, or memory ran out"
        try:
            with opened(recording) as media:
                key = recording_id(recording, media.fingerprint)
            self._folder.fail(key, recording, cause, attempts=killed)
        except OvavelError as error:
            return Outcome.of(error)
        return Outcome(state="failed", text=cause)

    def close(self) -> None:
        """Free the backend's memory; the next recording opens it again."""
        if self._opened:
            self._opened[1].backend.close()
            self._opened = None

    def _process(self, recording: Recording, media: Media) -> Outcome:
        key = recording_id(recording, media.fingerprint)
        paths = result_paths(recording.file, Path(recording.name).parent, self._job.formats)
        before = None if self._job.overwrite else self._folder.done(key)
        if before and (other := before.request.differences(self._job.request)):
            return _unequal(f"its results were made with another {', '.join(other)}")
        if before and self._folder.intact(before, paths):
            return Outcome(state="kept")
        if why := next(filter(None, (self._folder.place.refuses(path.as_posix()) for path in paths)), None):
            return self._failed(key, recording, f"its path {why}, so that its results cannot be stored; rename it")
        try:
            bundle, verified = self._open()
        except OvavelError as error:
            return Outcome(state="unusable", text=str(error))
        return self._localize(key, recording, media, bundle, verified, before)

    def _localize(
        self, key: str, recording: Recording, media: Media, bundle: Bundle, verified: Verified, before: Done | None
    ) -> Outcome:
        try:
            path = media.path()
        except MediaError as error:
            return self._failed(key, recording, str(error))
        try:
            localization, undecodable = self._decide(recording, path, bundle, verified)
            files = render_results(localization, self._job.formats)
        except (MediaError, UsageError) as error:  # the latter for frames no model could use
            return self._failed(key, recording, _without_temporary(str(error), path, recording))
        except Exception as error:  # noqa: BLE001 - one recording among many must not end the others
            self.close()  # if it is the backend that failed, opening it again will say so
            why = _without_temporary(f"{type(error).__name__}: {error}", path, recording)
            return self._failed(key, recording, why)
        place = Path(recording.name).parent
        results = {place / name: data for name, data in files.items()}
        done = Done(
            id=key,
            recording=encodable(recording.name),
            request=self._job.request,
            outputs={output_name(path): hashlib.sha256(results[path]).hexdigest() for path in sorted(results)},
            summary=summary(localization.duration_s, localization.events, localization.gaps),
        )
        # Another process may have finished meanwhile.
        other = None if self._job.overwrite else before or self._folder.done(key)
        if other and other != done:
            return _unequal(f"its results differ from those on record in done/{key}.json")
        try:
            self._folder.write(key, done, results, replace=self._job.overwrite)
        except InputError as error:
            return _unequal(str(error))
        return Localized(
            state="done",
            duration_s=localization.duration_s,
            events=len(localization.events),
            undecodable=undecodable,
            notices=(*self._take_news(), *map(one_line, localization.notes)),
        )

    def _decide(
        self, recording: Recording, path: Path, bundle: Bundle, verified: Verified
    ) -> tuple[Localization, bool]:
        job = self._job
        source = MediaSource(
            str(path),
            video=job.video,
            audio=job.audio,
            access=Access(max_pixels=job.max_pixels or pixel_limit()),
        )
        source.name = shown_url(recording.file)
        localization = localize_recording(
            bundle,
            source,
            backend=verified,
            lag=job.lag,
            rules=job.rules,
            channel=job.channel,
            fusion=job.fusion,
            economy=job.economy,
            thumbnails="html" in job.formats,
        )
        return localization, bool(source.undecodable)

    def _open(self) -> tuple[Bundle, Verified]:
        if self._opened is None:
            job = self._job
            bundle = Bundle.open(Path(job.bundle), signed_by=job.require_signature)
            if bundle.sha256 != job.bundle_sha256:
                raise BundleError(f"{job.bundle} is not the bundle that the run began with; start it again")
            verified = open_verified(bundle, **job.engine)
            info = verified.backend.info
            self._opened = bundle, verified
            self._news.append(f"{info.engine}: {verified.text}")
            if changed := changed_since_first_use(bundle, info):
                self._news.append(changed)
            if bundle.manifest.calibration and not bundle.manifest.calibration.fits(bundle.vocabulary):
                self._news.append(OTHER_NAMES)
        return self._opened

    def _failed(self, key: str, recording: Recording, cause: str) -> Outcome:
        self._folder.fail(key, recording, cause)
        return Outcome(state="failed", text=cause, notices=self._take_news())

    def _take_news(self) -> tuple[str, ...]:
        news, self._news = tuple(self._news), []
        return news


def summary(duration_s: float, events: Iterable[Event | EventFields], gaps: Iterable[Gap | GapRecord]) -> Summary:
    """Sum up one recording by label, and by sense and cause."""
    times: defaultdict[str, list[float]] = defaultdict(list)
    lost_s: defaultdict[str, float] = defaultdict(float)
    for event in events:
        times[encodable(event.label)].append(event.end_s - event.start_s)
    for gap in gaps:
        lost_s[f"{gap.sense}: {encodable(str(gap.cause))}"] += gap.duration_s
    return Summary(
        duration_s=round(float(duration_s), 6),
        events={
            label: EventSum(count=len(each), duration_s=round(float(sum(each)), 6))
            for label, each in sorted(times.items())
        },
        lost_s={cause: round(float(each), 6) for cause, each in sorted(lost_s.items())},
    )


def _without_temporary(text: str, path: Path, recording: Recording) -> str:
    """Name an object in `text`, not the temporary file with its content."""
    return text if recording.store is None else text.replace(str(path), recording.file)


def _unequal(why: str) -> Outcome:
    return Outcome(state="unequal", text=f"{why}; choose another --out, or replace them with --overwrite")
