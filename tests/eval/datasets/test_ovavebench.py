"""The published annotation files, and media that are whole, odd or damaged."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from support.ovavebench_factory import SEEN, UNSEEN

from ovavel.eval.datasets.ovavebench import Clip, DamagedClip, OVAVEBench, to_windows
from ovavel.runtime.errors import DatasetError, UsageError

PUBLISHED = {
    ("train", "seen"): 13_182,
    ("val", "seen"): 1_651,
    ("val", "unseen"): 4_147,
    ("test", "seen"): 1_664,
    ("test", "unseen"): 4_156,
}
"""Clips by split and kind; none of the unseen classes is trained on."""
SECONDS_WITH_EVENT = {10: 10_782, 0: 6_019}
"""How many published clips hold the event throughout, and not at all."""

META, LABELS = "ovave_dataset_meta.csv", "released_ovavel_dataset_anno.json"
TOTAL, TRAIN = "ovave_total_close_open_categories.csv", "ovave_train_close_categories.csv"
QUARTER = "ovave_trainratio0.25_meta.csv"


@pytest.fixture(scope="module")
def published_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Annotation files in the published formats, with the published numbers of classes and clips."""
    folder = tmp_path_factory.mktemp("annotations")
    seen, unseen = [f"seen {i:02}" for i in range(46)], [f"unseen {i:02}" for i in range(21)]
    rows, labels = [], {}
    for (split, kind), count in PUBLISHED.items():
        names = seen if kind == "seen" else unseen
        for i in range(count):
            name, video = names[i % len(names)], f"{split[:2]}{kind[0]}{i:07x}"
            rows.append(f"{split},{name},{'close' if kind == 'seen' else 'open'},{video}")
            bits = [i >> bit & 1 for bit in range(10)]
            labels[video] = {"category": name, "label": str(bits)}
    header = "split,cls_name,cls_type,vid_name"
    (folder / META).write_text("\n".join([header, *rows]))
    (folder / QUARTER).write_text("\n".join([header, *rows[:3_308], *rows[13_182:]]))
    (folder / LABELS).write_text(json.dumps(labels, indent=4))
    (folder / TOTAL).write_bytes("\r\n".join([*seen, *unseen, "other"]).encode())
    (folder / TRAIN).write_bytes("\r\n".join([*seen, "other"]).encode())
    return folder


def check_counts(bench: OVAVEBench) -> None:
    assert len(bench.clips) == 24_800
    assert (len(bench.names), len(bench.seen_names)) == (68, 47)
    assert bench.names[67] == bench.seen_names[46] == "other"
    assert not [clip for clip in bench.clips if clip.label_damage or len(clip.labels) != 10]
    for split in ("train", "val", "test"):
        for kind in ("seen", "unseen"):
            clips = bench.select(split, kind=kind)  # type: ignore[arg-type]
            assert len(clips) == PUBLISHED.get((split, kind), 0)
            assert {clip.seen for clip in clips} <= {kind == "seen"}
    assert len({clip.category for clip in bench.clips if clip.seen}) == 46
    assert len({clip.category for clip in bench.clips if not clip.seen}) == 21
    assert len(bench.select("train", train_ratio=0.25)) == 3_308
    assert len(bench.select("val", train_ratio=0.25)) == 5_798


def test_files_of_the_published_size_open_quickly(published_size: Path) -> None:
    begin_s = time.process_time()
    bench = OVAVEBench.open(published_size)
    assert time.process_time() - begin_s < 1
    check_counts(bench)


@pytest.mark.skipif("OVAVEL_OVAVEBENCH" not in os.environ, reason="OVAVEL_OVAVEBENCH names no annotation files")
def test_the_published_files(tmp_path: Path) -> None:
    begin_s = time.process_time()
    bench = OVAVEBench.open(tmp_path, os.environ["OVAVEL_OVAVEBENCH"])
    assert time.process_time() - begin_s < 1
    check_counts(bench)
    counts = Counter(sum(clip.labels) for clip in bench.clips)
    assert {seconds: counts[seconds] for seconds in SECONDS_WITH_EVENT} == SECONDS_WITH_EVENT
    assert bench.clips[0] == Clip(
        split="train", name="EpxQKLhAP0s", category="people burping", seen=True, labels=(0, 1, 1, 1, 0, 0, 0, 0, 0, 0)
    )
    train = bench.truth(bench.select("train"), bench.seen_names)
    assert train.shape == (13_182, 10)
    assert (train.min(), train.max()) == (0, 46)
    test = bench.truth(bench.select("test"))
    assert (test.min(), test.max()) == (0, 67)
    assert bench.describe_ratio(0.25) == f"the training clips of {QUARTER}"


