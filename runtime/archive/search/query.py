"""A question to an archive, and its answers: newest day first, then the ranking over all days (docs/archive.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ovavel.runtime.archive.decisions import Decisions
from ovavel.runtime.archive.layout import model_of
from ovavel.runtime.archive.reader import Archive, Day
from ovavel.runtime.archive.search.hits import Hit, Judge, Stretch, moments, peaks
from ovavel.runtime.archive.search.ranking import Evidence, Ranking
from ovavel.runtime.archive.search.scan import KEPT, Scanned, scan
from ovavel.runtime.bundle.calibration import Rule
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Vocabulary, normalize_text
from ovavel.runtime.errors import InputError, UsageError
from ovavel.runtime.pipeline.rules.apply import check_rule
from ovavel.runtime.pipeline.rules.registry import RULES

if TYPE_CHECKING:
    from ovavel.runtime.bundle.bundle import Bundle

__all__ = ["Answer", "Question", "Search", "Texts"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Texts:
    """Phrases and their embeddings, as `embed_phrases` makes them."""

    phrases: tuple[str, ...]
    embeddings: TextEmbeddings


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Question:
    """What to look for, and where."""

    texts: Texts | None = None
    """Each phrase is ranked by itself. None: `like` is looked for."""
    without: Texts | None = None
    """Phrases that must fit less than those, like further names of the background."""
    like: tuple[str, int] | None = None
    """Camera and Unix time of a second; those that look and sound like it are looked for."""
    evidence: Evidence = "both"
    cameras: tuple[str, ...] = ()
    """All of them if empty."""
    from_s: int | None = None
    """Unix time of the first second."""
    to_s: int | None = None
    """Unix time after the last second."""
    limit: int = 50
    """Hits for each phrase, at most."""
    pooled: bool = False
    """Look at what was archived with pooled sound, instead of the rest: the two are not compared with each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is known once another day has been searched, and a last time over all days."""

    day: Day | None
    """The day that was searched; None in the last answer."""
    done: int
    days: int
    seconds: int
    """Seconds that were searched so far."""
    compared: int
    """Those whose vectors were compared."""
    hits: tuple[Hit, ...]
    """Those of the day that are among the best so far; in the last answer the best of all days. The best first."""


class Search:
    """Searches an archive with the vocabulary and the rule of a bundle."""

    def __init__(self, archive: Archive, bundle: Bundle, question: Question) -> None:
        """Prepare to answer `question`.

        Raises:
            UsageError: it makes no sense.
            InputError: there is no such camera, no such second, or nothing of this bundle's model.
        """
        self._archive, self._question, self._model = archive, question, model_of(bundle, pooled=question.pooled)
        if (question.texts is None) == (question.like is None):
            raise UsageError("look for phrases or for what is like a second, one of them")
        listing = archive.listing(question.cameras, model=self._model.id, from_s=question.from_s, to_s=question.to_s)
        self._days = listing.days
        if not self._days:
            self._refuse_empty(bundle)
        vocabulary, self._labels = bundle.vocabulary, [""]
        if question.texts is not None:
            self._phrases, self._parts = question.texts.phrases, moments
            vocabulary, self._labels = _with_names(vocabulary, question.texts)
            against = _against(bundle.vocabulary, question.without)
            self._ranking = Ranking(phrases=question.texts.embeddings, against=against, evidence=question.evidence)
        else:
            assert question.like is not None
            self._phrases, self._parts = ("",), peaks
            self._ranking = Ranking(phrases=self._vectors(*question.like), evidence=question.evidence)
        if question.without is not None:
            vocabulary, _ = _with_names(vocabulary, question.without)
        rule, judged = _rule(bundle, vocabulary)
        self.note = "; ".join(filter(None, (judged, listing.left_out)))
        calibration = bundle.manifest.calibration_for(rule)
        self._judge = Judge(
            archive,
            self._model.id,
            Decisions(vocabulary, rule, calibration),
            background=vocabulary.background,
            calibration=bundle.manifest.calibration,
        )
        self._hits: dict[tuple[int, Stretch], list[Hit]] = {}

    note: str
    """For people: what is different from live watching, and what is not searched; empty if nothing is."""

    def answers(self, *, keep: int = KEPT) -> Iterator[Answer]:
        """Search the days, newest first, and answer after each. Closing the iterator cancels the rest.

        Raises:
            InputError: a day cannot be read.
        """
        question = self._question
        leading: list[list[float]] = [[] for _ in self._phrases]
        last = Scanned(done=0, seconds=0, compared=0, best=())
        for last in scan(self._days, self._ranking, keep=keep, from_s=question.from_s, to_s=question.to_s):
            number = last.done - 1
            found: list[Hit] = []
            for phrase, best in enumerate(last.best):
                of_day = best[best.day == number]
                for stretch in self._parts(self._days, of_day)[: question.limit]:
                    scores = leading[phrase]
                    if len(scores) == question.limit and stretch.score <= min(scores):
                        break
                    leading[phrase] = sorted([*scores, stretch.score], reverse=True)[: question.limit]
                    found += self._judged(phrase, stretch)
            yield self._answer(last, found, self._days[number])
        ranked = [
            hit
            for phrase, best in enumerate(last.best)
            for stretch in self._parts(self._days, best)[: question.limit]
            for hit in self._judged(phrase, stretch)
        ]
        yield self._answer(last, ranked, None)

    def _answer(self, scanned: Scanned, hits: list[Hit], day: Day | None) -> Answer:
        once: dict[tuple[object, ...], Hit] = {}
        count = Counter[str]()
        for hit in sorted(hits, key=lambda hit: -hit.score):
            key = hit.phrase, hit.camera, hit.start_s, hit.end_s
            if key not in once and count[hit.phrase] < self._question.limit:  # an event may lie in two stretches
                once[key] = hit
                count[hit.phrase] += 1
        return Answer(
            day=day,
            done=scanned.done,
            days=len(self._days),
            seconds=scanned.seconds,
            compared=scanned.compared,
            hits=tuple(once.values()),
        )

    def _judged(self, phrase: int, stretch: Stretch) -> list[Hit]:
        key = phrase, stretch
        if key not in self._hits:
            texts = self._ranking.phrases[phrase : phrase + 1]
            self._hits[key] = self._judge.hits(stretch, self._phrases[phrase], self._labels[phrase], texts)
        return self._hits[key]

    def _vectors(self, camera: str, utc_s: int) -> TextEmbeddings:
        second = self._archive.second(camera, utc_s, model=self._model.id)
        if second is None:
            raise InputError(f"the archive has no second of {camera!r} at that time; choose another one")
        vectors = []
        for sense, size in (("audio", self._model.audio_size), ("vision", self._model.vision_size)):
            vector = second.audio if sense == "audio" else second.vision
            if vector is None and sense in self._question_senses():
                raise InputError(f"in that second {camera!r} has no {sense}; choose another one, or the other sense")
            vectors.append(np.zeros((1, size), np.float32) if vector is None else vector[None])
        return TextEmbeddings(*vectors)

    def _question_senses(self) -> tuple[str, ...]:
        return {"both": ("audio", "vision"), "seen": ("vision",), "heard": ("audio",)}[self._question.evidence]

    def _refuse_empty(self, bundle: Bundle) -> None:
        """Say why there is nothing to search, where that is a mistake. Raises InputError."""
        others = self._archive.days(self._question.cameras)
        if others and all(day.model.id != self._model.id for day in others):
            other = model_of(bundle, pooled=not self._question.pooled).id
            advice = "take the bundle that wrote it"
            if any(day.model.id == other for day in others):
                advice = "leave out --pooled" if self._question.pooled else "add --pooled"
            names = ", ".join(sorted({f"{day.model.name} ({day.model.id})" for day in others}))
            raise InputError(
                f"the archive {self._archive.root} holds vectors of {names}, and the bundle {bundle.path} is "
                f"{self._model.name} ({self._model.id}): {advice}"
            )


def _with_names(vocabulary: Vocabulary, texts: Texts) -> tuple[Vocabulary, list[str]]:
    """Add those of the phrases that are no names yet. Returns the names of all of them too."""
    known = {normalize_text(name): name for name in vocabulary.names}
    labels = []
    for row, phrase in enumerate(texts.phrases):
        key = normalize_text(phrase)
        if key not in known:
            known[key] = phrase
            vocabulary = vocabulary.added([phrase], texts.embeddings[row : row + 1])
        labels.append(known[key])
    return vocabulary, labels


def _against(vocabulary: Vocabulary, without: Texts | None) -> TextEmbeddings:
    parts = [vocabulary.embeddings[-1:]]
    if vocabulary.background_embeddings is not None:
        parts.append(vocabulary.background_embeddings)
    if without is not None:
        parts.append(without.embeddings)
    return TextEmbeddings.joined(parts)


def _rule(bundle: Bundle, vocabulary: Vocabulary) -> tuple[Rule, str]:
    """The rule that decides on hits, and a note if it is not the bundle's own."""
    fusion = bundle.manifest.fusion
    rule = fusion.decides
    why = ""
    if RULES[rule.kind].looks_around:
        why = "it decides by ten seconds together"
    else:
        try:
            check_rule(rule, fusion.decision, vocabulary.names, len(vocabulary.background_texts))
        except UsageError as error:
            why = str(error)
    if not why:
        return rule, ""
    return Rule(kind="positive"), f"hits are judged by the rule positive, not by the bundle's {rule.name}: {why}"
