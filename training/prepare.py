"""Preparation of raw videos: ten frames and the sound of each clip, in the layout of OV-AVEBench.

Seconds are cut by the same `MediaSource` and `WindowAssembler` as in live use, so a prepared clip and a localized
recording hold the same frames and samples (docs/method.md, Segment).

Files are written under temporary names and then renamed, first the folder of frames, then the sound. A clip is complete
once both exist, and a run that was killed resumes with the incomplete ones.

Many lines: they serve one command, and each part is used by the next and by nothing else.
"""

from __future__ import annotations

import fcntl
import io
import os
import secrets
import shutil
import wave
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
from msgspec import Struct

from ovavel.eval.datasets.annotations import SPLITS
from ovavel.eval.datasets.check import CRASH_KIND
from ovavel.eval.datasets.clip_media import SEGMENTS, DamagedClip, frame_paths
from ovavel.eval.datasets.cut import cut_windows
from ovavel.eval.datasets.dataset import Clip
from ovavel.eval.datasets.ovavebench import OVAVEBench
from ovavel.eval.datasets.readers.videos import largest_first
from ovavel.runtime.errors import InputError, OutputError, UsageError
from ovavel.runtime.sinks.as_json import to_json_bytes
from ovavel.runtime.system.files import atomic_write, output_error
from ovavel.runtime.system.parallel import Crashed, default_workers, run_each, show_progress
from ovavel.runtime.types import RATE_HZ, GapCause, Window

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NO_FILE", "REPORT", "PrepareReport", "prepare"]

# H, W frame height and width; C channels

REPORT = "prepare.json"
NO_FILE = "no video file"
"""Failure kind of a clip whose video was not found."""

JPEG_QUALITY = 95
NEGLIGIBLE_S = 0.1
"""Sound or frames that are missing for less than this in all ten seconds are not reported."""

_FORMAT = 2  # increased whenever the same video gives different files
_OWN = ".prepare"  # folder of the lock, temporary files, and the losses of completed clips
_UNFINISHED = frozenset({".part", ".ytdl", ".tmp", ".download", ".crdownload"})


class Failure(Struct, frozen=True, kw_only=True):
    """A clip that could not be prepared."""

    split: str
    name: str
    category: str
    kind: str
    """A fixed phrase: "no video file", "video unreadable", "no pictures", "no sound", "video too short" …"""
    message: str


class Loss(Struct, frozen=True, kw_only=True):
    """A part of a prepared clip that its video lacks: filled with silence or the previous frame."""

    split: str
    name: str
    sense: str
    """"vision" or "audio"."""
    cause: str
    """Cause as in `Gap.cause`."""
    duration_s: float


class SplitPrepared(Struct, frozen=True, kw_only=True):
    """Counts of one split."""

    clips: int
    prepared: int
    short: int
    """Prepared clips of videos shorter than ten seconds: their last frame stays, in silence."""
    failed: dict[str, int]
    """Failures by kind."""


class PrepareReport(Struct, frozen=True, kw_only=True):
    """Outcome for all clips; independent of interruptions."""

    side_files: int
    """Files named as a video with `._` before it, which other systems leave beside a copy; they are not read."""

    videos: str
    rate_hz: int
    """Sample rate of the sounds."""
    fingerprint: str
    """`OVAVEBench.fingerprint` of the annotation files."""
    splits: dict[str, SplitPrepared]
    failures: tuple[Failure, ...]
    """In dataset order."""
    losses: tuple[Loss, ...]
    """In dataset order."""


class _Settings(Struct, frozen=True, kw_only=True):
    """Settings that all files in a folder were made with."""

    format: int
    annotations: str
    rate_hz: int


class _Job(NamedTuple):
    clip: Clip
    videos: tuple[Path, ...]
    sound: Path
    frames: Path
    losses: Path
    work: Path
    rate_hz: int


class _Result(NamedTuple):
    kind: str = ""
    """Failure kind; empty for a success."""
    message: str = ""
    fresh: bool = False
    """Whether the clip was prepared in this run."""


