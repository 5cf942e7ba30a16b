"""The published annotation files, and media that are whole, odd or damaged."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.media_factory import make_clip, tone
from support.ovavebench_factory import DAMAGE, SEEN, UNSEEN, break_clip, make_bench, write_wav

from ovavel.eval.datasets.check import check_data
from ovavel.eval.datasets.clip_media import KINDS, fit, frame_paths, read_frame, read_sound
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


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    """Annotation files, to be changed at will."""
    return make_bench(tmp_path / "annotated", clips=4, media=False) / "annotations"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dataset that is undamaged. Do not change it."""
    return make_bench(tmp_path_factory.mktemp("whole") / "bench", clips=1)


@pytest.fixture
def bench(tmp_path: Path, whole: Path) -> OVAVEBench:
    """Copy of the dataset, to be changed at will."""
    return OVAVEBench.open(shutil.copytree(whole, tmp_path / "bench"))


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
        (META, "_tr00000001", "../../x", "line 3: '../../x' is no name of a video"),
        (META, "_tr00000001", "", "line 3: '' is no name of a video"),
        (QUARTER, "-tr00000000", "-tr99999999", "-tr99999999 is not a training clip of"),
        (TOTAL, "cat purring", "../cat", "line 2: '../cat' is no name of a class"),
        (TOTAL, "cat purring", "ambulance siren", "line 2: 'ambulance siren' is there twice"),
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


def test_labels_that_are_nested_without_end_are_no_json(annotations: Path) -> None:
    (annotations / LABELS).write_text("[" * 100_000)
    with pytest.raises(DatasetError, match="not valid JSON"):
        OVAVEBench.open("media", annotations)


@pytest.mark.parametrize("file", [META, LABELS, TOTAL, TRAIN])
def test_a_missing_or_binary_file_is_told(annotations: Path, file: str) -> None:
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


@given(n=st.integers(1, 200_000), channels=st.integers(1, 2))
@settings(max_examples=30, deadline=None)
def test_sound_is_cut_or_padded_to_ten_seconds(n: int, channels: int) -> None:
    waveform = np.ones((channels, n), np.float32)
    fitted = fit(waveform)
    assert fitted.shape == (channels, 160_000)
    assert fitted.sum() == channels * min(n, 160_000)
    assert fitted[:, : min(n, 160_000)].all()


