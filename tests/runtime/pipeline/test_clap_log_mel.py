"""CLAP's log-mel picture against `ClapFeatureExtractor`, and CLIP's frame against `CLIPImageProcessor`."""

from __future__ import annotations

import numpy as np
import pytest

from ovavel.runtime.errors import UsageError
from ovavel.runtime.pipeline.clap_log_mel import clap_log_mel
from ovavel.runtime.pipeline.preprocess import PREPARATIONS, prepare_clap_waveform, prepare_frame
from ovavel.runtime.verification.samples import sample_frames, sample_waveforms


def second(kind: str) -> np.ndarray:
    rng, time_s = np.random.default_rng(0), np.arange(48_000) / 48_000
    sounds = {
        "noise": 0.3 * rng.standard_normal(48_000),
        "tone": 0.5 * np.sin(2 * np.pi * 3_000.3 * time_s),
        "ramp": np.linspace(-1, 1, 48_000),
        "click": np.eye(1, 48_000, 7)[0],
        "late click": np.eye(1, 48_000, 47_950)[0],
        "silence": np.zeros(48_000),
    }
    return sounds[kind].astype(np.float32)


@pytest.mark.parametrize("kind", ["noise", "tone", "ramp", "click", "late click", "silence"])
def test_the_picture_is_that_of_transformers(kind):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    extractor = transformers.ClapFeatureExtractor(truncation="rand_trunc", padding="repeatpad")
    theirs = extractor(second(kind), sampling_rate=48_000, return_tensors="np")["input_features"][0]
    ours = clap_log_mel(second(kind))
    assert ours.shape == theirs.shape == (1, 1001, 64)
    # transformers rounds spectra to float32: far below the loudest bin, that is more than nothing.
    loud = theirs > theirs.max() - 60
    assert np.abs(ours - theirs)[loud].max() < 1e-3
    assert np.abs(10 ** (ours / 10) - 10 ** (theirs / 10)).max() < 1e-6 * 10 ** (theirs.max() / 10) + 1e-12


def test_what_lies_above_8_khz_is_there():
    tone = np.sin(2 * np.pi * 12_000 * np.arange(48_000) / 48_000).astype(np.float32)
    middle = prepare_clap_waveform(tone[None])[0, 550]
    assert middle[57:].max() > middle[:40].max() + 50


def test_a_second_is_repeated_and_the_first_channel_is_used():
    waveform = sample_waveforms(48_000)["chirp"]
    picture = prepare_clap_waveform(waveform)
    assert np.array_equal(picture, clap_log_mel(waveform[0]))
    assert np.array_equal(picture[:, 2:102], picture[:, 802:902])
    assert PREPARATIONS["clap-log-mel"].shape == picture.shape
    assert picture.dtype == np.float32


@pytest.mark.parametrize("wrong", [np.zeros((1, 16_000), np.float32), np.full((1, 48_000), np.nan, np.float32)])
def test_other_waveforms_are_refused(wrong):
    with pytest.raises(UsageError, match="a waveform must be"):
        prepare_clap_waveform(wrong)


def test_a_frame_is_that_of_transformers():
    """Where the middle lies between two pixels, the two round to different sides: those sizes are left out."""
    processing = pytest.importorskip(
        "transformers.models.clip.image_processing_pil_clip", reason="transformers, the reference, is not installed"
    )
    processor = processing.CLIPImageProcessorPil()
    rng = np.random.default_rng(0)
    frames = [*sample_frames().values(), rng.integers(0, 256, (300, 448, 3), np.uint8)]
    compared = 0
    for frame in frames:
        height, width = frame.shape[:2]
        longer = int(224 * max(height, width) / min(height, width))
        if longer % 2:
            continue
        theirs = processor(frame, return_tensors="np")["pixel_values"][0]
        # 0.016 is one of 255 levels, by which versions of Pillow differ.
        assert np.abs(prepare_frame(frame) - theirs).max() < 0.016
        compared += 1
    assert compared > 2
