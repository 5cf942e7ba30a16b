"""What asking a model brought, beside its scores: how its answers were read, what was lost, and what it cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ovavel.eval.accuracy.llm.parse import RUNGS
from ovavel.eval.accuracy.llm.prompt import Question
from ovavel.runtime.reporting.text import counts

__all__ = ["HEAD", "READ_AS", "AnswerFigures", "LLMRun"]

READ_AS = (*RUNGS, "refused")
"""The rungs of the parser, and the answers that the server refused to give; the last two are scored as background."""
HEAD = ("method", *(f"{rung} %" for rung in READ_AS), "cut off %", "tokens in", "tokens out", "seconds")
"""Of the table of answers; tokens and seconds are for one clip."""
_TITLES: Mapping[Question, str] = {"both": "seen and heard", "sight": "sight only", "sound": "sound only"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFigures:
    """The answers to one question, one for each scored clip."""

    question: Question
    read_as: Mapping[str, int]
    """Answers by `READ_AS`."""
    cut_off: int
    """Answers that ended at the limit of tokens."""
    prompt_tokens: float | None
    """Mean over the answers whose usage the server reports; None: it reports none."""
    completion_tokens: float | None
    seconds: float
    """Mean time from a request to the end of its answer, with as many questions at once as were asked."""

    @property
    def answers(self) -> int:
        """How many there are."""
        return sum(self.read_as.values())

    @property
    def invalid(self) -> float:
        """Share of the answers that are scored as background because there is nothing to be read in them."""
        return (self.read_as["invalid"] + self.read_as["refused"]) / self.answers

    def row(self, method: str) -> tuple[str, ...]:
        """A row of the table of answers; see `HEAD`."""
        shares = (100 * self.read_as[rung] / self.answers for rung in READ_AS)
        tokens = ("–" if each is None else f"{each:.0f}" for each in (self.prompt_tokens, self.completion_tokens))
        return (
            method,
            *(f"{share:.1f}" for share in shares),
            f"{100 * self.cut_off / self.answers:.1f}",
            *tokens,
            f"{self.seconds:.2f}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMRun:
    """How a model was asked about the clips of a split."""

    server: str
    """Address, without secrets."""
    model: str
    """Which was asked."""
    answered_as: Mapping[str, int]
    """Answers by the model that the server says has given them."""
    prompt_sha256: Mapping[Question, str]
    max_tokens: int
    concurrency: int
    """Questions at once."""
    kept: int
    """Answers that were there from an earlier run."""
    asked: int
    """Answers of this run."""
    file: str
    """Name of the file of raw answers."""
    file_damage: str
    """What was wrong with the file; empty if nothing was."""
    failures: Mapping[str, int]
    """Attempts of this run that brought no answer, by cause; each was tried again."""
    without_schema: int
    """Answers that were asked for without a JSON schema."""
    no_schema: str
    """Why, where that was in this run."""
    figures: tuple[AnswerFigures, ...]

    def method(self, question: Question) -> str:
        """Name of a row."""
        return f"{self.model}, {_TITLES[question]}"

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """Rows of the table of answers; see `HEAD`."""
        return [each.row(self.method(each.question)) for each in self.figures]

    def remarks(self) -> Iterator[str]:
        """What to know of the answers, in sentences."""
        yield (
            f"{self.model} at {self.server}: {self.asked} answers of this run, {self.concurrency} questions at once, "
            f"and {self.kept} of earlier runs; all are in {self.file}."
        )
        others = {name: count for name, count in self.answered_as.items() if name != self.model}
        if others:
            yield f"The server names another model than the one asked: {counts(others)}."
        if self.no_schema:
            yield f"The server refused the JSON schema ({self.no_schema}): answers are free text."
        if self.without_schema:
            total = sum(each.answers for each in self.figures)
            yield f"{self.without_schema} of {total} answers were asked for without a JSON schema."
        if self.failures:
            yield f"Attempts that failed: {counts(self.failures)}."
        if self.file_damage:
            yield f"{self.file}: {self.file_damage}."
        if any(each.invalid for each in self.figures):
            yield "Invalid and refused answers are scored as background."
