"""AVE, LLP and UnAV-100: what their files mean, and what is said of files that are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.demo_copies import BUNDLE, EVENTS
from support.other_datasets import LABELS, make_ave, make_llp, make_unav

from ovavel.eval.datasets.clip_media import DamagedClip
from ovavel.eval.datasets.dataset import LabelledEvent
from ovavel.eval.datasets.readers.kinds import open_dataset
from ovavel.runtime.cli import main
from ovavel.runtime.errors import DatasetError

MAKE = {"ave": make_ave, "llp": make_llp, "unav": make_unav}


def test_each_class_of_an_ave_video_is_a_clip(tmp_path: Path) -> None:
    found = open_dataset(make_ave(tmp_path), kind="ave")
    assert found.names == (*sorted(LABELS[:2]), "other")
    clips = found.select("test")
    assert [clip.name for clip in clips] == [f"-test_0&{label}" for label in LABELS[:2]]
    assert [clip.labels for clip in clips] == [(1,) * 4 + (0,) * 6, (0,) * 7 + (1,) * 3]
    assert found.truth(clips).tolist() == [[0] * 4 + [2] * 6, [2] * 7 + [1] * 3]
    assert not found.overlapping


def test_lists_of_ave_may_name_videos_alone_and_hold_a_clip_twice(tmp_path: Path) -> None:
    make_ave(tmp_path)
    (tmp_path / "valSet.txt").write_text("-val_0\n\n-test_0\n")
    (tmp_path / "trainSet.txt").write_text("")
    found = open_dataset(tmp_path, kind="ave")
    assert len(found.select("val")) == 4
    assert found.notes == (
        "2 annotated clips are in none of the lists of splits",
        "2 clips are in several lists of splits; the first one counts",
    )


def test_videos_that_are_not_there_any_more_are_not_media(tmp_path: Path) -> None:
    found = open_dataset(make_ave(tmp_path / "ave"), kind="ave")
    found.check_media()
    (tmp_path / "ave").rename(tmp_path / "away")
    with pytest.raises(DatasetError, match="holds none of the videos"):
        found.check_media()


def test_an_llp_event_is_both_heard_and_seen(tmp_path: Path) -> None:
    found = open_dataset(make_llp(tmp_path), kind="llp")
    assert found.names == ("Car", "Dog", "Small bell", "other")
    assert found.overlapping
    truth = found.truths(found.select("test"))[0]
    assert np.flatnonzero(truth[:, 1]).tolist() == [2, 3, 4]
    assert np.flatnonzero(truth[:, 2]).tolist() == [1, 2, 3]
    assert np.flatnonzero(truth[:, 3]).tolist() == [0, 5, 6, 7, 8, 9]
    assert not truth[:, 0].any()
    assert all(len(found.windows(clip)) == 10 for clip in found.clips)
    with pytest.raises(DatasetError, match="may overlap"):
        found.truth(found.clips)


def test_unav_is_cut_into_windows_and_its_events_overlap(tmp_path: Path) -> None:
    found = open_dataset(make_unav(tmp_path), kind="unav")
    clips = found.select("val")
    assert [(clip.name, clip.start_s) for clip in clips] == [
        (f"v_validation@{start}", start) for start in (0, 10, 20, 30)
    ]
    truth = found.truths(clips)
    assert truth.shape == (4, 10, len(LABELS) + 1)
    assert truth[0].sum(axis=1).max() == 2
    assert (truth.any(axis=2)).all()
    windows = [window for clip in clips for window in found.windows(clip)]
    assert len(windows) == 40
    again = found.windows(clips[2])  # backwards: the video is read again
    assert np.array_equal(again[3].frame, windows[23].frame)
    assert np.array_equal(again[3].waveform, windows[23].waveform)


def test_unav_keeps_the_times_of_whole_videos(tmp_path: Path) -> None:
    found = open_dataset(make_unav(tmp_path), kind="unav")
    recording = found.recordings["v_test"]
    assert (recording.split, recording.duration_s, recording.seconds) == ("test", 40.0, 40)
    assert LabelledEvent(LABELS[1], 1.2, 5.1) in recording.events
    assert len(recording.events) == len(EVENTS) + 1
    assert not open_dataset(make_ave(tmp_path / "ave"), kind="ave").recordings


def test_a_part_of_the_clips_is_no_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_unav(tmp_path)
    given = ["--data", str(tmp_path), "--dataset", "unav", "--bundle", str(BUNDLE), "--clips", "3"]
    assert main(["eval", "score", *given, "--protocols", "agreement"]) == 0
    assert "0 events in 0 whole recordings; 1 left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "file", "old", "new", "message"),
    [
        ("ave", "Annotations.txt", "&good&0&4", "&good&0", "line 2: 4 values instead of 5"),
        ("ave", "Annotations.txt", "&", "\t", "line 1: 1 values instead of 5"),
        ("ave", "Annotations.txt", "good&0&4", "good&zero&4", "line 2: 'zero' is not a time"),
        ("ave", "Annotations.txt", "&-train_0&", "&../x&", "line 2: '../x' is not a valid video"),
        ("ave", "Annotations.txt", "&-train_0&good", "&-train_0\0&good", "line 2: there are NUL bytes"),
        ("ave", "testSet.txt", "-test_0", "-test_1", "line 1: the video '-test_1' is not in Annotations.txt"),
        ("ave", "testSet.txt", LABELS[0], "piano", "line 1: the video '-test_0' has no event of the class 'piano'"),
        ("llp", "AVVP_eval_audio.csv", "\t", ",", "line 1: 1 values instead of 4"),
        ("llp", "AVVP_eval_visual.csv", "Dog", "", "line 3: '' is not the name of a class"),
        ("unav", "unav100_annotations.json", '"validation"', '"vali"', "the subset is 'vali'"),
        ("unav", "unav100_annotations.json", "40.0", "-1.0", "a duration of -1 s is impossible"),
        ("unav", "unav100_annotations.json", "{", "[", "is not UnAV-100's JSON"),
        ("unav", "unav100_annotations.json", "40.0", '"40"', "is not UnAV-100's JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, kind: str, file: str, old: str, new: str, message: str) -> None:
    MAKE[kind](tmp_path)
    text = (tmp_path / file).read_text()
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new))
    with pytest.raises(DatasetError) as error:
        open_dataset(tmp_path, kind=kind)
    assert message in str(error.value)
    assert str(tmp_path / file) in str(error.value)


@pytest.mark.parametrize("kind", MAKE)
def test_missing_files_and_other_kinds_are_named(tmp_path: Path, kind: str) -> None:
    MAKE[kind](tmp_path)
    with pytest.raises(DatasetError, match=f"give --dataset {kind}"):
        open_dataset(tmp_path)
    for file in [*tmp_path.glob("*.txt"), *tmp_path.glob("*.csv"), *tmp_path.glob("*.json")]:
        data = file.read_bytes()
        file.unlink()
        with pytest.raises(DatasetError, match=file.name):
            open_dataset(tmp_path, kind=kind)
        file.write_bytes(data)


@pytest.mark.parametrize("kind", MAKE)
def test_an_event_that_cannot_be_damages_its_clip_alone(tmp_path: Path, kind: str) -> None:
    MAKE[kind](tmp_path)
    file, old, new = {
        "ave": ("Annotations.txt", "-val_0&good&0&4", "-val_0&good&4&4"),
        "llp": ("AVVP_eval_audio.csv", "abcdefghijk_30_40\t0\t4", "abcdefghijk_30_40\t0\tnan"),
        "unav": ("unav100_annotations.json", "[1.2, 5.1]", "[5.1, 1.2]"),
    }[kind]
    text = (tmp_path / file).read_text()
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new, 1))
    found = open_dataset(tmp_path, kind=kind)
    damaged = [clip for clip in found.clips if clip.label_damage]
    assert {clip.split for clip in damaged} == {"train" if kind == "unav" else "val"}
    assert len(damaged) < len(found.clips)
    with pytest.raises(DamagedClip, match=file) as error:
        found.windows(damaged[0])
    assert error.value.kind == "label unreadable"


@pytest.mark.parametrize("kind", MAKE)
def test_what_is_not_read_is_noted(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    MAKE[kind](tmp_path / "data")
    for video in sorted(tmp_path.rglob("*.mp4"))[:2]:
        video.with_name(f"._{video.name}").write_bytes(b"side file")
        video.with_name("._another.mp4").write_bytes(b"beside a file that is not ours")
    file, more, notes = {
        "ave": ("Annotations.txt", "piano&-test_0&good&0&4", ["1 annotated clips are in none of the lists of splits"]),
        "llp": ("AVVP_test_pd.csv", "abcdefghijk_30_40\tDog", ["1 videos are listed twice; the first one counts"]),
        "unav": ("unav100_annotations.json", "", []),
    }[kind]
    with (tmp_path / "data" / file).open("a") as annotations:
        annotations.write(f"\n{more}")
    found = open_dataset(tmp_path / "data", kind=kind)
    assert list(found.notes) == [*notes, "2 side files of media (._*) are not read"]
    given = ["--data", str(tmp_path / "data"), "--dataset", kind, "--workers", "1", "--out", str(tmp_path / "check")]
    assert main(["eval", "data", *given]) == 0
    shown = capsys.readouterr().out
    assert [line for line in shown.splitlines() if line.startswith("note: ")] == [
        f"note: {each}" for each in found.notes
    ]
    assert json.loads((tmp_path / "check/check-data.json").read_text())["notes"] == list(found.notes)


@pytest.mark.parametrize("kind", MAKE)
def test_data_and_scores_end_to_end(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    MAKE[kind](tmp_path / "data")
    given = ["--data", str(tmp_path / "data"), "--dataset", kind]
    assert main(["eval", "data", *given, "--workers", "1"]) == 0
    assert "nothing is damaged" in capsys.readouterr().out
    if kind == "llp":
        return  # its classes are not those that the demo's bundle knows
    out = tmp_path / "out"
    asked = ["--bundle", str(BUNDLE), "--rules", "agreement", "--out", str(out)]
    assert main(["eval", "score", *given, *asked]) == 0
    report = json.loads((out / "ovave-test.json").read_text())
    assert report["dataset"]["scored"] == (4 if kind == "unav" else 2)
    assert 0 < report["results"][0]["total"]["acc"] <= 1
    printed, page = capsys.readouterr().out, (out / "ovave-test.html").read_text()
    csv = (out / "ovave-test.csv").read_text()
    if kind != "unav":
        assert "detection" not in report
        assert "mAP" not in printed + page + csv
        return
    found = report["detection"]
    assert (found["recordings"], found["left_out"], found["events"]) == (1, 0, len(EVENTS) + 1)
    assert [each["method"] for each in found["results"]] == [each["method"] for each in report["results"]]
    best = found["results"][0]
    assert 0.2 < best["average"] <= best["map"]["0.1"] <= 1  # the demo's bundle knows its clip
    assert best["average"] == pytest.approx(sum(best["map"].values()) / 9)
    assert best["average"] == pytest.approx(sum(best["classes"].values()) / len(LABELS))
    for place in (printed, page):
        assert "mAP at temporal IoU" in place
        assert f"{len(EVENTS) + 1} events in 1 whole recordings" in place
        assert f"{100 * best['average']:.1f}" in place
    assert f"no,recordings,mAP,{best['average']},," in csv
