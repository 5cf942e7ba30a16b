"""`ovavel localize` over files and folders."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.media_factory import make_clip

from ovavel.runtime.cli import main
from ovavel.runtime.commands.localize import ALL_FORMATS, find_media
from ovavel.runtime.errors import MediaError
from ovavel.runtime.reporting.text import INVISIBLE
from ovavel.runtime.results import FORMATS, read_json

DEMO = Path(__file__).parents[3] / "eval" / "demo" / "assets"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a/clip.mp4", "b/clip.mp4"):
        (tmp_path / name).parent.mkdir()
        make_clip(tmp_path / name, duration_s=3, fps=5)
    (tmp_path / "b" / "notes.txt").write_text("no media")
    return tmp_path


def localize(bundle: Path, *arguments: object) -> int:
    return main(["localize", *map(str, arguments), "--bundle", str(bundle), "--device", "cpu"])


NAMES = (b"B\xe4r.mp4", b"B\xf6r.mp4", b"a\x1b[31mb\nc.mp4", b"x\\y.mp4", b"z\\y.mp4", "犬\u202e.mp4".encode())


@pytest.mark.parametrize(
    "locale", ["LC_ALL=C", "PYTHONIOENCODING=ascii", "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0"]
)
def test_names_of_any_kind_have_results_of_their_own_and_are_never_printed_raw(locale: str, tmp_path: Path) -> None:
    recordings, out = tmp_path / "in", tmp_path / "out"
    recordings.mkdir()
    made = make_clip(tmp_path / "clip.mp4", duration_s=2, fps=5)
    for name in NAMES:
        shutil.copy(os.fsencode(made), os.fsencode(recordings) + b"/" + name)
    (tmp_path / os.fsdecode(b"no\x1b[31mne\xe4.mp4")).write_bytes(b"no media")
    words = [*map(str, (recordings, tmp_path / os.fsdecode(b"no\x1b[31mne\xe4.mp4"))), "--bundle", str(DEMO / "bundle")]
    run = "from ovavel.runtime.cli import main; raise SystemExit(main())"
    settings = dict(each.split("=") for each in locale.split())
    done = subprocess.run(
        [sys.executable, "-c", run, "localize", *words, "--device", "cpu", "--out", str(out)],
        env=os.environ | settings,
        capture_output=True,
        timeout=100,
    )
    assert done.returncode == 1, "one of them is no media"
    assert b"Traceback" not in done.stderr
    for said in (done.stdout, done.stderr):
        assert not INVISIBLE.search(said.decode().replace("\n", ""))
    assert rb"B\xe4r.mp4: 2.0 s" in done.stdout
    assert rb"a\x1b[31mb\nc.mp4: 2.0 s" in done.stdout
    assert rb"no\x1b[31mne\xe4.mp4" in done.stderr
    results = sorted((out / "in").iterdir())
    assert len(results) == len(NAMES) * len(FORMATS)
    for path in results:
        assert not INVISIBLE.search(path.name)
        assert not INVISIBLE.search(path.read_text().replace("\n", ""))
    sources = {read_json(path).source for path in results if path.suffix == ".json"}
    assert len(sources) == len(NAMES)


def test_the_formats_are_those_there_are() -> None:
    assert ALL_FORMATS == FORMATS


def test_a_folder_is_searched_and_every_format_written(
    exported_bundle: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / "out"
    assert localize(exported_bundle, folder, "--out", out) == 0
    for name in ("a", "b"):
        assert len(list((out / name).iterdir())) == len(FORMATS)
        document = read_json(out / name / "clip.mp4.ovavel.json")
        assert len(document.segments) == 3
    assert "clip.mp4: 3.0 s" in capsys.readouterr().out


def test_what_is_done_is_left_alone_until_asked(
    exported_bundle: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, out = folder / "a" / "clip.mp4", folder / "out"
    result = out / "clip.mp4.ovavel.json"
    assert localize(exported_bundle, clip, "--out", out, "--format", "json") == 0
    first = result.stat().st_mtime_ns
    assert localize(exported_bundle, clip, "--out", out, "--format", "json") == 0
    assert result.stat().st_mtime_ns == first
    assert "--overwrite" in capsys.readouterr().out
    assert localize(exported_bundle, clip, "--out", out, "--format", "json", "--overwrite") == 0
    assert result.stat().st_mtime_ns > first


def test_a_bad_file_is_named_and_the_others_are_done(
    exported_bundle: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = folder / "b" / "notes.txt"
    assert localize(exported_bundle, folder / "a", notes, "--out", folder / "out", "--format", "csv") == 1
    captured = capsys.readouterr()
    assert str(notes) in captured.err
    assert "1 of 2" in captured.err
    assert (folder / "out" / "a" / "clip.mp4.ovavel.csv").exists()


def test_a_reader_that_goes_away_does_not_end_the_work(folder: Path) -> None:
    (folder / "c.mp4").write_bytes(b"no media")
    run = "from ovavel.runtime.cli import main; raise SystemExit(main())"
    words = ["localize", str(folder), "--bundle", str(DEMO / "bundle"), "--device", "cpu", "--format", "json"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", run, *words, "--out", str(folder / "out")],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=100,
    )
    os.close(writer)
    assert done.returncode == 1, "one of them is no media"
    assert "1 of 3" in done.stderr
    assert "Traceback" not in done.stderr
    assert all((folder / "out" / name / "clip.mp4.ovavel.json").exists() for name in ("a", "b"))


def test_without_out_nothing_is_written(exported_bundle: Path, folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    assert localize(exported_bundle, folder / "a" / "clip.mp4") == 0
    assert sorted(folder.rglob("*")) == before


def test_no_sound_on_purpose_is_said(exported_bundle: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "out"
    assert localize(exported_bundle, folder / "a" / "clip.mp4", "--no-audio", "--out", out, "--format", "json") == 0
    assert "no sound" in capsys.readouterr().out
    segments = json.loads((out / "clip.mp4.ovavel.json").read_text())["segments"]
    assert all(s["missing"] == ["audio"] and s["label"] == "other" for s in segments)


def test_a_results_folder_that_cannot_be_made_is_said(
    exported_bundle: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = folder / "blocked"
    blocked.write_text("a file, not a folder")
    assert localize(exported_bundle, folder / "a" / "clip.mp4", "--out", blocked) == 1
    assert str(blocked) in capsys.readouterr().err


def test_find_media(folder: Path) -> None:
    assert find_media([folder, folder / "a" / "clip.mp4"]) == [folder / "a" / "clip.mp4", folder / "b" / "clip.mp4"]
    with pytest.raises(MediaError, match=r"there is no file .*gone\.mp4"):
        find_media([folder / "gone.mp4"])
    (folder / "empty").mkdir()
    with pytest.raises(MediaError, match="holds no media"):
        find_media([folder / "empty"])


def test_what_is_no_recording_is_passed_over_and_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (".hidden.mp4", "a/._clip.mp4", ".trash/clip.mp4"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(folder / "a" / "clip.mp4", folder / name)
    os.mkfifo(folder / "pipe.mp4")
    (folder / "gone.mp4").symlink_to(folder / "nowhere.mp4")
    (folder / "link.mp4").symlink_to(folder / "a" / "clip.mp4")
    (folder / "null.mp4").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as listening, contextlib.chdir(folder):  # paths of sockets are short
        listening.bind("socket.mp4")
    said: list[str] = []
    found = find_media([folder], said.append)
    assert [str(file.relative_to(folder)) for file in found] == ["a/clip.mp4", "b/clip.mp4", "link.mp4"]
    assert said == [f"{folder}: skipped 3 hidden, 3 not a regular file, 1 broken link"]
    assert find_media([folder]) == found
    assert "skipped 3 hidden" in capsys.readouterr().err
    assert find_media([folder / ".hidden.mp4"]) == [folder / ".hidden.mp4"], "it was named"


def test_a_limit_on_pixels_leaves_large_recordings_out(
    exported_bundle: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert localize(exported_bundle, folder / "a", "--max-pixels", 100) == 1
    assert "160 × 120 pixels, and 100 pixels are allowed" in capsys.readouterr().err
    assert localize(exported_bundle, folder / "a", "--max-pixels", 160 * 120) == 0


def test_a_reader_that_went_away_is_no_error(exported_bundle: Path, folder: Path) -> None:
    python = f"{sys.executable} -c 'from ovavel.runtime.cli import main; raise SystemExit(main())'"
    command = f"set -o pipefail; {python} localize {folder}/a {folder}/b --bundle {exported_bundle} | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_frame_no_model_can_use_is_named_and_the_others_are_done(
    exported_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strip = make_clip(
        tmp_path / "strip.mkv", duration_s=2, fps=5, picture=lambda t: np.zeros((2000, 16, 3), np.uint8), codec="ffv1"
    )
    good = make_clip(tmp_path / "good.mp4", duration_s=2, fps=5)
    assert localize(exported_bundle, strip, good) == 1
    captured = capsys.readouterr()
    assert "strip.mkv" in captured.err
    assert "good.mp4: 2.0 s" in captured.out
