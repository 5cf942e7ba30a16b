"""What is kept of a camera, and what of that makes a clip, whatever its groups of pictures look like."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovavel.service.capture.clip_file import _decoding_times
from ovavel.service.capture.ring import Cutting, Picture, Ring, Sound, Strand

TINY = 1e-6

lengths_s = st.floats(0.01, 3.0, allow_nan=False)
group = st.lists(lengths_s, min_size=1, max_size=8)
"""How long each picture of a group is shown."""


def fill(ring: Ring, strand: Strand, groups: list[list[float]], *, start_s: float = 0.0, head: bytes = b"a") -> float:
    """Put groups of pictures into the ring, one after the other; returns where they end."""
    time_s = start_s
    for shown in groups:
        for index, length_s in enumerate(shown):
            ring.picture(strand, Picture(b"x" * 10, time_s, index == 0), head if index == 0 else b"")
            time_s += length_s
    return time_s


def starts_s(cutting: Cutting) -> list[float]:
    """Where its pictures are on the media clock."""
    return [each.shown_s + cutting.start_s for each in cutting.pictures]


@given(st.lists(group, min_size=1, max_size=20), st.floats(0, 40), st.floats(0.01, 20), st.floats(-1e6, 1e6))
def test_a_clip_covers_what_was_asked_for_without_holes(
    groups: list[list[float]], from_s: float, length_s: float, offset_s: float
) -> None:
    ring = Ring(limit_bytes=1 << 30, limit_s=1e9)
    strand = Strand("h264", offset_s)
    end_s = fill(ring, strand, [*groups, [0.04, 0.04]])
    last_s = end_s - 0.04
    cutting = ring.cut(from_s + offset_s, from_s + length_s + offset_s)
    if from_s > last_s:
        return
    assert cutting is not None
    assert cutting.pictures[0].key, "it can be decoded from its first picture on"
    assert cutting.pictures[0].shown_s == pytest.approx(0, abs=TINY)
    found = [time_s - offset_s for time_s in starts_s(cutting)]
    every = [time_s for time_s, _ in timed(groups)]
    wanted = [time_s for time_s in every if from_s <= time_s < min(from_s + length_s, last_s)]
    missing = [time_s for time_s in wanted if min(abs(time_s - each) for each in found) > 1e-3]
    assert not missing, "no picture of it is left out"
    assert found[0] <= max(from_s, every[0]) + 1e-3, "the picture that is shown at its start is there"
    indices = [
        min(range(len(every)), key=lambda index: abs(every[index] - each)) for each in found if each < last_s - 0.05
    ]
    assert all(later - earlier == 1 for earlier, later in pairwise(indices)), "and there is no hole in it"


def timed(groups: list[list[float]]) -> list[tuple[float, bool]]:
    found, time_s = [], 0.0
    for shown in groups:
        for index, length_s in enumerate(shown):
            found.append((time_s, index == 0))
            time_s += length_s
    return found


@given(st.lists(group, min_size=1, max_size=30), st.integers(10, 400), st.floats(0.5, 30))
def test_the_limits_hold_after_every_picture(groups: list[list[float]], limit_bytes: int, limit_s: float) -> None:
    ring = Ring(limit_bytes=limit_bytes, limit_s=limit_s)
    strand = Strand("h264", 0.0)
    time_s = 0.0
    for shown in groups:
        for index, length_s in enumerate(shown):
            ring.picture(strand, Picture(b"x" * 10, time_s, index == 0), b"a" if index == 0 else b"")
            ring.sound(Sound(b"y" * 3, time_s, length_s))
            time_s += length_s
            assert ring.size <= limit_bytes
            cutting = ring.cut(-1e9, 1e9)
            if cutting is not None and cutting.pictures:
                assert cutting.pictures[0].key, "half a group is of no use"
    kept = ring.cut(-1e9, 1e9)
    if kept is not None:
        assert sum(len(each.data) for each in (*kept.pictures, *kept.sounds)) <= ring.size


@given(st.lists(group, min_size=2, max_size=10), st.floats(0, 10), st.floats(0.1, 10))
def test_sound_stays_beside_its_picture(groups: list[list[float]], from_s: float, length_s: float) -> None:
    ring = Ring(limit_bytes=1 << 30, limit_s=1e9)
    end_s = fill(ring, Strand("h264", 100.0), groups)
    for index in range(int(end_s / 0.064) + 1):
        ring.sound(Sound(index.to_bytes(4, "big"), 100 + index * 0.064, 0.064))
    cutting = ring.cut(100 + from_s, 100 + from_s + length_s)
    if cutting is None:
        return
    for sound in cutting.sounds:
        true_s = 100 + int.from_bytes(sound.data, "big") * 0.064
        assert sound.time_s + cutting.start_s == pytest.approx(true_s, abs=TINY)
    assert all(b.time_s - a.time_s == pytest.approx(0.064, abs=TINY) for a, b in pairwise(cutting.sounds))


def test_a_clip_begins_with_the_key_picture_before_it() -> None:
    ring = Ring(limit_bytes=1000, limit_s=100)
    fill(ring, Strand("h264", 0.0), [[1.0] * 4, [1.0] * 4, [1.0] * 4])
    cutting = ring.cut(5.5, 8.5)
    assert cutting is not None
    assert starts_s(cutting) == [4, 5, 6, 7, 8]


def test_the_format_of_the_pictures_changes() -> None:
    ring = Ring(limit_bytes=1000, limit_s=100)
    strand = Strand("h264", 0.0)
    end_s = fill(ring, strand, [[1.0] * 4], head=b"small")
    fill(ring, strand, [[1.0] * 8], start_s=end_s, head=b"large")
    for second in range(12):
        ring.sound(Sound(b"s", second, 1.0))
    cutting = ring.cut(0, 12)
    assert cutting is not None
    assert cutting.changed
    assert starts_s(cutting) == list(range(4, 12)), "the longer part"
    assert [each.time_s for each in cutting.sounds] == list(range(8)), "with its sound alone"


def test_connections_follow_one_another_on_one_clock() -> None:
    ring = Ring(limit_bytes=1000, limit_s=100)
    fill(ring, Strand("h264", 0.0), [[1.0] * 4])
    fill(ring, Strand("h264", 5.0), [[1.0] * 2], start_s=0.0)
    # a server that sends again what it sent before
    fill(ring, Strand("h264", 2.0), [[1.0] * 2], start_s=0.0)
    cutting = ring.cut(0, 10)
    assert cutting is not None
    assert starts_s(cutting) == [0, 1, 2, 3, 5, 6]
    assert not cutting.changed


def test_pictures_that_cannot_be_placed_are_in_no_clip() -> None:
    ring = Ring(limit_bytes=1000, limit_s=100)
    strand = Strand("h264")
    fill(ring, strand, [[1.0] * 4])
    assert ring.cut(0, 10) is None
    strand.offset_s = 2.0
    cutting = ring.cut(0, 10)
    assert cutting is not None
    assert starts_s(cutting) == [2, 3, 4, 5]


def test_a_group_that_is_larger_than_the_ring_is_counted() -> None:
    ring = Ring(limit_bytes=55, limit_s=1e9)
    fill(ring, Strand("h264", 0.0), [[1.0] * 20])
    assert ring.too_large == 1
    assert ring.cut(0, 100) is None
    fill(ring, Strand("h264", 0.0), [[1.0] * 3], start_s=20.0)
    assert ring.cut(0, 100) is not None


def test_sound_alone_makes_a_clip() -> None:
    ring = Ring(limit_bytes=1000, limit_s=100)
    for second in range(10):
        ring.sound(Sound(b"s", second, 1.0))
    cutting = ring.cut(2.5, 6)
    assert cutting is not None
    assert cutting.pictures == ()
    assert (cutting.start_s, cutting.end_s) == (3, 6)


def test_pictures_before_the_first_key_in_time_are_left_out() -> None:
    """They build on a group that is not in the clip (open groups of pictures)."""
    ring = Ring(limit_bytes=1000, limit_s=100)
    strand = Strand("hevc", 0.0)
    fill(ring, strand, [[1.0] * 4])
    ring.picture(strand, Picture(b"k", 4.0, True), b"a")
    ring.picture(strand, Picture(b"b", 3.5, False), b"")
    ring.picture(strand, Picture(b"p", 5.0, False), b"")
    ring.picture(strand, Picture(b"k", 6.0, True), b"a")
    whole, late = ring.cut(0, 6), ring.cut(4.5, 6)
    assert whole is not None
    assert late is not None
    assert [each.data for each in late.pictures] == [b"k", b"p"]
    assert b"b" in [each.data for each in whole.pictures]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40))
def test_times_of_decoding_are_in_order_and_never_too_late(shown: list[int]) -> None:
    found = _decoding_times(shown)
    assert all(later > earlier for earlier, later in pairwise(found))
    assert all(decoded <= each for decoded, each in zip(found, shown, strict=True))
    if shown == sorted(set(shown)):
        assert found == shown, "nothing is delayed where nothing has to be"
