"""Preprocessing equals what the published weights were trained with."""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovavel.runtime.errors import UsageError
from ovavel.runtime.pipeline.preprocess import crop_frame, prepare_frame, prepare_waveform

GOLDEN = Path(__file__).parents[2] / "golden"
IMAGE = json.loads((GOLDEN / "image.json").read_text())
MEL = np.load(GOLDEN / "mel.npz")


def rng(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(f"dev:{name}".encode()))


def golden_frame(height: int, width: int) -> np.ndarray:
    r = rng(f"img{height}x{width}")
    small = r.integers(0, 256, (max(2, height // 24), max(2, width // 24), 3), dtype=np.uint8)
    big = np.kron(small, np.ones((24, 24, 1), np.uint8))[:height, :width]
    big = np.pad(big, ((0, height - big.shape[0]), (0, width - big.shape[1]), (0, 0)), mode="edge")
    return (big.astype(np.int16) + r.integers(-9, 10, big.shape, dtype=np.int16)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", IMAGE)
def test_crop_is_the_published_one(size: str) -> None:
    crop = crop_frame(golden_frame(*map(int, size.split("x"))))
    np.testing.assert_array_equal(crop[::32, ::32], IMAGE[size]["every_32nd"])
    assert hashlib.sha256(crop.tobytes()).hexdigest() == IMAGE[size]["sha256"]


def test_colours_are_normalised_by_channel() -> None:
    frame = np.zeros((224, 224, 3), np.uint8)
    frame[..., 0] = 255
    prepared = prepare_frame(frame)
    assert prepared.shape == (3, 224, 224)
    assert prepared.dtype == np.float32
    expected = [(1 - 0.48145466) / 0.26862954, -0.4578275 / 0.26130258, -0.40821073 / 0.27577711]
    for channel, value in enumerate(expected):
        np.testing.assert_allclose(prepared[channel], value, rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 300), width=st.integers(1, 300), seed=st.integers(0, 99))
def test_any_size_gives_a_square_that_is_cropped_no_further(height: int, width: int, seed: int) -> None:
    frame = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    if max(height, width) > 100 * min(height, width):
        with pytest.raises(UsageError, match="100 times"):
            crop_frame(frame)
        return
    crop = crop_frame(frame)
    assert crop.shape == (224, 224, 3)
    assert crop.dtype == np.uint8
    np.testing.assert_array_equal(prepare_frame(frame), prepare_frame(crop))


def test_the_crop_is_centred() -> None:
    frame = np.zeros((224, 424, 3), np.uint8)
    frame[:, 100:324] = 255
    assert (crop_frame(frame) == 255).all()
    assert (crop_frame(frame.transpose(1, 0, 2)) == 255).all()


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
        [[0]],
    ],
)
def test_a_frame_of_another_kind_is_refused_with_its_shape(frame: object) -> None:
    shape = str(frame.shape) if isinstance(frame, np.ndarray) else "list"
    with pytest.raises(UsageError) as caught:
        prepare_frame(frame)
    assert shape in str(caught.value)


@pytest.mark.parametrize("name", [key[5:] for key in MEL if key.startswith("wave_")])
def test_log_mel_is_the_published_one(name: str) -> None:
    error = np.abs(prepare_waveform(MEL[f"wave_{name}"]) - MEL[f"mel_{name}"])
    assert error.max() <= 5e-3
    assert error.mean() <= 1e-4


def test_log_mels_of_a_short_stereo_clip() -> None:
    clip = (0.2 * rng("clip").standard_normal(tuple(MEL["clip_shape"]))).astype(np.float32)
    clip[1] *= np.float32(0.3)
    clip = np.pad(clip, ((0, 0), (0, 160_000 - clip.shape[1])))
    for segment, expected in zip(np.split(clip, 10, axis=1), MEL["clip_mel_stats"], strict=True):
        mel = prepare_waveform(segment)
        np.testing.assert_allclose([mel.mean(), mel.std(), mel[0, 5, 7], mel[0, 100, 150]], expected, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), channels=st.integers(1, 6), level=st.floats(1e-4, 1.0))
def test_log_mel_ignores_a_constant_and_pads_alike(seed: int, channels: int, level: float) -> None:
    sound = (level * np.random.default_rng(seed).uniform(-0.5, 0.5, (channels, 16_000))).astype(np.float32)
    mel = prepare_waveform(sound)
    assert mel.shape == (1, 128, 204)
    assert mel.dtype == np.float32
    np.testing.assert_allclose(mel[:, :, 198:], 4.268 / 9.138, rtol=1e-6)
    np.testing.assert_allclose(prepare_waveform(sound + np.float32(0.25)), mel, atol=2e-2)


def test_only_the_first_channel_is_heard() -> None:
    sound = rng("first").standard_normal((2, 16_000)).astype(np.float32)
    sound -= sound.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(prepare_waveform(sound), prepare_waveform(sound[:1]), atol=1e-3)
    assert np.abs(prepare_waveform(sound) - prepare_waveform(sound[1:])).max() > 0.1


@pytest.mark.parametrize(
    ("waveform", "said"),
    [
        (np.zeros(16_000, np.float32), "(16000,)"),
        (np.zeros((1, 15_999), np.float32), "(1, 15999)"),
        (np.zeros((0, 16_000), np.float32), "(0, 16000)"),
        (np.zeros((2, 16_000)), "float64"),
        (np.full((1, 16_000), np.nan, np.float32), "16000 of the samples"),
        (np.where(np.arange(16_000) == 5, np.inf, 0).astype(np.float32)[None], "1 of the samples"),
    ],
)
def test_a_waveform_of_another_kind_is_refused(waveform: np.ndarray, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        prepare_waveform(waveform)
    assert said in str(caught.value)
