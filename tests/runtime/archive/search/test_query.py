"""Questions to an archive of the demo's clip, across midnight."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from support.archives import DAY, archive_clip, made_up_model, unit, write_seconds
from support.demo_copies import BUNDLE, EVENTS

from ovavel.runtime.archive.care import remove_day
from ovavel.runtime.archive.layout import ContextSecond, model_of
from ovavel.runtime.archive.reader import Archive
from ovavel.runtime.archive.search.hits import Hit, Stretch
from ovavel.runtime.archive.search.phrases import embed_phrases
from ovavel.runtime.archive.search.query import Answer, Question, Search
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.errors import InputError, UsageError

START = DAY + 86_400 - 20  # midnight is in the clip
BELL, DOG, BIRD = "small bell ringing quickly", "large dog barking slowly", "small bird singing slowly"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    root = tmp_path_factory.mktemp("archive")
    archive_clip(root, START)
    return Archive(root)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open(BUNDLE)


def last(archive: Archive, bundle: Bundle, question: Question) -> Answer:
    *_, answer = Search(archive, bundle, question).answers()
    return answer


def without(bundle: Bundle, *names: str) -> Bundle:
    """The bundle as if it had never known these names."""
    return replace(bundle, vocabulary=bundle.vocabulary.removed(names))


def test_a_name_that_nobody_configured_is_found_as_live_watching_would_have_found_it(
    archive: Archive, bundle: Bundle
) -> None:
    ignorant = without(bundle, BELL, DOG, BIRD)
    question = Question(texts=embed_phrases(ignorant, [BELL, DOG, BIRD]))
    found = {
        (hit.start_s - START, hit.end_s - START, hit.phrase)
        for hit in last(archive, ignorant, question).hits
        if hit.event and hit.label == hit.phrase
    }
    assert found == {event for event in EVENTS if event[2] in (BELL, DOG, BIRD)}


def test_the_newest_day_is_answered_first(archive: Archive, bundle: Bundle) -> None:
    days = [
        answer.day and str(answer.day.day)
        for answer in Search(archive, bundle, Question(texts=embed_phrases(bundle, [DOG]))).answers()
    ]
    assert days == ["2026-11-29", "2026-11-28", None]


def test_a_phrase_that_must_not_fit_rules_seconds_out(archive: Archive, bundle: Bundle) -> None:
    texts = embed_phrases(bundle, ["dog barking"])
    plain = last(archive, bundle, Question(texts=texts)).hits
    fewer = last(archive, bundle, Question(texts=texts, without=embed_phrases(bundle, [DOG]))).hits
    assert plain[0].score > max((hit.score for hit in fewer), default=0)


def test_one_sense_alone(archive: Archive, bundle: Bundle) -> None:
    texts = embed_phrases(bundle, [DOG])
    seen, heard = (last(archive, bundle, Question(texts=texts, evidence=each)).hits[0] for each in ("seen", "heard"))
    assert seen.score != heard.score
    assert all(13 <= hit.peak_s - START < 19 for hit in (seen, heard))


def test_like_a_second_finds_the_other_one(archive: Archive, bundle: Bundle) -> None:
    """The bell rings twice."""
    question = Question(like=("yard", START + 2))
    hits = last(archive, bundle, question).hits
    assert hits[0].score == pytest.approx(1, abs=0.01)
    assert [(hit.peak_s - START, hit.label) for hit in hits[:2]] == [(2, BELL), (pytest.approx(8, abs=1.5), BELL)]


def test_a_limit_is_one_of_hits_for_each_phrase(archive: Archive, bundle: Bundle) -> None:
    """One stretch may hold several events, here those of the bell."""
    question = Question(texts=embed_phrases(bundle, [BELL, DOG]), limit=1)
    search = Search(archive, bundle, question)
    judged = search._judge.hits

    def two(stretch: Stretch, phrase: str, *more: Any) -> list[Hit]:
        (hit, *_) = judged(stretch, phrase, *more)
        return [hit, replace(hit, start_s=hit.start_s - 1, score=hit.score - 0.1)]

    with patch.object(search._judge, "hits", two):
        for answer in search.answers():
            assert max(Counter(hit.phrase for hit in answer.hits).values(), default=0) <= 1
    assert {hit.phrase for hit in answer.hits} == {BELL, DOG}


def test_a_time_span_limits_the_seconds(archive: Archive, bundle: Bundle) -> None:
    texts = embed_phrases(bundle, [DOG])
    answer = last(archive, bundle, Question(texts=texts, from_s=START + 14, to_s=START + 16))
    assert answer.seconds == 2
    assert [(hit.peak_s - START) for hit in answer.hits if 14 <= hit.peak_s - START < 16]


def test_a_day_that_is_removed_during_a_search_has_no_seconds(tmp_path: Path, archive: Archive, bundle: Bundle) -> None:
    archive = Archive(shutil.copytree(archive.root, tmp_path / "copy"))
    newest, oldest = archive.days()
    search = Search(archive, bundle, Question(texts=embed_phrases(bundle, [BELL])))
    remove_day(newest)
    with patch.object(archive, "days", return_value=[newest, oldest]):  # listed before it was removed
        *_, answer = search.answers()
        assert archive.second("yard", newest.start_s, model=newest.model.id) is None
    assert (answer.done, answer.days, answer.seconds) == (2, 2, 20)
    assert any(hit.event for hit in answer.hits)


def test_pooled_sound_is_a_model_of_its_own(tmp_path: Path, archive: Archive, bundle: Bundle) -> None:
    texts, vector = embed_phrases(bundle, [DOG]), unit(np.ones(64))
    full, pooled = model_of(bundle), model_of(bundle, pooled=True)
    assert full.id != pooled.id
    with pytest.raises(InputError, match="leave out --pooled"):
        Search(archive, bundle, Question(texts=texts, pooled=True))
    write_seconds(tmp_path, "yard", pooled, [ContextSecond(utc_s=DAY, vision=vector, audio=vector)])
    with pytest.raises(InputError, match=r"with pooled sound \(\w+\), and the bundle .*: add --pooled"):
        Search(Archive(tmp_path), bundle, Question(texts=texts))
    write_seconds(tmp_path, "yard", full, [ContextSecond(utc_s=DAY + s, vision=vector, audio=vector) for s in (1, 2)])
    both = Archive(tmp_path)
    assert [last(both, bundle, Question(texts=texts, pooled=each)).seconds for each in (False, True)] == [2, 1]
    assert Search(both, bundle, Question(texts=texts)).note.startswith(
        "1 days of cameras hold vectors of another model"
    )


def test_what_cannot_be_answered_is_refused(tmp_path: Path, archive: Archive, bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="one of them"):
        Search(archive, bundle, Question())
    with pytest.raises(InputError, match="no camera 'gate'"):
        Search(archive, bundle, Question(texts=embed_phrases(bundle, [DOG]), cameras=("gate",)))
    with pytest.raises(InputError, match="no second"):
        Search(archive, bundle, Question(like=("yard", START - 5)))
    vector = unit(np.ones(64))
    write_seconds(tmp_path, "yard", made_up_model(), [ContextSecond(utc_s=DAY, vision=vector, audio=vector)])
    with pytest.raises(InputError, match="take the bundle that wrote it"):
        Search(Archive(tmp_path), bundle, Question(texts=embed_phrases(bundle, [DOG])))