def prepare(
    videos: Path, out: Path, annotations: Path, *, rate_hz: int = RATE_HZ, workers: int | None = None
) -> tuple[PrepareReport, int]:
    """Prepare the clips that are not in `out` yet; returns the report on all clips, and how many were prepared now.

    The annotation files are copied to `out`/annotations; the report is `out`/prepare.json. Missing and
    unreadable videos, and those shorter than half a second, are reported as failures and retried when `prepare` runs
    again. `rate_hz` is the sample rate of the sounds.

    Raises:
        DatasetError: the annotation files are missing or malformed.
        InputError: `videos` is not a folder.
        UsageError: `out` was not made by this function from these annotations.
        OutputError: `out` is not writable, or another run is writing to it.
    """
    if not videos.is_dir():
        raise InputError(f"--videos {videos} is not a folder; give the folder of the downloaded videos")
    workers = default_workers() if workers is None else workers
    bench = OVAVEBench.open(out, annotations)
    with _locked(out) as own:
        work = own / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        _check_settings(out, own, work, bench, rate_hz)
        found, side_files = _find(videos, {clip.name for clip in bench.clips})
        jobs = [_job(bench, clip, found, own, rate_hz) for clip in bench.clips]
        results: dict[str, _Result] = {}
        for job, result in show_progress(run_each(_prepare, jobs, workers=workers), len(jobs), "preparing", "clips"):
            if isinstance(result, Crashed):
                result = _Result(CRASH_KIND, f"{job.videos[0]} crashes the process that reads it")
            results[job.clip.name] = result
        report = _report(bench, videos, results, jobs, side_files, rate_hz)
        _write_atomically(out / REPORT, to_json_bytes(report, indent=2) + b"\n", work)
        shutil.rmtree(work, ignore_errors=True)
    return report, sum(result.fresh for result in results.values())


def _prepare(job: _Job) -> _Result:
    """Prepare one clip; runs in a worker process."""
    if _is_done(job):
        return _Result()
    if not job.videos:
        return _Result(NO_FILE, f"there is no video {job.clip.name}.*")
    failures = []
    for video in sorted(job.videos, key=largest_first):
        try:
            windows = cut_windows(video, rate_hz=job.rate_hz)
        except DamagedClip as error:
            failures.append(_Result(error.kind, str(error)))
            continue
        try:
            _write(job, windows)
        except OSError as error:
            raise output_error(job.frames.parent, error) from error
        return _Result(fresh=True)
    return failures[0]


def _write(job: _Job, windows: Sequence[Window]) -> None:
    from PIL import Image

    temporary = job.work / secrets.token_hex(8)
    temporary.mkdir()
    frames, sound, old = temporary / "frames", temporary / "sound.wav", temporary / "old"
    frames.mkdir()
    for window in windows:
        assert window.frame is not None
        Image.fromarray(window.frame).save(frames / f"{window.index}.jpg", quality=JPEG_QUALITY, subsampling="4:2:0")
    sound.write_bytes(_wav(windows, job.rate_hz))
    if losses := _losses(job.clip, windows):
        job.losses.parent.mkdir(parents=True, exist_ok=True)
        _write_atomically(job.losses, msgspec.json.encode(losses), job.work)
    else:
        job.losses.unlink(missing_ok=True)
    for path in (job.frames, job.sound):
        path.parent.mkdir(parents=True, exist_ok=True)
    job.sound.unlink(missing_ok=True)  # the clip is complete only when both are in place
    if job.frames.exists():
        job.frames.rename(old)
    frames.rename(job.frames)
    sound.rename(job.sound)
    shutil.rmtree(temporary)


def _wav(windows: Sequence[Window], rate_hz: int) -> bytes:
    """Return ten seconds of 16-bit PCM with the video's channels; missing parts are silent."""
    channels = max(len(window.waveform) for window in windows if window.waveform is not None)
    waveform: NDArray[np.float32] = np.zeros((channels, SEGMENTS * rate_hz), np.float32)
    for window in windows:
        if window.waveform is not None:
            part = waveform[:, window.index * rate_hz : (window.index + 1) * rate_hz]
            part[: len(window.waveform)] = window.waveform
            part[len(window.waveform) :] = window.waveform[0]  # the number of channels changed within the clip
    samples = np.clip(np.rint(waveform.T * 32768), -32768, 32767).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((channels, 2, rate_hz, 0, "NONE", ""))
        sound.writeframes(samples.tobytes())
    return file.getvalue()


def _losses(clip: Clip, windows: Sequence[Window]) -> tuple[Loss, ...]:
    lost_s: Counter[tuple[str, str]] = Counter()
    for window in windows:
        for gap in window.gaps:
            lost_s[gap.sense, gap.cause] += gap.duration_s  # type: ignore[assignment]
    return tuple(
        Loss(split=clip.split, name=clip.name, sense=sense, cause=cause, duration_s=round(duration_s, 3))
        for (sense, cause), duration_s in sorted(lost_s.items())
        if duration_s >= NEGLIGIBLE_S
    )


def _is_done(job: _Job) -> bool:
    try:
        frame_paths(job.frames)
    except DamagedClip:
        return False
    return job.sound.is_file()


