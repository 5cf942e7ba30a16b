"""Whatever dies, and whenever: a reader sees whole seconds, each as it was given at some time."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.archives import DAY, made_up_model, unit, write_seconds

from ovavel.runtime.archive.layout import DAY_S, ContextSecond, pack_bits, quantized, row_bytes
from ovavel.runtime.archive.reader import Archive, Day
from ovavel.runtime.archive.writer import ArchiveWriter
from ovavel.runtime.errors import OutputError, UsageError

MODEL = made_up_model(audio=64, vision=100)


def second(row: int, version: int, *, missing: str = "", day: int = DAY) -> ContextSecond:
    random = np.random.default_rng([row, version])
    vision, audio = (unit(random.normal(size=MODEL.size(sense))) for sense in ("vision", "audio"))
    return ContextSecond(
        utc_s=day + row, vision=None if "v" in missing else vision, audio=None if "a" in missing else audio
    )


def same(ours: ContextSecond, theirs: ContextSecond) -> bool:
    """Whether `theirs` is what the archive makes of `ours`."""
    for sense in ("vision", "audio"):
        mine, read = ours.of(sense), theirs.of(sense)
        if (mine is None) != (read is None):
            return False
        if mine is not None:
            values, scale = quantized(mine[None])
            if not np.array_equal(values[0] * scale[0], read):
                return False
    return True


class Write(NamedTuple):
    file: str
    offset: int
    data: bytes


class Sync(NamedTuple):
    file: str


def file_of(handle: int) -> str:
    return str(Path(f"/proc/self/fd/{handle}").readlink())


@contextmanager
def recorded(after: object = None) -> Iterator[list[Write | Sync]]:
    """Record what is written to the files of days, in order; `after` is called after each."""
    found: list[Write | Sync] = []
    pwrite, sync = os.pwrite, os.fdatasync

    def note(each: Write | Sync) -> None:
        found.append(each)
        if callable(after):
            after()

    def noted_write(handle: int, data: bytes, offset: int) -> int:
        count = pwrite(handle, data, offset)
        note(Write(file_of(handle), offset, bytes(data)[:count]))
        return count

    def noted_sync(handle: int) -> None:
        sync(handle)
        note(Sync(file_of(handle)))

    with patch("os.pwrite", noted_write), patch("os.fdatasync", noted_sync):
        yield found


def check_whole(day: Day, given: dict[int, list[ContextSecond]]) -> int:
    """Each second that is there is one of those given, and so are its bits. Returns how many there are."""
    with day.open() as files:
        there = list(files.seconds(0, 100))
        for each in there:
            row = each.utc_s - day.start_s
            assert any(same(one, each) for one in given[row]), row
            bits = files.bits(row, row + 1)[0]
            for sense in ("vision", "audio"):
                if (vector := each.of(sense)) is not None:
                    values, _ = quantized(vector[None])
                    assert np.array_equal(bits[files.words(sense)], pack_bits(values)[0])
    return len(there)


PLANS = st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["", "", "v", "a", "va"])), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(plan=PLANS, every=st.integers(1, 9), data=st.data())
def test_after_a_power_cut_every_second_is_whole(plan: list[tuple[int, str]], every: int, data: st.DataObject) -> None:
    """What was not synchronized reaches the disk in part and in any order."""
    given: dict[int, list[ContextSecond]] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with recorded() as done, ArchiveWriter(root, "yard", MODEL, every=every) as writer:
            for version, (row, missing) in enumerate(plan):
                given.setdefault(row, []).append(second(row, version, missing=missing))
                writer.write(given[row][-1])
        (day,) = Archive(root).days()
        assert check_whole(day, given) == len(given)
        cut = data.draw(st.integers(0, len(done)), label="died after")
        happened, synced = done[:cut], {}
        for at, each in enumerate(happened):
            if isinstance(each, Sync):
                synced[each.file] = at
        for name, size in row_bytes(MODEL).items():
            (day.folder / name).unlink()
            (day.folder / name).touch()
            os.truncate(day.folder / name, DAY_S * size)
        for at, each in enumerate(happened):
            if isinstance(each, Sync):
                continue
            first, last = 0, len(each.data)
            if synced.get(each.file, -1) < at:
                first, last = sorted(data.draw(st.tuples(*(st.integers(0, last),) * 2), label="part"))
            with Path(each.file).open("r+b") as file:
                file.seek(each.offset + first)
                file.write(each.data[first:last])
        check_whole(day, given)


@settings(max_examples=25, deadline=None)
@given(plan=PLANS, every=st.integers(1, 9))
def test_a_reader_sees_whole_seconds_at_any_moment(plan: list[tuple[int, str]], every: int) -> None:
    """And so does one that comes after the process was killed, since what it wrote stays."""
    given: dict[int, list[ContextSecond]] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)

        def look() -> None:
            for day in Archive(root).days():
                check_whole(day, given)

        with recorded(look), ArchiveWriter(root, "yard", MODEL, every=every) as writer:
            for version, (row, missing) in enumerate(plan):
                given.setdefault(row, []).append(second(row, version, missing=missing))
                writer.write(given[row][-1])


def test_a_second_that_is_written_again_while_it_is_read_is_left_out(tmp_path: Path) -> None:
    write_seconds(tmp_path, "yard", MODEL, [second(row, 0) for row in range(3)])
    (day,) = Archive(tmp_path).days()
    with day.open() as files, ArchiveWriter(tmp_path, "yard", MODEL, every=1) as writer:
        preadv, reads = os.preadv, []

        def interrupted(handle: int, buffers: list[memoryview], offset: int) -> int:
            reads.append(file_of(handle).rpartition("/")[2])
            if reads == ["flags.u8", "vision.i8", "audio.i8"]:
                writer.write(second(1, 1))  # between its vision and its sound
            return preadv(handle, buffers, offset)

        with patch("os.preadv", interrupted):
            assert [each.utc_s - DAY for each in files.seconds(0, 3)] == [0, 2]
        assert [same(second(row, int(row == 1)), each) for row, each in enumerate(files.seconds(0, 3))] == [True] * 3


def test_a_full_disk_is_reported_and_counted_and_later_seconds_are_written(tmp_path: Path) -> None:
    pwrite = os.pwrite

    def full(handle: int, data: bytes, offset: int) -> int:
        if file_of(handle).endswith("audio.i8"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(handle, data, offset)

    with ArchiveWriter(tmp_path, "yard", MODEL, every=2) as writer:
        writer.write(second(0, 0))
        with patch("os.pwrite", full), pytest.raises(OutputError, match="No space left"):
            writer.write(second(1, 0))
        assert (writer.written, writer.lost) == (0, 2)
        writer.write(second(2, 0))
    assert (writer.written, writer.lost) == (1, 2)
    (day,) = Archive(tmp_path).days()
    with day.open() as files:
        assert [each.utc_s - DAY for each in files.seconds(0, 10)] == [2]


def test_days_follow_each_other_and_are_sparse(tmp_path: Path) -> None:
    write_seconds(tmp_path, "yard", MODEL, [second(DAY_S - 1, 0), second(0, 0, day=DAY + DAY_S)])
    days = Archive(tmp_path).days()
    assert [str(day.day) for day in days] == ["2026-11-29", "2026-11-28"]
    for day in days:
        used = sum(file.stat().st_blocks * 512 for file in day.folder.iterdir())
        assert used < 200_000, "a second takes a few blocks, and not a day's worth"


def test_another_model_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    other = made_up_model(audio=64, vision=100, number=7)
    for model in (MODEL, other, MODEL, other):
        write_seconds(tmp_path, "yard", model, [second(0, model is other)])
    assert sorted(path.name for path in (tmp_path / "context" / "yard").iterdir()) == [
        "2026-11-28",
        "2026-11-28.0000000000000007",
    ]
    for model in (MODEL, other):
        found = Archive(tmp_path).second("yard", DAY, model=model.id)
        assert found is not None
        assert same(second(0, model is other), found)


def test_two_writers_of_one_day_are_refused(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path, "yard", MODEL) as first, ArchiveWriter(tmp_path, "yard", MODEL) as second_writer:
        first.write(second(0, 0))
        with pytest.raises(OutputError, match="another process does"):
            second_writer.write(second(1, 0))
        with ArchiveWriter(tmp_path, "gate", MODEL) as other:
            other.write(second(1, 0))


@pytest.mark.parametrize("camera", ["a/b", "../up", ".hidden", "50 %", "Hof – Süd", "tab\tand\nline", "%2F", "-x"])
def test_any_name_of_a_camera_comes_back(tmp_path: Path, camera: str) -> None:
    write_seconds(tmp_path, camera, MODEL, [second(0, 0)])
    assert Archive(tmp_path).cameras() == [camera]
    assert len(Archive(tmp_path).days([camera])) == 1
    assert [path.parent.name for path in tmp_path.rglob("2026-11-28")] == [
        path.name for path in (tmp_path / "context").iterdir()
    ]


@pytest.mark.parametrize("camera", ["", "x" * 256, "/" * 100])
def test_a_name_that_no_folder_can_have_is_refused(tmp_path: Path, camera: str) -> None:
    with pytest.raises(UsageError, match="name of a camera"):
        ArchiveWriter(tmp_path, camera, MODEL)


def test_a_vector_of_the_wrong_size_is_refused(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path, "yard", MODEL) as writer, pytest.raises(ValueError, match="audio vector"):
        writer.write(ContextSecond(utc_s=DAY, vision=None, audio=np.ones(3, np.float32)))
