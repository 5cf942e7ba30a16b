"""The fast search finds what comparing every second finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.archives import DAY

from ovavel.eval.archive.speed import made_up_texts, make_archive
from ovavel.runtime.archive.layout import pack_bits
from ovavel.runtime.archive.reader import Archive
from ovavel.runtime.archive.search.ranking import Evidence, Ranking
from ovavel.runtime.archive.search.scan import Best, exhaustive, scan

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


def test_a_search_is_cancelled_by_closing_it(archive: Archive) -> None:
    scanning = scan(archive.days(), ranking())
    assert next(scanning).done == 1
    scanning.close()
    assert list(scanning) == []


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

    days = archive.days()
    peaks = []
    for count in (1, 4):
        tracemalloc.start()
        for _ in scan(days[:count], ranking(), keep=100):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