def _job(bench: OVAVEBench, clip: Clip, found: dict[str, tuple[Path, ...]], own: Path, rate_hz: int) -> _Job:
    return _Job(
        clip=clip,
        videos=found.get(clip.name, ()),
        sound=bench.audio_path(clip),
        frames=bench.frames_dir(clip),
        losses=own / "losses" / clip.split / f"{clip.name}.json",
        work=own / "work",
        rate_hz=rate_hz,
    )


def _find(videos: Path, names: set[str]) -> tuple[dict[str, tuple[Path, ...]], int]:
    """Find the files of each name in the folder and its subfolders, and count their side files."""
    found: dict[str, list[Path]] = defaultdict(list)
    seen: set[str] = set()
    side_files = 0
    for folder, below, files in os.walk(videos, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link cycle
            below.clear()
            continue
        seen.add(real)
        for file in files:
            stem, suffix = Path(file).stem, Path(file).suffix
            side_files += stem.startswith("._") and stem[2:] in names
            if suffix and stem in names and suffix.lower() not in _UNFINISHED:
                found[stem].append(Path(folder, file))
    return {name: tuple(sorted(paths)) for name, paths in found.items()}, side_files


@contextmanager
def _locked(out: Path) -> Iterator[Path]:
    """Lock and yield the folder in `out` that is reserved for this command."""
    own = out / _OWN
    try:
        if not own.exists() and any((out / split).exists() for split in SPLITS):
            raise UsageError(f"{out} holds a dataset that was not made by 'ovavel train prepare'; choose another --out")
        own.mkdir(parents=True, exist_ok=True)
        lock = (own / "lock").open("w")
    except OSError as error:
        raise output_error(own, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OutputError(f"another 'ovavel train prepare' is writing to {out}; wait for it to finish") from error
        yield own


def _write_atomically(path: Path, data: bytes, work: Path) -> None:
    """Like `atomic_write`, but through `work`: a kill leaves no temporary file next to `path`."""
    temporary = work / secrets.token_hex(8)
    atomic_write(temporary, data)
    try:
        temporary.replace(path)
    except OSError as error:
        raise output_error(path, error) from error


def _check_settings(out: Path, own: Path, work: Path, bench: OVAVEBench, rate_hz: int) -> None:
    """Store the settings of this folder, or compare them with the stored ones."""
    settings, path = _Settings(format=_FORMAT, annotations=bench.fingerprint, rate_hz=rate_hz), own / "settings.json"
    if path.exists():
        try:
            before = msgspec.json.decode(path.read_bytes(), type=_Settings)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise OutputError(f"{path} cannot be read ({error}); choose another --out") from error
        if before != settings:
            how = f"with sound at {before.rate_hz} Hz, not {rate_hz} Hz" if before.rate_hz != rate_hz else ""
            how = "from other annotation files" if before.annotations != settings.annotations else how
            how = "by another version of ovavel" if before.format != _FORMAT else how
            raise UsageError(f"{out} was made {how}; choose another --out")
    copies = out / "annotations"
    try:
        copies.mkdir(exist_ok=True)
        for source in bench.annotation_paths:
            _write_atomically(copies / source.name, source.read_bytes(), work)
    except OSError as error:
        raise output_error(copies, error) from error
    _write_atomically(path, msgspec.json.encode(settings), work)


def _report(
    bench: OVAVEBench,
    videos: Path,
    results: dict[str, _Result],
    jobs: Sequence[_Job],
    side_files: int,
    rate_hz: int,
) -> PrepareReport:
    failures = tuple(
        Failure(
            split=job.clip.split,
            name=job.clip.name,
            category=job.clip.category,
            kind=results[job.clip.name].kind,
            message=results[job.clip.name].message,
        )
        for job in jobs
        if results[job.clip.name].kind
    )
    losses: list[Loss] = []
    for job in jobs:
        if not results[job.clip.name].kind and job.losses.exists():
            losses += msgspec.json.decode(job.losses.read_bytes(), type=list[Loss])
    splits = {}
    for split in SPLITS:
        kinds = Counter(failure.kind for failure in failures if failure.split == split)
        clips = sum(clip.split == split for clip in bench.clips)
        short = {loss.name for loss in losses if loss.split == split and loss.cause == GapCause.END_OF_MEDIA}
        splits[split] = SplitPrepared(
            clips=clips, prepared=clips - kinds.total(), short=len(short), failed=dict(sorted(kinds.items()))
        )
    return PrepareReport(
        videos=str(videos),
        rate_hz=rate_hz,
        fingerprint=bench.fingerprint,
        side_files=side_files,
        splits=splits,
        failures=failures,
        losses=tuple(losses),
    )
