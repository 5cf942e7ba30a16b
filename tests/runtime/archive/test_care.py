"""Examining, repairing and removing days."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.archives import DAY, made_up_model, unit, write_seconds

from ovavel.runtime.archive.care import Finding, examine, remove_day
from ovavel.runtime.archive.layout import DAY_S, FLAGS, ContextSecond
from ovavel.runtime.archive.reader import Archive, Day, DayReader
from ovavel.runtime.archive.writer import ArchiveWriter
from ovavel.runtime.cli import main
from ovavel.runtime.errors import InputError, OutputError

MODEL = made_up_model()
COUNT = 50


@pytest.fixture
def root(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    vision, audio = unit(random.normal(size=(2, COUNT, 64)))
    seconds = [
        ContextSecond(utc_s=DAY + row, vision=vision[row] if row % 7 else None, audio=audio[row] if row % 5 else None)
        for row in range(COUNT)
    ]
    write_seconds(tmp_path, "yard", MODEL, seconds)
    return tmp_path


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def found(root: Path, *, repair: bool = False) -> list[str]:
    return [each.what for each in examine(root, repair=repair) if isinstance(each, Finding)]


def rows(root: Path) -> list[int]:
    (day,) = Archive(root).days()
    with day.open() as files:
        return [each.utc_s - DAY for each in files.seconds(0, DAY_S)]


def test_an_archive_that_is_whole_has_no_findings(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert found(root) == []
    assert main(["archive", "check", str(root)]) == 0
    assert capsys.readouterr().out == "1 days of cameras can be searched\n"


DAMAGE: dict[str, tuple[Callable[[Path], None], str, list[int]]] = {
    "vectors": (
        lambda day: overwrite(day / "vision.i8", 11 * 64, bytes(64)),
        "1 seconds whose vectors cannot be right",
        [11],
    ),
    "scale": (
        lambda day: overwrite(day / "scale.f32", 12 * 8, np.array([np.nan, np.inf], "<f4").tobytes()),
        "1 seconds whose vectors cannot be right",
        [12],
    ),
    "flag": (lambda day: overwrite(day / FLAGS, 700, b"\x01"), "1 seconds whose vectors cannot be right", []),
    "bits": (lambda day: overwrite(day / "bits.u64", 13 * 16, b"\x55" * 16), "1 seconds whose bits do not fit", []),
    "short": (
        lambda day: os.truncate(day / "audio.i8", 40 * 64),
        f"audio.i8 has 2560 bytes, not {DAY_S * 64}",
        [41, 42, 43, 44, 46, 47, 48, 49],
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found_and_repaired(root: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    damage, what, gone = DAMAGE[kind]
    before = rows(root)
    damage(root / "context" / "yard" / "2026-11-28")
    assert found(root) == [what]
    assert main(["archive", "check", str(root)]) == 1
    assert "'ovavel archive check --repair' repairs" in capsys.readouterr().out
    assert found(root, repair=True)[0] == what
    assert found(root) == []
    left = rows(root)
    assert set(left) <= set(before)
    if kind != "short":
        assert sorted(set(before) - set(left)) == gone


FOREIGN = [".stversions", ".Trash-1000", ".@__thumb", "50%", "a%20b", "caf\udce9"]


def test_folders_that_are_no_cameras_harm_nothing(root: Path) -> None:
    days = Archive(root).days()
    for name in FOREIGN:
        shutil.copytree(root / "context" / "yard", root / "context" / name)
    assert Archive(root).cameras() == ["yard"]
    assert Archive(root).days() == days
    assert found(root) == ["is not searched, as no camera has such a folder"] * 3, "those that are not hidden"


def refused(path: Path) -> Callable[[object], object]:
    """`os.scandir` where `path` must not be read."""
    scandir = os.scandir

    def listed(folder: object) -> object:
        if folder == path:
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)  # type: ignore[call-overload]

    return listed


def test_what_cannot_be_read_is_left_out_and_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for camera, header in (("gate", b""), ("door", b"{}")):
        write_seconds(root, camera, MODEL, [ContextSecond(utc_s=DAY, vision=None, audio=None)])
        (root / "context" / camera / "2026-11-28" / "header.json").write_bytes(header)
    write_seconds(root, "lost+found", MODEL, [ContextSecond(utc_s=DAY, vision=None, audio=None)])
    write_seconds(root, "yard", made_up_model(number=1), [ContextSecond(utc_s=DAY, vision=None, audio=None)])
    monkeypatch.setattr(os, "scandir", refused(root / "context" / "lost+found"))
    listing = Archive(root).listing(model=MODEL.id)
    assert [(day.camera, day.folder.name) for day in listing.days] == [("yard", "2026-11-28")]
    assert [day.folder.name for day in listing.others] == [f"2026-11-28.{1:016x}"]
    assert listing.unreadable == ["door/2026-11-28", "gate/2026-11-28", "lost+found"]
    assert listing.left_out == (
        "1 days of cameras hold vectors of another model and are left out; 3 folders of the archive cannot be read and "
        "are left out, door/2026-11-28 the first of them: 'ovavel archive check' says why"
    )
    assert len(Archive(root).days()) == 2
    assert [each for each in found(root, repair=True) if "cannot be read" in each][-1].endswith("check who may read it")


def test_what_cannot_be_repaired_stays(root: Path) -> None:
    day = root / "context" / "yard" / "2026-11-28"
    (day / "header.json").write_bytes(b"{}")
    (what,) = found(root, repair=True)
    assert "no header that can be read" in what
    assert (day / "vision.i8").stat().st_size == DAY_S * 64


def test_a_copied_day_is_noticed(root: Path) -> None:
    (root / "context" / "yard").rename(root / "context" / "gate")
    assert found(root) == ["has the header of 'yard' on 2026-11-28: was it copied?"]


@pytest.mark.parametrize("name", ["2026-11-28.bak", "2026-11-28 (copy)", f"2026-11-28.{1:016x}"])
def test_a_copy_of_a_day_is_not_searched_and_noticed(root: Path, name: str) -> None:
    days = Archive(root).days()
    shutil.copytree(days[0].folder, days[0].folder.with_name(name))
    assert Archive(root).days() == days
    assert found(root) == ["is not searched, as this is no name of its day: was it copied? Remove it or move it out"]
    assert len([each for each in examine(root) if isinstance(each, Day)]) == 1


def test_a_day_that_is_written_is_not_repaired_and_the_others_are(root: Path) -> None:
    write_seconds(root, "zoo", MODEL, [ContextSecond(utc_s=DAY, vision=None, audio=None)])
    with ArchiveWriter(root, "yard", MODEL) as writer:
        writer.write(ContextSecond(utc_s=DAY, vision=None, audio=None))
        assert found(root, repair=True) == []
        for camera in ("yard", "zoo"):
            overwrite(root / "context" / camera / "2026-11-28" / FLAGS, 700, b"\x01")
        wrong = "1 seconds whose vectors cannot be right"
        findings = [each for each in examine(root, repair=True) if isinstance(each, Finding)]
    assert [(each.what, each.repaired) for each in findings] == [
        (f"{wrong} (not while another process writes to it)", False),
        (wrong, True),
    ]


def test_a_day_that_cannot_be_examined_does_not_end_the_examination(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_seconds(root, "zoo", MODEL, [ContextSecond(utc_s=DAY, vision=None, audio=None)])
    opened = Day.open

    def open_day(day: Day) -> DayReader:
        if day.camera == "yard":
            raise InputError("vision.i8 cannot be read (Input/output error)")
        return opened(day)

    monkeypatch.setattr(Day, "open", open_day)
    bad, good = examine(root)
    assert isinstance(bad, Finding)
    assert bad.what == "cannot be examined (vision.i8 cannot be read (Input/output error))"
    assert isinstance(good, Day)
    assert good.camera == "zoo"


def test_a_day_is_removed_and_who_reads_it_can_finish(root: Path) -> None:
    (day,) = Archive(root).days()
    with day.open() as files:
        before = len(list(files.seconds(0, COUNT)))
        remove_day(day)
        assert Archive(root).days() == []
        assert len(list(files.seconds(0, COUNT))) == before
    assert not list((root / "context" / "yard").iterdir())


def test_a_removal_that_was_cut_short_is_finished(root: Path) -> None:
    day = root / "context" / "yard" / "2026-11-28"
    day.rename(day.with_name(".removed.2026-11-28"))
    assert Archive(root).days() == []
    assert found(root) == ["is left of a day that was removed"]
    found(root, repair=True)
    assert found(root) == []


def test_the_next_removal_finishes_one_that_was_cut_short(root: Path) -> None:
    (day,) = Archive(root).days()
    (day.folder.parent / ".removed.2026-11-27").mkdir()
    (day.folder.parent / ".removed.2026-11-27" / "vision.i8").write_bytes(b"left")
    remove_day(day)
    assert not list(day.folder.parent.iterdir())


def test_a_day_that_is_written_is_not_removed(root: Path) -> None:
    (day,) = Archive(root).days()
    with ArchiveWriter(root, "yard", MODEL) as writer:
        writer.write(ContextSecond(utc_s=DAY, vision=None, audio=None))
        with pytest.raises(OutputError, match="another process does"):
            remove_day(day)


def test_no_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="holds no archive"):
        found(tmp_path)
    assert main(["archive", "check", str(tmp_path / "none")]) == 1
    assert "holds no archive" in capsys.readouterr().err