def replace(file: Path, old: str, new: str, count: int = 1) -> None:
    text = file.read_bytes().decode()
    assert old in text
    file.write_bytes(text.replace(old, new, count).encode())


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (META, "split,cls_name", "split;cls_name", "line 1: the columns are"),
        (META, "train,ambulance siren,close,", "train,ambulance siren,", "line 2: 3 values instead of 4"),
        (META, "train,cat", "training,cat", "line 6: the split is 'training'"),
        (META, "train,cat purring", "train,cat purr", "line 6: the class 'cat purr' is not among"),
        (META, "cat purring,close", "cat purring,closed", "line 6: the class is said to be 'closed'"),
        (META, "cat purring,close", "cat purring,open", "line 6: 'cat purring' is said to be 'open'"),
        (META, "train,cat purring,close", "train,dog barking,open", "line 6: a training clip of the unseen class"),
        (META, "train,cat purring,close", "train,other,close", "line 6: the class 'other'"),
        (META, "close,_tr00000001", "close,-tr00000000", "line 3: -tr00000000 is in line 2 already"),
        (META, "_tr00000001", "../../x", "line 3: '../../x' is not a valid video"),
        (META, "_tr00000001", "", "line 3: '' is not a valid video"),
        (QUARTER, "-tr00000000", "-tr99999999", "-tr99999999 is not a training clip of"),
        (TOTAL, "cat purring", "../cat", "line 2: '../cat' is not a valid class"),
        (TOTAL, "cat purring", "ambulance siren", "line 2: 'ambulance siren' occurs twice"),
        (TRAIN, "cat purring", "cat purrs", "'cat purrs' is not among the classes of"),
        (TRAIN, "other", "background", "'background' is not among the classes of"),
        (TRAIN, "\r\nother", "", "the last line is 'singing bowl', but 'other'"),
        (LABELS, "{", "[", "is not valid JSON"),
    ],
)
def test_malformed_annotations_name_file_and_line(
    annotations: Path, file: str, old: str, new: str, message: str
) -> None:
    replace(annotations / file, old, new)
    with pytest.raises(DatasetError) as caught:
        OVAVEBench.open("media", annotations)
    assert message in str(caught.value)
    assert str(annotations / file) in str(caught.value)


def test_deeply_nested_labels_are_not_json(annotations: Path) -> None:
    (annotations / LABELS).write_text("[" * 100_000)
    with pytest.raises(DatasetError, match="not valid JSON"):
        OVAVEBench.open("media", annotations)


@pytest.mark.parametrize("file", [META, LABELS, TOTAL, TRAIN])
def test_a_missing_or_binary_file_is_reported(annotations: Path, file: str) -> None:
    (annotations / file).write_bytes(b"abc\n\xff\xfe\n")
    with pytest.raises(DatasetError, match=r"line 2: not UTF-8|not valid JSON"):
        OVAVEBench.open("media", annotations)
    (annotations / file).unlink()
    with pytest.raises(DatasetError, match=file):
        OVAVEBench.open("media", annotations)


def test_harmless_differences_of_the_files_change_nothing(annotations: Path) -> None:
    plain = OVAVEBench.open(annotations)
    assert plain.fingerprint == OVAVEBench.open(annotations.parent).fingerprint
    for file in (META, QUARTER, TOTAL, TRAIN):
        text = (annotations / file).read_bytes().decode().replace("\r\n", "\n").rstrip("\n")
        (annotations / file).write_bytes(b"\xef\xbb\xbf" + (text + "\n").replace("\n", "\r\n").encode())
    labels = json.loads((annotations / LABELS).read_text())
    for entry in labels.values():
        entry["label"] = json.loads(entry["label"])  # a list instead of its text
    (annotations / LABELS).write_text(json.dumps(labels))
    odd = OVAVEBench.open("media", annotations)
    assert (odd.names, odd.seen_names, odd.clips) == (plain.names, plain.seen_names, plain.clips)
    assert odd.fingerprint != plain.fingerprint


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        ("[1, 0]", "label of wrong length"),
        ("[]", "label of wrong length"),
        ("[1, 0, 2, 0, 0, 0, 0, 0, 0, 0]", "label unreadable"),
        ("[1, 0, 0.5, 0, 0, 0, 0, 0, 0, 0]", "label unreadable"),
        ("1 0 1 1 1 1 1 1 1 1", "label unreadable"),
        ("[" * 9_999, "label unreadable"),
        ("\ud800", "label unreadable"),
        (7, "label unreadable"),
        (None, "label missing"),
    ],
)
def test_a_damaged_label_damages_one_clip(annotations: Path, label: object, kind: str) -> None:
    labels = json.loads((annotations / LABELS).read_text())
    name = next(iter(labels))
    labels[name]["label"] = label
    if label == "\ud800":
        labels[name]["label"] = "\x00"
    (annotations / LABELS).write_text(json.dumps(labels))
    bench = OVAVEBench.open("media", annotations)
    clip, *others = bench.clips
    assert clip.name == name
    assert clip.label_damage
    assert clip.label_damage[0] == kind
    assert clip.labels == ()
    assert clip in bench.select("train")
    assert not [other for other in others if other.label_damage]
    with pytest.raises(DamagedClip, match=name) as caught:
        bench.media(clip)
    assert caught.value.kind == kind
    with pytest.raises(DatasetError, match=name):
        bench.truth([clip])
    bench.truth(others)


