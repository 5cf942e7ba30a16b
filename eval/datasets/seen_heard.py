"""Is what OV-AVEBench calls an audio-visual event both seen and heard? A check against VGGSounder's labels.

Both are cut from VGGSound's videos; VGGSounder labels whole clips, and says of each class whether it is heard, seen or
both.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from msgspec import Struct

from ovavel.eval.datasets.dataset import SPLITS, Clip, Dataset
from ovavel.eval.datasets.readers.lines import read_bytes
from ovavel.eval.datasets.readers.vggsounder import Labels, Modality
from ovavel.runtime.errors import DatasetError
from ovavel.runtime.system.untrusted import read_json

__all__ = ["BOTH", "COMPARED", "LEFT_OUT", "GroupScores", "SeenHeard", "compare", "score_groups"]

BOTH = "both seen and heard (AV)"
_GROUPS: Mapping[Modality, str] = MappingProxyType({"AV": BOTH, "A": "only heard (A)", "V": "only seen (V)"})
_UNLABELLED = "not labelled with its class"
COMPARED = (*_GROUPS.values(), _UNLABELLED)
"""What VGGSounder says of the class of a clip."""
_ABSENT, _SEVERAL, _NO_CLASS = "video not in VGGSounder", "several clips of its video there", "class not in VGGSounder"
LEFT_OUT = (_ABSENT, _SEVERAL, _NO_CLASS)
"""Why a clip cannot be compared."""

_START = re.compile(r"(.{11})_[0-9]{6}")


class GroupScores(Struct, frozen=True, kw_only=True):
    """Means over the scored clips of a group, each in [0, 1]."""

    clips: int
    acc: float
    seg: float
    eve: float
    avg: float


class SeenHeard(Struct, frozen=True, kw_only=True):
    """What VGGSounder says of the clips with an event."""

    file: str
    splits: dict[str, dict[str, int]]
    """Split → one of `COMPARED` or `LEFT_OUT` → clips."""
    unmatched: dict[str, int]
    """Class that VGGSounder does not have → clips that are left out for it."""
    scored: str = ""
    """Method and split of `scores`."""
    scores: dict[str, GroupScores] = {}
    """`BOTH`, and "not both" for all others that were compared → their scores; empty where no scores were given."""


def compare(dataset: Dataset, labels: Labels, file: Path) -> tuple[SeenHeard, dict[tuple[str, str], str]]:
    """Look up every clip with an event.

    A clip is found by its name if that is a video with a start, else by the id of the video where VGGSounder has one
    clip of it. A class is found by its name, or by the part of VGGSounder's name before the first comma.

    Args:
        dataset: OV-AVEBench.
        labels: VGGSounder's, read from `file`.
        file: for the report.

    Returns:
        The counts, and split and name of each clip that was compared → one of `COMPARED`.
    """
    starts: dict[str, list[str]] = defaultdict(list)
    for labelled in labels:
        starts[labelled[:11]].append(labelled)
    classes = _classes({label for each in labels.values() for label in each}, dataset.names[:-1])
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    unmatched = Counter[str]()
    found: dict[tuple[str, str], str] = {}
    for clip in dataset.clips:
        if not any(clip.labels):
            continue
        group = _group(clip, labels, starts, classes)
        counts[clip.split][group] += 1
        unmatched[clip.category] += group == _NO_CLASS
        if group in COMPARED:
            found[clip.split, clip.name] = group
    return (
        SeenHeard(
            file=str(file),
            splits={split: {each: count[each] for each in (*COMPARED, *LEFT_OUT)} for split, count in counts.items()},
            unmatched=dict(sorted((+unmatched).items())),
        ),
        found,
    )


def _group(clip: Clip, labels: Labels, starts: Mapping[str, list[str]], classes: Mapping[str, str]) -> str:
    mine = [clip.name] if clip.name in labels else []
    if not mine and not _START.fullmatch(clip.name):
        mine = starts.get(clip.name, [])
    if not mine:
        return _ABSENT
    if len(mine) > 1:
        return _SEVERAL
    if clip.category not in classes:
        return _NO_CLASS
    modality = labels[mine[0]].get(classes[clip.category])
    return _GROUPS[modality] if modality else _UNLABELLED


def _classes(theirs: Iterable[str], ours: Iterable[str]) -> dict[str, str]:
    """Our name of a class → VGGSounder's, where there is exactly one."""
    whole: dict[str, list[str]] = defaultdict(list)
    first: dict[str, list[str]] = defaultdict(list)
    for label in theirs:
        whole[_plain(label)].append(label)
        first[_plain(label.split(",")[0])].append(label)
    found = {name: whole.get(_plain(name)) or first.get(_plain(name), []) for name in ours}
    return {name: labels[0] for name, labels in found.items() if len(labels) == 1}


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())


class _Set(Struct):
    fingerprint: str
    split: str


class _Result(Struct):
    method: str


class _Clip(Struct):
    name: str
    acc: float
    seg: float
    eve: float
    avg: float


class _Report(Struct):
    dataset: _Set
    results: list[_Result]
    clips: list[_Clip]


def score_groups(
    path: Path, dataset: Dataset, groups: Mapping[tuple[str, str], str]
) -> tuple[str, dict[str, GroupScores]]:
    """Compare the scores of clips that are both seen and heard with those of the others.

    Args:
        path: JSON that `ovavel eval score` wrote.
        dataset: it has to be of the same annotations.
        groups: as `compare` returns them.

    Returns:
        Method and split, and the means of `BOTH` and of "not both"; a group without a clip is left out.

    Raises:
        DatasetError: the file is missing, is none of `eval score`, or is of other annotations.
    """
    try:
        report = read_json(read_bytes(path, "the JSON of `ovavel eval score`"), _Report)
    except ValueError as error:
        raise DatasetError(f"{path} is not the JSON of `ovavel eval score`: {error}") from error
    if report.dataset.fingerprint != dataset.fingerprint or not report.results:
        raise DatasetError(f"{path} is of other annotations than those of {dataset.root}; score this data set again")
    of: dict[str, list[_Clip]] = defaultdict(list)
    for clip in report.clips:
        if group := groups.get((report.dataset.split, clip.name)):
            of[BOTH if group == BOTH else "not both"].append(clip)
    means = {group: _mean(of[group]) for group in (BOTH, "not both") if of[group]}
    return f"{report.results[0].method}, {report.dataset.split}", means


def _mean(clips: list[_Clip]) -> GroupScores:
    acc, seg, eve, avg = (
        sum(column) / len(clips) for column in zip(*((c.acc, c.seg, c.eve, c.avg) for c in clips), strict=True)
    )
    return GroupScores(clips=len(clips), acc=acc, seg=seg, eve=eve, avg=avg)
