"""Annotation files by chance: what is written is read, and anything else in them is an error that names the place."""

from __future__ import annotations

import csv
import io
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovavel.eval.datasets.dataset import Dataset, LabelledEvent
from ovavel.eval.datasets.readers.kinds import open_dataset
from ovavel.eval.datasets.readers.seconds import held_in
from ovavel.eval.datasets.readers.vggsounder import COLUMNS, Labels, parse_vggsounder
from ovavel.runtime.errors import DatasetError

FILES = {
    "ave": ("Annotations.txt", "trainSet.txt", "valSet.txt", "testSet.txt"),
    "llp": ("AVVP_eval_audio.csv", "AVVP_eval_visual.csv", "AVVP_val_pd.csv", "AVVP_test_pd.csv"),
    "unav": ("unav100_annotations.json",),
    "vggsounder": ("vggsounder.csv",),
}
WORDS = ("bell", "dog barking", "Small bell", "train, wagon", "Ü & ß", "other-wise")
LABELS = st.sampled_from(WORDS)
NAMES = st.text("abzAZ09-_", min_size=11, max_size=11)
SPANS = st.tuples(st.integers(0, 9), st.integers(1, 10)).map(lambda x: (x[0], min(10, x[0] + x[1])))
SPLITS = st.sampled_from(("train", "val", "test"))
WHOLE_FILE = re.compile(r"holds no (event|label|video)|name no video|is not UnAV-100's JSON")

Content = Mapping[str, bytes]


def read(kind: str, content: Content) -> Dataset | Labels:
    if kind == "vggsounder":
        return parse_vggsounder(Path("vggsounder.csv"), content["vggsounder.csv"])
    with tempfile.TemporaryDirectory() as folder:
        for name, data in content.items():
            Path(folder, name).write_bytes(data)
        return open_dataset(folder, kind=kind)


def lines(rows: list[tuple[object, ...]], delimiter: str) -> bytes:
    return "\n".join(delimiter.join(map(str, row)) for row in rows).encode()


def ave(events: Mapping[tuple[str, str], tuple[str, list[tuple[int, int]]]]) -> Content:
    """(video, class) → split and seconds of its events."""
    rows = [(label, name, "good", *span) for (name, label), (_, spans) in events.items() for span in spans]
    lists = {
        split: lines([(label, name, "good", 0, 10) for (name, label), (own, _) in events.items() if own == split], "&")
        for split in ("train", "val", "test")
    }
    header = ("Category", "VideoID", "Quality", "StartTime", "EndTime")
    return {
        "Annotations.txt": lines([header, *rows], "&"),
        **{f"{split}Set.txt": data for split, data in lists.items()},
    }


AVE = st.dictionaries(
    st.tuples(NAMES, LABELS.filter(lambda label: "&" not in label)),
    st.tuples(SPLITS, st.lists(SPANS, min_size=1, max_size=3)),
    min_size=1,
    max_size=5,
)


def llp(videos: Mapping[str, tuple[str, list[LabelledEvent], list[LabelledEvent]]]) -> Content:
    """Video → split, what is heard, what is seen."""
    files = {}
    for place, name in enumerate(("AVVP_eval_audio.csv", "AVVP_eval_visual.csv"), 1):
        rows = [(video, each.start_s, each.end_s, each.label) for video, row in videos.items() for each in row[place]]
        files[name] = lines([("filename", "onset", "offset", "event_labels"), *rows], "\t")
    for split in ("val", "test"):
        files[f"AVVP_{split}_pd.csv"] = lines(
            [("filename", "event_labels"), *((video, "bell") for video, row in videos.items() if row[0] == split)], "\t"
        )
    return files


HALVES = st.builds(
    LabelledEvent, LABELS.filter(lambda label: "," not in label), st.integers(0, 19).map(lambda x: x / 2), st.just(10.0)
)
LLP = st.dictionaries(
    NAMES,
    st.tuples(st.sampled_from(("val", "test")), st.lists(HALVES, max_size=3), st.lists(HALVES, max_size=3)),
    min_size=1,
)


def unav(videos: Mapping[str, tuple[str, float, list[LabelledEvent]]]) -> Content:
    """Video → split, duration, events."""
    database = {
        name: {
            "duration": duration_s,
            "subset": {"val": "validation"}.get(split, split),
            "annotations": [{"segment": [each.start_s, each.end_s], "label": each.label} for each in events],
        }
        for name, (split, duration_s, events) in videos.items()
    }
    return {"unav100_annotations.json": json.dumps({"database": database}).encode()}


TIMES = st.floats(0, 30, allow_subnormal=False)
UNAV = st.dictionaries(
    NAMES,
    st.tuples(
        SPLITS,
        st.floats(30.5, 300),
        st.lists(
            st.builds(LabelledEvent, LABELS, TIMES, TIMES).filter(lambda event: event.start_s < event.end_s), max_size=4
        ),
    ),
    min_size=1,
    max_size=4,
)


