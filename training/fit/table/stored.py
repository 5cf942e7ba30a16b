"""The row of a video language model, from what `ovavel eval score --llm` stored."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from ovavel.runtime.errors import InputError
from ovavel.runtime.system.files import not_regular
from ovavel.runtime.system.untrusted import read_json
from ovavel.training.fit.result import RowTable
from ovavel.training.fit.table.results import Intervals, Line, Missing, drop_of

__all__ = ["NO_LLM", "llm_line"]

NO_LLM = Missing(
    reason="a model that sees and hears has not been asked, or its scores were not given",
    command="ovavel eval score --llm URL --model NAME --split test --out FOLDER; then --llm-scores "
    "FOLDER/ovave-test.json",
)
_PROTOCOL = "llm"


class _Damaged(Struct):
    count: int


class _Dataset(Struct):
    fingerprint: str
    split: str
    scored: int
    damaged: _Damaged


class _Scores(Struct):
    acc: float
    seg: float
    eve: float
    avg: float


class _Result(Struct):
    protocol: str
    seen: _Scores | None
    unseen: _Scores | None
    total: _Scores
    intervals: Intervals


class _Figures(Struct):
    question: str
    invalid_share: float
    seconds: float


class _Asked(Struct):
    model: str
    figures: tuple[_Figures, ...]


class _Report(Struct):
    dataset: _Dataset
    results: tuple[_Result, ...]
    llm: _Asked | None = None


def llm_line(name: str, file: Path, dataset_fingerprint: str, clips: int) -> tuple[Line, str]:
    """Read the row of a language model; returns it, and a sentence on the model and its answers.

    Args:
        name: of the row.
        file: the JSON of `ovavel eval score --llm`.
        dataset_fingerprint: of the annotations that the table is of.
        clips: of their test split; scores of a part of them are taken, and the sentence says so.

    Raises:
        InputError: the file cannot be read, holds no such row, or is of other annotations or another split.
    """
    try:
        if why := not_regular(file):
            raise ValueError(f"it {why}")
        report = read_json(file.read_bytes(), _Report)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"--llm-scores {file} cannot be read: {reason}; give the JSON file of `ovavel eval score --llm`"
        ) from error
    found = next((each for each in report.results if each.protocol == _PROTOCOL), None)
    if found is None or report.llm is None:
        raise InputError(f"--llm-scores {file} holds no scores of a language model; run `ovavel eval score --llm`")
    if (report.dataset.fingerprint, report.dataset.split) != (dataset_fingerprint, "test"):
        raise InputError(
            f"--llm-scores {file} is of other annotations, or of the split {report.dataset.split}: this table is of "
            "the test split; run `ovavel eval score --llm` on it"
        )
    parts = {"seen": found.seen, "unseen": found.unseen, "total": found.total}
    mean: RowTable = {
        part: None if scores is None else {each: getattr(scores, each) for each in _Scores.__struct_fields__}
        for part, scores in parts.items()
    }
    line = Line(name=name, mean=mean, interval=found.intervals, drop=drop_of([mean]), published="Video-LLaMA2")
    figures = next((each for each in report.llm.figures if each.question == "both"), None)
    answers = (
        f"; {figures.invalid_share:.1%} of its answers were invalid, {figures.seconds:.1f} s a clip" if figures else ""
    )
    part = "" if report.dataset.scored + report.dataset.damaged.count == clips else ", a part of the split"
    return line, f"{name}: {report.llm.model}, {report.dataset.scored} of {clips} clips{part}{answers}."
