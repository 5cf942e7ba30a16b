"""Records of what is done, in a folder that several processes share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.scaled import REQUEST, identity

from ovavel.runtime.errors import InputError, OutputError
from ovavel.runtime.scale.done import Done, Failed, ResultFolder, Summary
from ovavel.runtime.scale.job import Recording
from ovavel.runtime.scale.places import ASIDE


@pytest.fixture
def folder(tmp_path: Path) -> ResultFolder:
    folder = ResultFolder(tmp_path / "out")
    folder.prepare()
    return folder


def recording(tmp_path: Path, name: str = "a/clip.mp4", content: bytes = b"abc") -> Recording:
    path = tmp_path / "in" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return Recording(file=str(path), path=str(path), name=name)


def done(key: str, **outputs: str) -> Done:
    summary = Summary(duration_s=1.0, events={}, lost_s={})
    return Done(id=key, recording="a/clip.mp4", request=REQUEST, outputs=outputs, summary=summary)


def test_the_id_is_of_name_and_content(folder: ResultFolder, tmp_path: Path) -> None:
    first = identity(recording(tmp_path))
    assert first == identity(recording(tmp_path / "copy"))
    assert first != identity(recording(tmp_path, content=b"abd"))
    assert first != identity(recording(tmp_path, name="b/clip.mp4"))


def test_a_record_comes_last_and_replaces_a_failure(folder: ResultFolder, tmp_path: Path) -> None:
    clip = recording(tmp_path)
    key = identity(clip)
    folder.fail(key, clip, "no decoder")
    folder.fail(key, clip, "killed", attempts=3)
    (failed,) = folder.records()
    assert failed == Failed(id=key, recording="a/clip.mp4", cause="killed", attempts=4)
    (folder.place.path / "done" / f"{key}.json").mkdir()  # it cannot be replaced
    with pytest.raises(OutputError):
        folder.write(key, done(key), {Path("a/clip.json"): b"{}"})
    assert (folder.place.path / "a" / "clip.json").read_bytes() == b"{}", "the results came before"
    (folder.place.path / "done" / f"{key}.json").rmdir()
    folder.write(key, done(key), {Path("a/clip.json"): b"{}"})
    assert list(folder.records()) == [done(key)]
    assert folder.done(key) == done(key)
    assert folder.count_done() == 1
    assert not list((folder.place.path / ASIDE).iterdir())


def test_results_that_were_changed_or_removed_are_noticed(folder: ResultFolder) -> None:
    path = Path("é") / os.fsdecode(b"\xff")
    sha256 = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    record = done("key", **{"é/\\xff": sha256})
    folder.write("key", record, {path: b"{}"})
    assert folder.intact(record, [path])
    assert not folder.intact(record, [path, Path("more")])
    (folder.place.path / path).write_bytes(b"[]")
    assert not folder.intact(record, [path])
    (folder.place.path / path).unlink()
    assert not folder.intact(record, [path])


def test_a_damaged_record_is_named(folder: ResultFolder, tmp_path: Path) -> None:
    path = folder.place.path / "done" / "key.json"
    path.write_text("{")
    with pytest.raises(InputError, match=r"key\.json is not a record"):
        folder.done("key")
    failed = folder.place.path / "failed" / "key.json"
    failed.write_text("{")
    folder.fail("key", recording(tmp_path), "no decoder")
    assert b'"attempts": 1' in failed.read_bytes()


def test_what_dead_processes_left_aside_is_removed_a_day_later(folder: ResultFolder) -> None:
    old, new = folder.place.path / ASIDE / ".old.part", folder.place.path / ASIDE / ".new.part"
    for part in (old, new):
        part.write_bytes(b"half")
    os.utime(old, (0, 0))
    folder.prepare()
    assert not old.exists()
    assert new.exists()