@pytest.mark.parametrize("channels", [1, 2])
def test_the_fast_path_reads_what_ffmpeg_reads(tmp_path: Path, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from ovavel.eval.datasets import clip_media

    path = tmp_path / "a.wav"
    write_wav(path, np.random.default_rng(0).uniform(-1, 1, (channels, 23_456)).astype(np.float32))
    fast = read_sound(path)
    monkeypatch.setattr(clip_media, "_read_wave", lambda _: None)
    slow = read_sound(path)
    assert fast.shape == slow.shape == (channels, 23_456)
    assert np.array_equal(fast, slow)


@pytest.mark.parametrize(
    ("codec", "sample_format", "rate_hz", "channels"),
    [
        ("pcm_s16le", "s16", 44_100, 2),
        ("pcm_s16le", "s16", 8_000, 1),
        ("pcm_f32le", "flt", 16_000, 1),
        ("pcm_s24le", "s32", 48_000, 2),
        ("pcm_u8", "u8", 16_000, 1),
    ],
)
def test_other_rates_and_formats(tmp_path: Path, codec: str, sample_format: str, rate_hz: int, channels: int) -> None:
    wave = tone(12, rate_hz, channels=channels)
    scale, offset, kind = {
        "s16": (32767, 0, "i2"),
        "flt": (1, 0, "f4"),
        "s32": (2**31 - 1, 0, "i4"),
        "u8": (127, 128, "u1"),
    }[sample_format]
    make_clip(
        tmp_path / "a.wav",
        video=False,
        waveform=(wave.astype(np.float64) * scale + offset).astype(kind),
        rate_hz=rate_hz,
        audio_codec=codec,
        audio_format=sample_format,
    )
    read = read_sound(tmp_path / "a.wav")
    assert read.shape == (channels, 160_000)
    assert np.abs(read - tone(10, 16_000))[:, 100:-100].max() < 0.02


@pytest.mark.parametrize(
    ("container", "codec", "sample_format"),
    [("wav", "pcm_f32le", "flt"), ("flac", "flac", "s16"), ("mkv", "aac", "fltp"), ("mp4", "aac", "fltp")],
)
@pytest.mark.parametrize("rate_hz", [8_000, 48_000])
def test_a_short_clip_of_another_format_is_whole(
    tmp_path: Path, container: str, codec: str, sample_format: str, rate_hz: int
) -> None:
    wave = tone(2, rate_hz)
    waveform = (wave * 32767).astype("i2") if sample_format == "s16" else wave
    made = make_clip(
        tmp_path / f"a.{container}",
        video=False,
        waveform=waveform,
        rate_hz=rate_hz,
        audio_codec=codec,
        audio_format=sample_format,
    )
    path = made.rename(tmp_path / "a.wav")
    assert read_sound(path).shape[1] == pytest.approx(32_000, abs=2_048)  # whole blocks of AAC


def test_an_unknown_length_is_no_truncation(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, tone(2, 16_000))
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"  # as FFmpeg writes to a pipe
    path.write_bytes(data)
    assert read_sound(path).shape == (1, 32_000)


def test_a_wav_cut_anywhere_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    for rate_hz in (16_000, 44_100):
        write_wav(path, tone(3, rate_hz), rate_hz)
        data = path.read_bytes()
        for length in (0, 1, 20, 43, 44, 46, 1_000, len(data) // 2, int(len(data) * 0.9)):
            path.write_bytes(data[:length])
            with pytest.raises(DamagedClip) as caught:
                read_sound(path)
            assert caught.value.kind in ("sound unreadable", "sound truncated", "sound empty")


def test_sound_that_is_not_finite_is_damaged(tmp_path: Path) -> None:
    wave = tone(1, 16_000)
    wave[0, 5_000] = np.nan
    make_clip(tmp_path / "a.wav", video=False, waveform=wave, audio_codec="pcm_f32le", audio_format="flt")
    with pytest.raises(DamagedClip, match="no numbers"):
        read_sound(tmp_path / "a.wav")


_PIXELS = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def encoded(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(_PIXELS).save(file, kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


@pytest.mark.parametrize("data", [encoded("JPEG"), encoded("JPEG", progressive=True), encoded("PNG")])
@given(share=st.floats(0, 1, exclude_max=True))
@settings(max_examples=60, deadline=None)
def test_an_image_cut_anywhere_is_damaged_or_whole(
    data: bytes, share: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.img"
    path.write_bytes(data)
    whole = read_frame(path)
    path.write_bytes(data[: int(share * len(data))])
    try:
        assert np.array_equal(read_frame(path), whole)
    except DamagedClip as error:
        assert error.kind in ("frame truncated", "frame unreadable")  # noqa: PT017 - whole or damaged, both are right


def test_frames_in_name_order_without_what_is_no_image(bench: OVAVEBench) -> None:
    folder = bench.frames_dir(bench.clips[0])
    frames = bench.media(bench.clips[0]).frames
    (folder / "9.jpg").rename(folder / "05.jpg")
    for extra in (".DS_Store", "Thumbs.db", "._0.jpg"):
        (folder / extra).write_bytes(b"x")
    moved = bench.media(bench.clips[0]).frames
    for at, index in enumerate((0, 9, 1, 2, 3, 4, 5, 6, 7, 8)):
        assert np.array_equal(moved[at], frames[index])
    Image.fromarray(_PIXELS[..., 0]).save(folder / "05.jpg")
    assert bench.media(bench.clips[0]).frames[1].shape == (40, 56, 3)


@given(
    first=st.integers(0, 120),
    step=st.integers(1, 40),
    before=st.sampled_from(["", "frame-", "-_te00000001_", "img (7) "]),
    after=st.sampled_from(["", " of 10", "_x"]),
    width=st.integers(0, 4),
)
def test_numbered_frames_are_in_the_order_of_their_numbers(
    first: int, step: int, before: str, after: str, width: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    names = [f"{before}{first + step * place:0{width}}{after}.png" for place in range(10)]
    folder = tmp_path_factory.mktemp("frames")
    for name in reversed(names):
        (folder / name).write_bytes(b"")
    assert [path.name for path in frame_paths(folder)] == names


def test_frames_in_no_clear_order_are_refused(tmp_path: Path) -> None:
    for place in range(10):
        (tmp_path / f"{place + 1}-{10 - place}.png").write_bytes(b"")
    with pytest.raises(DamagedClip, match="as many digits") as caught:
        frame_paths(tmp_path)
    assert caught.value.kind == "frame order unclear"
    assert caught.value.kind in KINDS


@pytest.mark.timeout(30)
def test_pipes_sockets_and_devices_are_never_read(bench: OVAVEBench) -> None:
    clip = bench.clips[0]
    folder, sound = bench.frames_dir(clip), bench.audio_path(clip)
    os.mkfifo(folder / "00.jpg")
    (folder / "01.png").symlink_to("/dev/zero")
    assert len(bench.media(clip).frames) == 10, "they are no images"
    (folder / "9.jpg").unlink()
    os.mkfifo(folder / "9.jpg")
    with pytest.raises(DamagedClip, match=r"9 images instead of 10 \(3 more are no files\)"):
        bench.media(clip)
    with pytest.raises(DamagedClip, match="is a pipe"):
        read_frame(folder / "9.jpg")
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        sound.unlink()
        make(sound)
        with pytest.raises(DamagedClip, match=r"is a pipe|is a device") as caught:
            bench.media(clip)
        assert caught.value.kind == "sound unreadable"
    report = check_data(bench, workers=1)
    assert [each.name for each in report.damaged] == [clip.name]
    labels = bench.root / "annotations" / "released_ovavel_dataset_anno.json"
    labels.unlink()
    os.mkfifo(labels)
    with pytest.raises(DatasetError, match="is a pipe"):
        OVAVEBench.open(bench.root)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp"])
def test_large_images_are_damage_before_they_are_decoded(
    suffix: str, bench: OVAVEBench, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    file = bench.frames_dir(bench.clips[0]) / f"9.{suffix}"
    (file.parent / "9.jpg").unlink()
    Image.new("RGB", (60, 50)).save(file)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2_900)  # Pillow warns of it
    monkeypatch.setenv("OVAVEL_MAX_PIXELS", "3000")
    assert bench.media(bench.clips[0]).frames[9].shape == (50, 60, 3)
    for ours, pillows in (("2999", 2_900), ("3000", 1_400)):  # Pillow refuses it
        monkeypatch.setenv("OVAVEL_MAX_PIXELS", ours)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows)
        with pytest.raises(DamagedClip, match="pixels") as caught:
            bench.media(bench.clips[0])
        assert caught.value.kind == "frame too large"
    assert not recwarn.list


@pytest.mark.parametrize("kind", ["EPS", "TIFF", "PDF", "ICO"])
def test_an_image_of_another_kind_is_not_opened_whatever_its_name(kind: str, bench: OVAVEBench) -> None:
    file = bench.frames_dir(bench.clips[0]) / "9.jpg"
    Image.new("RGB", (16, 16)).save(file, kind)
    with pytest.raises(DamagedClip, match="no image of a known format"):
        bench.media(bench.clips[0])


@pytest.mark.parametrize("kind", DAMAGE)
def test_each_kind_of_damage_is_found(bench: OVAVEBench, kind: str) -> None:
    break_clip(bench.root, bench.clips[1], kind)
    bench = OVAVEBench.open(bench.root)
    with pytest.raises(DamagedClip) as caught:
        bench.windows(bench.clips[1])
    assert caught.value.kind == kind
    assert bench.clips[1].name in str(caught.value)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.kind, str(copy)) == (kind, str(caught.value))
    bench.windows(bench.clips[0])


def test_extra_frames_and_files_in_place_of_folders_are_damage(bench: OVAVEBench) -> None:
    def kind_after(change: Callable[[Path], object]) -> str:
        folder = bench.frames_dir(bench.clips[3])
        change(folder)
        with pytest.raises(DamagedClip) as caught:
            bench.media(bench.clips[3])
        return caught.value.kind

    assert kind_after(lambda folder: shutil.copy(folder / "0.jpg", folder / "a.JPG")) == "wrong number of frames"
    assert kind_after(lambda folder: (shutil.rmtree(folder), folder.write_bytes(b""))) == "no frames folder"
    sound = bench.audio_path(bench.clips[3])
    assert kind_after(lambda _: (sound.unlink(), sound.mkdir())) == "sound unreadable"
    assert set(DAMAGE) <= set(KINDS)
