"""`ovavel localize`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional

from ovavel.runtime.commands.options import (
    ArchiveOptions,
    ChannelFlag,
    EconomyOptions,
    EventOptions,
    Many,
    Maybe,
    VerifiedEngineOptions,
    Where,
    parse_channel,
)
from ovavel.runtime.commands.scaled import ScaleOptions, run_scaled
from ovavel.runtime.errors import MediaError, UsageError
from ovavel.runtime.reporting.text import clock, counts, one_line, shown_name
from ovavel.runtime.system.bounds import Meta
from ovavel.runtime.system.files import not_regular
from ovavel.runtime.types import BUFFER, LAG

if TYPE_CHECKING:
    from rich.console import Console

    from ovavel.runtime.pipeline.tracker import EventRules
    from ovavel.runtime.results import Localization
    from ovavel.runtime.scale.job import Job, Recording

__all__ = ["ALL_FORMATS", "Localize", "find_media", "print_unreadable"]

Format = Literal["json", "csv", "srt", "vtt", "audacity", "svg", "html"]
ALL_FORMATS: tuple[Format, ...] = ("json", "csv", "srt", "vtt", "audacity", "svg", "html")

_SHOWN_S = 0.05
"""Shorter losses would print as 0.0 s; the results on disk hold them all."""

MEDIA_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("3gp", "avi", "flac", "flv", "m2ts", "m4a", "m4v", "mkv", "mov", "mp3", "mp4", "mpeg", "mpg", "mts", "mxf"),
        *("ogg", "ogv", "opus", "ts", "wav", "webm", "wmv"),
    )
)
"""Suffixes of media files in a folder. A file that is named itself may have any suffix."""


@dataclass(frozen=True, kw_only=True)
class Localize:
    """Report which events in a recording are both seen and heard, second by second.

    Examples:
        ovavel localize clip.mp4 --bundle imagebind                 # prints the events
        ovavel localize clip.mp4 --bundle imagebind --out results   # also writes every format, including a web page
        ovavel localize recordings/ --bundle imagebind --out results --format json csv
        ovavel localize yard.mp4 --bundle imagebind --archive archive --start 2026-11-29T14:30

    Files whose results are all in --out already are skipped, so an interrupted run resumes where it stopped.
    A file that cannot be read is reported, the others are processed, and the exit code is 1.
    """

    files: Positional[Many[Where]] = ()
    """Recordings, or folders to search for them. They come first, before the options. With --shard or --on also a
    prefix in object storage: s3://BUCKET/PREFIX, gs:// or az://."""
    bundle: Path
    """Folder written by 'ovavel bundle export'."""
    out: Maybe[Where] = None
    """Folder for the results, with --shard or --on also a prefix in object storage; without it events are only printed,
    and nothing is written."""
    format: tuple[Format, ...] = ALL_FORMATS
    """Which results to write."""
    overwrite: bool = False
    """Process files again whose results exist already."""
    no_video: bool = False
    """Disable video: every second is background, marked as missing video."""
    no_audio: bool = False
    """Disable audio: every second is background, marked as missing audio."""
    max_pixels: Maybe[Annotated[int, Meta(ge=1, le=2**31 - 1)]] = None
    """Refuse recordings whose frames have more pixels; OVAVEL_MAX_PIXELS or 8192 × 8192 by default."""
    channel: ChannelFlag = "auto"
    engine: VerifiedEngineOptions = field(default_factory=VerifiedEngineOptions)
    """What runs the bundle, and where."""
    lag: Annotated[int, Meta(ge=0, le=BUFFER - 1)] = LAG
    """Seconds of later context, 0 to 9, that each decision uses."""
    fusion: Maybe[str] = None
    """Decision rule: how the two similarities of a class become its score. positive: a class with a negative similarity
    in one sense scores 0. published: as in the paper, where two negative similarities multiply to a high score.
    agreement: the class that both senses name. av2a: AV²A. cuerator and temperatures must first be fitted with 'ovavel
    eval calibrate --rule'. The bundle's own by default; with another one there are no probabilities."""
    events: EventOptions = field(default_factory=EventOptions)
    """When an event begins and ends."""
    economy: EconomyOptions = field(default_factory=EconomyOptions)
    """What is left out where nothing happens."""
    archive: ArchiveOptions = field(default_factory=ArchiveOptions)
    """Keep what was seen and heard, to be searched later."""
    scale: ScaleOptions = field(default_factory=ScaleOptions)
    """Many recordings, on one machine or on many."""

    def run(self) -> int:
        """Localize every file. Returns 1 if one of them could not be read."""
        from ovavel.runtime.pipeline.localizer import check_lag
        from ovavel.runtime.reporting.console import OutputConsole
        from ovavel.runtime.results import result_paths

        self.engine.check()
        check_lag(self.lag)
        parse_channel(self.channel)
        rules = self.events.rules
        if self.no_video and self.no_audio:
            raise UsageError("--no-video and --no-audio together leave nothing to look for; give at most one of them")
        self.scale.check(files=self.files, out=self.out, device=self.engine.device)
        if self.scale.given and self.archive.archive:
            raise UsageError("--archive is for one process: leave --shard and --on out, or archive on one machine")
        console = OutputConsole(expendable=self.out is not None, highlight=False, soft_wrap=True)
        if self.files and isinstance(self.files[0], str):
            return run_scaled(self._job(rules), _listed(self.files[0]), self.scale, console)
        named = [Path(file) for file in self.files]
        files = find_media(named)
        self.archive.check(len(files))
        # Of what was named, not of what was found: a new recording moves no other's results.
        base = Path(os.path.commonpath([path.resolve() if path.is_dir() else path.parent.resolve() for path in named]))
        if self.scale.given:
            from ovavel.runtime.scale.job import recordings_below

            return run_scaled(self._job(rules), recordings_below(files, base), self.scale, console)
        out = Path(self.out) if self.out else None
        to_do: list[tuple[Path, Path | None]] = []
        for file in files:
            folder = out / file.parent.resolve().relative_to(base) if out else None
            if folder and not self.overwrite and all(p.exists() for p in result_paths(file, folder, self.format)):
                console.print(
                    f"{shown_name(str(file))}: results already in {shown_name(str(folder))}; "
                    "--overwrite processes it again",
                    markup=False,
                )
            else:
                to_do.append((file, folder))
        return self._localize(to_do, rules, console) if to_do else 0

    def _job(self, rules: EventRules) -> Job:
        from ovavel.runtime.scale.job import Job

        assert self.out
        bundle = self.engine.open_bundle(self.bundle)
        return Job(
            bundle=str(self.bundle.resolve()),
            bundle_sha256=bundle.sha256,
            out=self.out if isinstance(self.out, str) else str(self.out.resolve()),
            formats=self.format,
            engine={**self.engine.backend_options, "allow_unverified": self.engine.allow_unverified},
            require_signature=self.engine.require_signature,
            video=not self.no_video,
            audio=not self.no_audio,
            max_pixels=self.max_pixels,
            channel=parse_channel(self.channel),
            lag=self.lag,
            fusion=self.fusion,
            rules=rules,
            economy=self.economy.settings(bundle, self.fusion),
            overwrite=self.overwrite,
        )

    def _localize(self, to_do: Sequence[tuple[Path, Path | None]], rules: EventRules, console: Console) -> int:
        from contextlib import closing

        from ovavel.runtime.bundle.calibration import OTHER_NAMES
        from ovavel.runtime.results import write_results
        from ovavel.runtime.results.recording import localize_recording
        from ovavel.runtime.sources.access import Access, pixel_limit
        from ovavel.runtime.sources.media.source import MediaSource
        from ovavel.runtime.system.bars import rated_bar, shown_progress
        from ovavel.runtime.system.progress import prefixed
        from ovavel.runtime.verification.first_use import changed_since_first_use

        access = Access(max_pixels=self.max_pixels or pixel_limit())
        bundle = self.engine.open_bundle(self.bundle)
        every_picture = "the archive" if self.archive.archive else ""
        economy = self.economy.settings(bundle, self.fusion, every_picture=every_picture)
        with shown_progress() as progress:
            verified = self.engine.open(bundle, progress)
        failed, noted = 0, set[str]()  # why economy does not run: that is the same for most recordings
        stderr = _stderr()
        info = verified.backend.info
        with closing(verified.backend):
            console.print(f"{info.engine}: {verified.text}", markup=False)
            if changed := changed_since_first_use(bundle, info):
                stderr.print(f"ovavel: {changed}", markup=False)
            if bundle.manifest.calibration and not bundle.manifest.calibration.fits(bundle.vocabulary):
                console.print(OTHER_NAMES, markup=False)
            for number, (file, folder) in enumerate(to_do, 1):
                name = f"{number}/{len(to_do)} {shown_name(file.name)}"
                try:
                    source = MediaSource(
                        str(file),
                        video=not self.no_video,
                        audio=not self.no_audio,
                        access=access,
                    )
                    kept = self.archive.sink(file, bundle, verified.backend, self.lag, access)
                    with rated_bar("s", rate="× real time", console=stderr) as progress:
                        localization = localize_recording(
                            bundle,
                            source,
                            backend=verified,
                            lag=self.lag,
                            rules=rules,
                            channel=parse_channel(self.channel),
                            fusion=self.fusion,
                            economy=economy,
                            thumbnails=folder is not None and "html" in self.format,
                            sinks=[kept] if kept else [],
                            progress=prefixed(progress, f"{name}: "),
                        )
                except (MediaError, UsageError) as error:  # the latter for frames no model could use
                    failed += 1
                    print_unreadable({str(file): str(error)})
                    continue
                written = write_results(localization, folder, self.format) if folder else []
                _print(localization, written, console)
                note = localization.info.economy
                if note.why_not and note.why_not not in noted:
                    noted.add(note.why_not)
                    console.print(f"  economy: {one_line(note.text)}", markup=False)
                failed += bool(source.undecodable)  # the source has said so
        if failed:
            _stderr().print(f"ovavel: {failed} of {len(to_do)} files could not be read")
        return 1 if failed else 0