def vggsounder(labels: Labels) -> Content:
    file = io.StringIO()
    rows = [(clip, *row, "True", "False", "False") for clip, each in labels.items() for row in each.items()]
    csv.writer(file).writerows([COLUMNS, *rows])
    return {"vggsounder.csv": file.getvalue().encode()}


VGGSOUNDER = st.dictionaries(
    st.tuples(NAMES, st.integers(0, 999_999)).map(lambda x: f"{x[0]}_{x[1]:06d}"),
    st.dictionaries(LABELS, st.sampled_from(("A", "V", "AV")), min_size=1),
    min_size=1,
    max_size=4,
)


@settings(deadline=None)
@given(AVE)
def test_ave_is_read_as_it_was_written(events: dict[tuple[str, str], tuple[str, list[tuple[int, int]]]]) -> None:
    found = read("ave", ave(events))
    assert isinstance(found, Dataset)
    assert {(clip.video, clip.category): (clip.split, clip.labels) for clip in found.clips} == {
        key: (split, tuple(int(any(a <= second < b for a, b in spans)) for second in range(10)))
        for key, (split, spans) in events.items()
    }


@settings(deadline=None)
@given(LLP)
def test_llp_is_read_as_it_was_written(
    videos: dict[str, tuple[str, list[LabelledEvent], list[LabelledEvent]]],
) -> None:
    found = read("llp", llp(videos))
    assert isinstance(found, Dataset)
    assert {clip.name: clip.split for clip in found.clips} == {name: row[0] for name, row in videos.items()}
    for clip in found.clips:
        _, heard, seen = videos[clip.name]
        both = zip(held_in(heard, 10), held_in(seen, 10), strict=True)
        assert [set(each) for each in clip.classes] == [set(a) & set(v) for a, v in both]


@settings(deadline=None)
@given(UNAV)
def test_unav_is_read_as_it_was_written(videos: dict[str, tuple[str, float, list[LabelledEvent]]]) -> None:
    found = read("unav", unav(videos))
    assert isinstance(found, Dataset)
    assert not any(clip.label_damage for clip in found.clips)
    assert {name: (each.split, each.duration_s, list(each.events)) for name, each in found.recordings.items()} == videos


@given(VGGSOUNDER)
def test_vggsounder_is_read_as_it_was_written(labels: Labels) -> None:
    assert read("vggsounder", vggsounder(labels)) == labels


SAMPLES: dict[str, st.SearchStrategy[Content]] = {
    "ave": AVE.map(ave),
    "llp": LLP.map(llp),
    "unav": UNAV.map(unav),
    "vggsounder": VGGSOUNDER.map(vggsounder),
}
PIECES = st.one_of(
    st.sampled_from(
        [
            "",
            "\n",
            "\r",
            "\t",
            "&",
            ",",
            '"',
            "\0",
            "\x85",
            "\u2028",
            "\ufeff",
            "nan",
            "inf",
            "-1",
            "1e400",
            "1_0",
            "١",
            "other",
        ]
    ).map(str.encode),
    st.binary(max_size=3),
    st.sampled_from(
        [b"[", b"]", b"{", b"}", b'"a":1,', b"null", b"\xff\xfe", b"\xed\xa0\x80", b"9" * 5000, b"../", b"\\ud800"]
    ),
)


@st.composite
def damaged(draw: Callable[[st.SearchStrategy], object], kind: str) -> Content:
    """The files of a data set, with a few places of one of them replaced."""
    content = dict(draw(SAMPLES[kind]))
    name = draw(st.sampled_from(FILES[kind]))
    data = content[name]
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 8)))
        data = data[:start] + draw(PIECES) + data[end:]
    return {**content, name: data}


@pytest.mark.parametrize("kind", FILES)
@settings(deadline=None, max_examples=150)
@given(st.data())
def test_damage_is_an_error_that_names_the_place_or_is_read(kind: str, data: st.DataObject) -> None:
    content = data.draw(damaged(kind))
    try:
        found = read(kind, content)
    except DatasetError as error:
        message = str(error)
        named = next((name for name in FILES[kind] if name in message), None)
        assert named, message
        if kind == "unav" or WHOLE_FILE.search(message):
            return
        number = re.search(r"line (\d+)", message)
        assert number, message
        assert 1 <= int(number[1]) <= len(content[named].splitlines()) + 1
        return
    if not isinstance(found, Dataset):
        assert read(kind, vggsounder(found)) == found
        return
    usable = [clip for clip in found.clips if not clip.label_damage]
    assert found.clips
    assert all(len(clip.labels) == 10 for clip in usable)
    truth = found.truths(usable)  # every class is one of the names
    assert truth.any(axis=2).all()
    if kind == "unav":
        written = {name: (each.split, each.duration_s, list(each.events)) for name, each in found.recordings.items()}
        again = read(kind, unav(written))
        assert isinstance(again, Dataset)
        assert again.recordings == found.recordings
