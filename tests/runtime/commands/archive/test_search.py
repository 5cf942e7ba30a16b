"""`ovavel search`, `ovavel relabel`, and `ovavel localize --archive`, as they are typed."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path
from unittest.mock import patch

import pytest
from support.archives import DAY, archive_clip
from support.demo_copies import BUNDLE, CLIP, EVENTS, copy_clip

from ovavel.runtime.archive.reader import Archive
from ovavel.runtime.archive.search.query import Search
from ovavel.runtime.cli import main

DOG = "large dog barking slowly"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("archive")
    archive_clip(root, DAY + 3600)
    archive_clip(root, DAY + 86_400, camera="gate")
    return root


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TZ", "UTC")


def search(root: Path, *words: str) -> int:
    return main(["search", *words, "--archive", str(root), "--bundle", str(BUNDLE)])


def test_json(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert search(root, DOG, "--format", "json", "--camera", "yard") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["complete"], found["seconds"]) == (True, 40)
    best = found["hits"][0]
    assert best | {"score": 0, "seen": 0, "heard": 0, "margin": 0, "probability": 0, "peak": ""} == {
        "phrase": DOG,
        "camera": "yard",
        "start": "2026-11-28T01:00:13+00:00",
        "end": "2026-11-28T01:00:19+00:00",
        "event": True,
        "label": DOG,
        "score": 0,
        "seen": 0,
        "heard": 0,
        "margin": 0,
        "probability": 0,
        "peak": "",
    }
    assert best["probability"] > 0.9, "the bundle was calibrated for its own names"


def test_csv_of_a_phrase_that_nobody_configured(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert search(root, "dog barking", "--format", "csv", "--limit", "3") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 3
    assert [row["probability"] for row in rows] == [""] * 3, "the bundle was not calibrated for it"
    assert {row["camera"] for row in rows if float(row["score"]) > 0} == {"yard", "gate"}
    assert [float(row["score"]) for row in rows] == sorted((float(row["score"]) for row in rows), reverse=True)


def test_a_table(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert search(root, DOG, "large hound", "--from", "2026-11-29", "--to", "2026-11-30", "--limit", "2") == 0
    shown = capsys.readouterr().out
    assert "gate" in shown
    assert "40 seconds searched in 1 of 1 days of cameras" in shown
    assert "yard" not in shown


def test_like_a_second(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert search(root, "--like", "gate@2026-11-29T00:00:15Z", "--format", "json", "--limit", "2") == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    assert {hit["camera"] for hit in hits} == {"yard", "gate"}
    assert [hit["label"] for hit in hits] == [DOG, DOG]


def test_ctrl_c_prints_what_was_found(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = Search.answers

    def interrupted(self: Search) -> object:
        yield next(answers(self))
        raise KeyboardInterrupt

    with patch.object(Search, "answers", interrupted):
        assert search(root, DOG, "--format", "json") == 130
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert (found["complete"], found["seconds"]) == (False, 40)
    assert {hit["camera"] for hit in found["hits"]} == {"gate"}, "the newest day"
    assert "interrupted" in shown.err


def test_phrases_are_embedded_once(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert search(root, "dog barking", "--format", "csv") == 0
    first = capsys.readouterr().out
    with patch("ovavel.runtime.archive.search.phrases.open_backend", side_effect=AssertionError):
        assert search(root, "dog barking", "--format", "csv") == 0
    assert capsys.readouterr().out == first


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "which phrases"),
        ([DOG, "--like", "yard@2026-11-28"], "which phrases"),
        (["--like", "yard"], "CAMERA@TIME"),
        (["--like", "yard@2026-11-28", "--not", "dog"], "--not is for phrases"),
        ([DOG, "--seen-only", "--heard-only"], "leave nothing"),
        ([DOG, "--from", "yesterday"], "--from takes a date"),
        ([DOG, "--from", "2026-11-29", "--to", "2026-11-28"], "is not before"),
        ([DOG, "--limit", "0"], "--limit takes a number"),
        (["other"], "the background"),
        (["dog", "Dog"], "same name"),
    ],
)
def test_what_makes_no_sense_is_refused(
    root: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search(root, *words) == 2
    assert message in capsys.readouterr().err


def test_no_such_camera(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert search(root, DOG, "--camera", "door") == 1
    assert "has no camera 'door'; it has gate, yard" in capsys.readouterr().err


def test_relabel_gives_the_events_of_the_clip(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["relabel", "--archive", str(root), "--bundle", str(BUNDLE), "--camera", "gate", "--format", "json"]
    assert main(arguments) == 0
    shown = capsys.readouterr()
    events = json.loads(shown.out)["events"]
    assert [(each["start"][14:19], each["end"][14:19], each["label"]) for each in events] == [
        (f"00:{start:02.0f}", f"00:{end:02.0f}", label) for start, end, label in EVENTS
    ]
    assert re.search(r"6 events in 40 seconds; rounding may have decided \d of them", shown.err)


def test_a_day_that_cannot_be_read_ends_nothing_and_is_named(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(root, tmp_path / "copy")
    (copy / "context" / "yard" / "2026-11-28" / "header.json").write_bytes(b"")
    left_out = "1 folders of the archive cannot be read and are left out, yard/2026-11-28 the first of them"
    assert search(copy, DOG) == 0
    shown = capsys.readouterr()
    assert left_out in shown.err
    assert "40 seconds searched in 1 of 1 days" in shown.out
    assert main(["relabel", "--archive", str(copy), "--bundle", str(BUNDLE)]) == 0
    assert left_out in capsys.readouterr().err.replace("\n", " ")


def test_relabel_with_other_names(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "names.txt").write_text("# mine\ndog barking\nsmall bell ringing quickly\nother\n", "utf-8")
    arguments = ["relabel", "--archive", str(root), "--bundle", str(BUNDLE), "--camera", "gate", "--format", "csv"]
    assert main([*arguments, "--vocabulary", str(tmp_path / "names.txt"), "--start-margin", "0.05"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {row["label"] for row in rows} == {"dog barking", "small bell ringing quickly"}
    assert all(float(row["margin"]) >= 0.05 for row in rows)
    (tmp_path / "names.txt").write_text("\n", "utf-8")
    assert main([*arguments, "--vocabulary", str(tmp_path / "names.txt")]) == 2
    assert main([*arguments, "--fusion", "av2a"]) == 2
    assert main([*arguments, "--to", "2020-01-01"]) == 1


def localize(root: Path, *words: str) -> int:
    return main(["localize", *words, "--bundle", str(BUNDLE), "--archive", str(root)])


def test_a_recording_is_archived_at_its_creation_time(tmp_path: Path) -> None:
    clip = copy_clip(tmp_path / "garden.mp4")
    stamped = tmp_path / "garden gate.mp4"
    _stamp(clip, stamped, "2026-05-01T23:59:50.700000Z")
    assert localize(tmp_path / "a", str(stamped)) == 0
    days = Archive(tmp_path / "a").days()
    assert [(day.camera, str(day.day)) for day in days] == [
        ("garden gate", "2026-05-02"),
        ("garden gate", "2026-05-01"),
    ]
    with days[1].open() as files:
        assert [second.utc_s - days[1].start_s for second in files.seconds(0, 86_400)] == list(range(86_390, 86_400))


def _stamp(source: Path, out: Path, created: str) -> None:
    import av

    with av.open(str(source)) as media, av.open(str(out), "w") as copy:
        copy.metadata["creation_time"] = created
        streams = {stream.index: copy.add_stream_from_template(stream) for stream in media.streams}
        for packet in media.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                copy.mux(packet)


def test_a_recording_without_a_date_needs_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert localize(tmp_path, str(CLIP)) == 1
    assert "give --start" in capsys.readouterr().err
    assert localize(tmp_path, str(CLIP), "--start", "2026-05-01T10:00", "--camera", "yard") == 0
    assert Archive(tmp_path).cameras() == ["yard"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--start", "soon"], "--start takes a date"),
        (["--shard", "1/2", "--out", "results"], "--archive is for one process"),
        ([str(CLIP.parent / "truth.json"), "--start", "2026-05-01"], "--start is for one recording"),
    ],
)
def test_options_of_the_archive_that_make_no_sense(
    tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert localize(tmp_path / "a", str(CLIP), *words) in (1, 2)
    assert message in capsys.readouterr().err
    assert main(["localize", str(CLIP), "--bundle", str(BUNDLE), "--camera", "yard"]) == 2
    assert "--camera and --start are for --archive" in capsys.readouterr().err