def find_media(paths: Sequence[Path], report: Callable[[str], None] | None = None) -> list[Path]:
    """The files among `paths` and, in name order, the media files in the folders among them; each once.

    In folders, hidden files are skipped (`._clip.mp4` beside `clip.mp4` is not a recording), and so is anything but a
    regular file: reading a pipe may block for ever. `report` gets a sentence with their number; by default it is
    printed to standard error.

    Raises:
        UsageError: no path is given.
        MediaError: a path does not exist, or a folder holds no media.
    """
    if not paths:
        raise UsageError("which recordings? Name files or folders: ovavel localize clip.mp4 --bundle DIR")
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            skipped: Counter[str] = Counter()
            inside = sorted(_media_in(path, skipped))
            if skipped:
                (report or _to_stderr)(f"{path}: skipped {counts(skipped)}")
            if not inside:
                raise MediaError(f"{path} holds no media files; name a file itself to try it whatever its suffix")
            found.update(dict.fromkeys(inside))
        elif path.exists():
            found[path] = None
        else:
            raise MediaError(f"there is no file {path}; check the path")
    return list(found)


def _listed(url: str) -> list[Recording]:
    """The recordings below `url` in object storage, as `find_media` finds those in a folder. Raises MediaError."""
    from ovavel.runtime.scale.objects import recordings_at

    found, skipped = recordings_at(url, MEDIA_SUFFIXES)
    if skipped:
        _to_stderr(f"{url}: skipped {counts(skipped)}")
    if not found:
        raise MediaError(f"there are no media files below {url}; name the prefix that recordings lie below")
    return found


