"""Sound and frames of a clip as they are read, and every kind of damage to them."""

from __future__ import annotations

import io
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.media_factory import make_clip, tone
from support.ovavebench_factory import DAMAGE, break_clip, write_wav

from ovavel.eval.datasets.check import check_data
from ovavel.eval.datasets.clip_media import KINDS, fit, frame_paths, read_frame, read_sound
from ovavel.eval.datasets.ovavebench import DamagedClip, OVAVEBench
from ovavel.runtime.errors import DatasetError


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
    monkeypatch.setattr(clip_media, "_read_wave", lambda *_: None)
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
    for wanted_hz in (16_000, 48_000):
        read = read_sound(tmp_path / "a.wav", wanted_hz)
        assert read.shape == (channels, 10 * wanted_hz)
        assert np.abs(read - tone(10, wanted_hz))[:, 300:-300].max() < 0.02


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
    with pytest.raises(DamagedClip, match="values that are not numbers"):
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
    with pytest.raises(DamagedClip, match="not an image of a known format"):
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