def test_a_label_of_another_class_is_damage(annotations: Path) -> None:
    labels = json.loads((annotations / LABELS).read_text())
    name = next(iter(labels))
    labels[name]["category"] = "race car"
    (annotations / LABELS).write_text(json.dumps(labels))
    damage = OVAVEBench.open("media", annotations).clips[0].label_damage
    assert damage
    assert damage[0] == "label of another class"


def test_splits_kinds_and_truth(annotations: Path) -> None:
    bench = OVAVEBench.open("media", annotations)
    assert bench.names == (*sorted([*SEEN, *UNSEEN]), "other")
    assert bench.seen_names == (*sorted(SEEN), "other")
    assert len(bench.select("train")) == len(bench.select("test", kind="seen")) == 16
    assert len(bench.select("test", kind="unseen")) == 8
    everything = (*bench.select("train"), *bench.select("val"), *bench.select("test"))
    assert everything == bench.clips
    truth = bench.truth(bench.clips)
    for row, clip in zip(truth, bench.clips, strict=True):
        assert [bench.names[index] for index in row] == [clip.category if one else "other" for one in clip.labels]
    train = bench.select("train")
    seen_truth = bench.truth(train, bench.seen_names)
    assert [bench.seen_names[i] for i in seen_truth.flat] == [bench.names[i] for i in bench.truth(train).flat]
    with pytest.raises(DatasetError, match="not among the 5 names"):
        bench.truth(bench.select("val"), bench.seen_names)
    for arguments in ({"split": "dev"}, {"split": "val", "kind": "open"}, {"split": "train", "train_ratio": 0.0}):
        with pytest.raises(UsageError):
            bench.select(**arguments)  # type: ignore[arg-type]


def test_train_ratios(annotations: Path) -> None:
    bench = OVAVEBench.open("media", annotations)
    quarter = bench.select("train", train_ratio=0.25)
    assert Counter(clip.category for clip in quarter) == dict.fromkeys(SEEN, 1)
    half, more = bench.select("train", train_ratio=0.5), bench.select("train", train_ratio=0.75)
    assert Counter(clip.category for clip in half) == dict.fromkeys(SEEN, 2)
    assert Counter(clip.category for clip in more) == dict.fromkeys(SEEN, 3)
    assert set(half) < set(more) < set(bench.select("train"))
    assert list(half) == [clip for clip in bench.clips if clip in half]
    assert bench.select("val", train_ratio=0.5) == bench.select("val")
    assert "not the clips of the paper" in bench.describe_ratio(0.5)
    (annotations / QUARTER).rename(annotations / "ovave_trainratio0.5_meta.csv")
    bench = OVAVEBench.open("media", annotations)
    assert bench.select("train", train_ratio=0.5) == quarter
    assert bench.describe_ratio(0.5) == "the training clips of ovave_trainratio0.5_meta.csv"
    with pytest.raises(DatasetError, match=QUARTER):
        bench.select("train", train_ratio=0.25)


def test_windows_are_the_seconds_of_the_clip(bench: OVAVEBench) -> None:
    clip = bench.clips[2]
    media, windows = bench.media(clip), bench.windows(clip)
    assert [window.index for window in windows] == list(range(10))
    for window in windows:
        assert window.frame is media.frames[window.index] or np.array_equal(window.frame, media.frames[window.index])  # type: ignore[arg-type]
        assert window.waveform is not None
        assert window.waveform.shape == (1, 16_000)
    assert np.array_equal(np.concatenate([w.waveform for w in windows if w.waveform is not None], 1), media.waveform)
    loud = [float(np.abs(w.waveform).mean()) > 0.1 for w in to_windows(media) if w.waveform is not None]
    assert loud == [bool(label) for label in clip.labels]
