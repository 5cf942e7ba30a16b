"""The fast search finds what comparing every second finds."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import threading
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.archives import DAY

from ovavel.eval.archive.made_up import made_up_texts, make_archive
from ovavel.runtime.archive.layout import pack_bits
from ovavel.runtime.archive.reader import Archive, Day, DayReader
from ovavel.runtime.archive.search import scan as scanning
from ovavel.runtime.archive.search.ranking import Evidence, Ranking
from ovavel.runtime.archive.search.scan import Best, Scanned, exhaustive, scan
from ovavel.runtime.errors import InputError

SECONDS = 6000


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Four days of vectors of full size, most of which fit nothing."""
    root = tmp_path_factory.mktemp("archive")
    make_archive(root, cameras=2, days=2, size=1024, seconds=SECONDS)
    return Archive(root)


def ranking(evidence: Evidence = "both") -> Ranking:
    texts = made_up_texts(1024)
    return Ranking(phrases=texts[:1], against=texts[1:], evidence=evidence)


@pytest.mark.parametrize("evidence", ["both", "seen", "heard"])
def test_recall_of_the_best_hundred(archive: Archive, evidence: Evidence) -> None:
    """0.99 and more is what the page states; ties are right in any order."""
    days = archive.days()
    *_, last = scan(days, ranking(evidence), keep=400)
    (oracle,) = exhaustive(days, ranking(evidence), keep=400)
    assert last.seconds == 4 * SECONDS
    assert last.compared < 0.5 * last.seconds, "bits rule most seconds out"
    for count in (10, 100):
        assert (last.best[0].score[:count] >= oracle.score[count - 1] - 1e-5).mean() >= 0.99


def by_second(best: Best) -> dict[tuple[int, int], float]:
    return {(int(day), int(row)): float(score) for day, row, score in zip(best.day, best.row, best.score, strict=True)}


def test_scores_are_those_of_the_vectors_in_float32(archive: Archive) -> None:
    *_, last = scan(archive.days(), ranking(), keep=400)
    (oracle,) = exhaustive(archive.days(), ranking(), keep=400)
    ours, theirs = by_second(last.best[0]), by_second(oracle)
    both = ours.keys() & theirs.keys()
    assert len(both) > 300
    assert [ours[each] for each in both] == pytest.approx([theirs[each] for each in both], abs=1e-5)


def test_several_phrases_are_ranked_as_each_alone(archive: Archive) -> None:
    texts, days = made_up_texts(1024), archive.days()
    *_, last = scan(days, Ranking(phrases=texts, against=texts[1:]), keep=400)
    *_, alone = scan(days, ranking(), keep=400)
    ours, theirs = by_second(last.best[0][:100]), by_second(alone.best[0][:100])
    assert len(ours.keys() & theirs.keys()) >= 98, "what is compared for one phrase may help another"


def one_by_one(days: Sequence[Day], read: Callable[[Day], scanning._Bits]) -> Generator[scanning._Bits]:
    for day in days:
        found = read(day)
        with found.files or contextlib.nullcontext():
            yield found


@settings(max_examples=10, deadline=None)
@given(
    evidence=st.sampled_from(["both", "seen", "heard"]),
    order=st.permutations(range(4)),
    keep=st.integers(1, 3000),
    threads=st.integers(1, 5),
    span=st.tuples(st.integers(0, SECONDS), st.integers(0, SECONDS)),
)
def test_threads_change_no_answer(
    archive: Archive, evidence: Evidence, order: list[int], keep: int, threads: int, span: tuple[int, int]
) -> None:
    """Every answer, not the last one alone, is that of days that are read one by one."""
    days = [archive.days()[number] for number in order]
    first, last = (min(day.start_s for day in days) + span[0], max(day.start_s for day in days) + span[1])

    def answers() -> list[Scanned]:
        return list(scan(days, ranking(evidence), keep=keep, from_s=first, to_s=last))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scanning, "default_workers", lambda: threads)
        threaded = answers()
        patch.setattr(scanning, "_ahead", one_by_one)
        expected = answers()
    assert len(threaded) == len(expected) == len(days)
    for ours, theirs in zip(threaded, expected, strict=True):
        assert (ours.done, ours.seconds, ours.compared) == (theirs.done, theirs.seconds, theirs.compared)
        for mine, other in zip(ours.best, theirs.best, strict=True):
            for name in ("day", "row", "score"):
                np.testing.assert_array_equal(getattr(mine, name), getattr(other, name))


