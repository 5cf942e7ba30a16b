"""Check every clip of a data set for missing or unreadable media and wrong lengths or counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from msgspec import Struct

from ovavel.eval.datasets.clip_media import CLIP_SAMPLES, KINDS
from ovavel.eval.datasets.dataset import SPLITS, Dataset, Inspected, side_files_text
from ovavel.eval.datasets.seen_heard import SeenHeard
from ovavel.runtime.system.parallel import Crashed, default_workers, run_each, show_progress
from ovavel.runtime.types import RATE_HZ

__all__ = ["CRASH_KIND", "CheckReport", "check_data"]

CRASH_KIND = "crashes the reader"
"""Kind of a clip that crashed the process reading it."""


class Problem(Struct, frozen=True, kw_only=True):
    """One problem of a clip."""

    kind: str
    """One of `clip_media.KINDS`, or `CRASH_KIND`."""
    message: str


class ClipProblems(Struct, frozen=True, kw_only=True):
    """A damaged clip."""

    split: str
    name: str
    category: str
    problems: tuple[Problem, ...]
    """All of them: those of the label, the sound and the frames, the first of each."""


class ShortSound(Struct, frozen=True, kw_only=True):
    """A sound shorter than ten seconds. It is padded with silence and not damaged."""

    split: str
    name: str
    duration_s: float


class SplitCheck(Struct, frozen=True, kw_only=True):
    """Counts of one split."""

    clips: int
    undamaged: int
    """Undamaged clips."""
    damaged: int
    kinds: dict[str, int]
    """Damaged clips by kind. A clip with two kinds of damage counts under both."""
    short_sounds: int


class CheckReport(Struct, frozen=True, kw_only=True):
    """Result of `check_data`."""

    root: str
    fingerprint: str
    """`Dataset.fingerprint` of the annotation files."""
    splits: dict[str, SplitCheck]
    damaged: tuple[ClipProblems, ...]
    """Every damaged clip, in the order of the dataset."""
    short_sounds: tuple[ShortSound, ...]
    """In the order of the dataset."""
    notes: tuple[str, ...]
    """What is there and is not read, with its number; it damages nothing."""
    seen_heard: SeenHeard | None = None
    """What VGGSounder says of the clips; None where it was not asked for."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of damage found, in checking order."""
        return tuple(kind for kind in (*KINDS, CRASH_KIND) if any(kind in s.kinds for s in self.splits.values()))


class _Job(NamedTuple):
    place: int
    inspect: Callable[[], Inspected]


def check_data(bench: Dataset, *, workers: int | None = None) -> CheckReport:
    """Read all media of all clips, in as many processes as `workers` (default: cores).

    Raises:
        DatasetError: there are no media at all.
        UsageError: `workers` is below 1.
    """
    bench.check_media()
    jobs = [_Job(place, bench.inspection(clip)) for place, clip in enumerate(bench.clips)]
    problems: dict[int, tuple[Problem, ...]] = {}
    short: dict[int, float] = {}
    side_files = 0
    results = run_each(_check, jobs, workers=default_workers() if workers is None else workers)
    for job, result in show_progress(results, len(jobs), "checking", "clips"):
        clip = bench.clips[job.place]
        found: list[Problem] = []
        if clip.label_damage:
            found.append(Problem(kind=clip.label_damage[0], message=clip.label_damage[1]))
        if isinstance(result, Crashed):
            found.append(Problem(kind=CRASH_KIND, message=f"the media of {clip.name}"))
        else:
            found += [Problem(kind=each.kind, message=str(each)) for each in result.problems]
            side_files += result.side_files
            if result.duration_s < CLIP_SAMPLES / RATE_HZ:
                short[job.place] = result.duration_s
        if found:
            problems[job.place] = tuple(found)
    return CheckReport(
        root=str(bench.root),
        fingerprint=bench.fingerprint,
        splits={split: _count(bench, split, problems, short) for split in SPLITS},
        damaged=tuple(
            ClipProblems(split=clip.split, name=clip.name, category=clip.category, problems=problems[index])
            for index, clip in enumerate(bench.clips)
            if index in problems
        ),
        short_sounds=tuple(
            ShortSound(split=clip.split, name=clip.name, duration_s=round(short[index], 6))
            for index, clip in enumerate(bench.clips)
            if index in short
        ),
        notes=(*bench.notes, *((side_files_text(side_files),) if side_files else ())),
    )


def _check(job: _Job) -> Inspected:
    """Check one clip in a worker process."""
    return job.inspect()


def _count(bench: Dataset, split: str, problems: dict[int, tuple[Problem, ...]], short: dict[int, float]) -> SplitCheck:
    indices: Sequence[int] = [index for index, clip in enumerate(bench.clips) if clip.split == split]
    kinds = Counter(kind for i in indices for kind in {problem.kind for problem in problems.get(i, ())})
    damaged = sum(index in problems for index in indices)
    return SplitCheck(
        clips=len(indices),
        undamaged=len(indices) - damaged,
        damaged=damaged,
        kinds={kind: kinds[kind] for kind in (*KINDS, CRASH_KIND) if kinds[kind]},
        short_sounds=sum(index in short for index in indices),
    )
