"""The spectrogram of a second: where a tone is, and how loud."""

from __future__ import annotations

import numpy as np
import pytest

from ovavel.service.capture.spectrum import BANDS, COLUMNS, spectrum_of
from ovavel.service.evidence.spectrogram import spectrogram


@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
def test_a_tone_is_a_line_whatever_the_rate(rate_hz: int) -> None:
    time_s = np.arange(rate_hz) / rate_hz
    wave = np.where(time_s < 0.5, np.sin(2 * np.pi * 3000 * time_s), 0).astype(np.float32)
    levels = np.frombuffer(spectrum_of(wave), np.uint8).reshape(BANDS, COLUMNS)
    assert len({int(levels[:, column].argmax()) for column in range(2, 22)}) == 1
    assert levels[:, 2:22].max() == 255
    assert levels[:, 30:].max() == 0
    band = int(levels[:, 10].argmax())
    low, high = (
        int(
            np.frombuffer(spectrum_of(np.sin(2 * np.pi * hz * time_s).astype(np.float32)), np.uint8)
            .reshape(BANDS, COLUMNS)[:, 10]
            .argmax()
        )
        for hz in (300, 7000)
    )
    assert low < band < high


def test_seconds_in_which_nothing_was_heard_are_grey() -> None:
    from io import BytesIO

    from PIL import Image

    picture = np.asarray(Image.open(BytesIO(spectrogram([bytes(BANDS * COLUMNS), None]))).convert("RGB"))
    assert picture.shape == (256, 320, 3)
    assert picture[:, :140].mean() < 10
    assert np.abs(picture[:, 180:].astype(int) - 96).max() < 8