def test_days_are_ranked_in_order_even_if_a_later_one_is_read_first(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    days, second_is_open, opened = archive.days(), threading.Event(), Day.open
    (alone,) = scan(days[:1], ranking(), keep=100)

    def slow_first(day: Day) -> DayReader:
        if day is days[0]:
            assert second_is_open.wait(60)
        files = opened(day)
        if day is days[1]:
            second_is_open.set()
        return files

    monkeypatch.setattr(scanning, "default_workers", lambda: 2)
    monkeypatch.setattr(Day, "open", slow_first)
    first, *_ = scan(days, ranking(), keep=100)
    np.testing.assert_array_equal(first.best[0].row, alone.best[0].row)


def files_below(folder: Path) -> list[str]:
    found = []
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the folder that is listed
            found.append(str(each.readlink()))
    return [each for each in found if each.startswith(str(folder))]


def bit_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("ovavel-bits")]


def test_a_search_is_cancelled_by_closing_it(archive: Archive) -> None:
    found = scan(archive.days(), ranking())
    assert next(found).done == 1
    assert bit_threads()
    assert files_below(archive.root)
    found.close()
    assert list(found) == []
    assert not bit_threads()
    assert not files_below(archive.root)


def test_a_day_that_cannot_be_read_ends_the_search_when_it_is_its_turn(archive: Archive, tmp_path: Path) -> None:
    days = archive.days()
    missing = dataclasses.replace(days[2], folder=tmp_path)
    found = scan([*days[:2], missing, days[3]], ranking())
    assert [next(found).done, next(found).done] == [1, 2]
    with pytest.raises(InputError, match=re.escape(str(tmp_path))):
        next(found)
    assert not bit_threads()
    assert not files_below(archive.root)


def test_a_day_that_was_removed_has_no_seconds(archive: Archive, tmp_path: Path) -> None:
    days = archive.days()
    removed = dataclasses.replace(days[2], folder=tmp_path / "2026-11-27")
    first, second, third = scan([days[0], removed, days[1]], ranking(), keep=100)
    assert (first.seconds, second.seconds, third.seconds) == (SECONDS, SECONDS, 2 * SECONDS)
    assert not files_below(archive.root)


def test_a_span_is_exact_to_the_second(archive: Archive) -> None:
    day = archive.days()[0]
    *_, last = scan([day], ranking(), from_s=day.start_s + 100, to_s=day.start_s + 130)
    assert sorted(last.best[0].row.tolist()) == list(range(100, 130))
    assert [each.seconds for each in scan([day], ranking(), from_s=DAY)] == [0]


@settings(max_examples=30, deadline=None)
@given(size=st.sampled_from([3, 64, 65, 200, 512]), seed=st.integers(0, 99))
def test_bits_tell_the_angle(size: int, seed: int) -> None:
    """Within five standard deviations, whatever the vectors are; one that is all in one component among them."""
    random = np.random.default_rng(seed)
    one, other = random.normal(size=(2, size))
    if seed % 3 == 0:
        one = np.eye(size)[seed % size]
    bits = pack_bits(np.stack([one, other]))
    width = 64 * bits.shape[1]
    differing = int(np.bitwise_count(bits[0] ^ bits[1]).sum()) / width
    cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    assert abs(differing - np.arccos(np.clip(cosine, -1, 1)) / np.pi) < 5 * 0.5 / np.sqrt(width)


def test_memory_does_not_grow_with_days(archive: Archive, tmp_path: Path) -> None:
    import tracemalloc

    days = 3 * archive.days()
    peaks = []
    for count in (5, 12):
        tracemalloc.start()
        for _ in scan(days[:count], ranking(), keep=100):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