def _media_in(folder: Path, skipped: Counter[str]) -> Iterator[Path]:
    """The media files in `folder` and below; `skipped` counts what is left out, by cause."""

    def unreadable(_: OSError) -> None:
        skipped["folder that cannot be read"] += 1

    for below, _, names in os.walk(folder, onerror=unreadable):
        hidden = any(part.startswith(".") for part in Path(below).relative_to(folder).parts)
        for file in (Path(below, name) for name in names if Path(name).suffix.lower() in MEDIA_SUFFIXES):
            try:
                why = "hidden" if hidden or file.name.startswith(".") else not_regular(file) and "not a regular file"
            except OSError:
                why = "broken link"
            if why:
                skipped[why] += 1
            else:
                yield file


def print_unreadable(why: Mapping[str, str]) -> None:
    """List on standard error the recordings that could not be read; `why`: the reason by path."""
    for name, reason in why.items():
        _to_stderr(reason if name in reason else f"{name}: {reason}")


def _to_stderr(message: str) -> None:
    _stderr().print(f"ovavel: {one_line(message)}", markup=False)


def _stderr() -> Console:
    from ovavel.runtime.reporting.console import ErrorConsole

    return ErrorConsole()


def _print(localization: Localization, written: Sequence[Path], console: Console) -> None:
    from ovavel.runtime.sinks.lines import economy_lines

    events = "1 event" if len(localization.events) == 1 else f"{len(localization.events)} events"
    name = shown_name(localization.info.source)
    console.print(f"{name}: {localization.duration_s:.1f} s, {events}", markup=False)
    for event in localization.events:
        times = f"{clock(event.start_s)}–{clock(event.end_s)}"
        probability = "" if event.peak_probability is None else f", probability {event.peak_probability:.2f}"
        console.print(
            f"  {times}  {shown_name(event.label)}  (margin {event.peak_margin:.2f}{probability})", markup=False
        )
    lost = {sense for sense in ("vision", "audio") if sense not in localization.info.senses}
    for sense in sorted(lost):
        console.print(
            f"  no {'picture' if sense == 'vision' else 'sound'}: no event can be both seen and heard", markup=False
        )
    by_sense: dict[tuple[str, str], float] = {}
    for gap in localization.gaps:
        by_sense[gap.sense, gap.cause] = by_sense.get((gap.sense, gap.cause), 0.0) + gap.duration_s
    causes: dict[str, float] = {}
    for (_, cause), duration_s in by_sense.items():
        if duration_s >= _SHOWN_S:  # what is lost for both senses at once is lost once
            causes[cause] = max(causes.get(cause, 0.0), duration_s)
    for line in economy_lines(localization.economy) if localization.economy else ():
        console.print(f"  {line}", markup=False)
    for note in localization.notes:
        console.print(f"  {one_line(note)}", markup=False)
    if causes:
        console.print(f"  lost: {counts(causes, ' s')}", markup=False)
    if written:
        names = ", ".join(shown_name(path.name) for path in written)
        console.print(f"  wrote {names} in {shown_name(str(written[0].parent))}", markup=False)
