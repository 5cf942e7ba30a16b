"""From one second of media to what the encoders take: a normalized still and a log-mel picture of its sound.

The numbers are those the published weights were trained with; see docs/method.md, Frame, Waveform, and CLIP and CLAP.
A bundle names what prepares the seconds of each sense (`EncoderSpec.preprocessing`); it is found in `PREPARATIONS`.

Shapes: H, W frame height and width; C channels; n samples of a second; F frames of the filter bank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import fft
from PIL import Image

from ovavel.runtime.bundle.graphs import Encoders, EncoderSpec, Parameter
from ovavel.runtime.errors import BundleError, UsageError
from ovavel.runtime.pipeline.clap_log_mel import CLAP_BINS, CLAP_FRAMES, CLAP_RATE_HZ, clap_log_mel
from ovavel.runtime.types import RATE_HZ, WINDOW_S, Sense

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "FRAME_SIZE",
    "MEL_BINS",
    "MEL_FRAMES",
    "PREPARATIONS",
    "Preparation",
    "crop_frame",
    "find_preparation",
    "prepare_clap_waveform",
    "prepare_frame",
    "prepare_waveform",
    "preparations",
    "sound_rate",
]

FRAME_SIZE = 224
"""Side of the square picture, in pixels."""

MEL_BINS = 128
"""Rows of the log-mel picture."""

MEL_FRAMES = 204
"""Columns of the log-mel picture: 198 of sound, the rest padding."""

_MAX_ASPECT = 100  # a thinner strip would be blown up to gigabytes before the crop
_PIXEL_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float64)
_PIXEL_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float64)

_FRAME_LENGTH = 400  # 25 ms
_FRAME_SHIFT = 160  # 10 ms
_FFT_LENGTH = 512
_FRAMES_PER_SECOND = RATE_HZ // _FRAME_SHIFT
_FRAMES_A_PRODUCT = 5
_FRAMES = 1 + (2 * RATE_HZ - _FRAME_LENGTH) // _FRAME_SHIFT  # edges snipped
_LOW_HZ, _HIGH_HZ = 20.0, 8000.0
_PRE_EMPHASIS = np.float32(0.97)
_FLOOR = np.finfo(np.float32).eps
_MEL_MEAN = np.float32(-4.268)
_MEL_STD = np.float32(9.138)


def crop_frame(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Resize to a shorter side of 224 (Pillow's antialiased bicubic), then crop the centre (docs/method.md, Frame).

    Args:
        frame: (H, W, 3) uint8 RGB of any size.

    Returns:
        (224, 224, 3) uint8.

    Raises:
        UsageError: `frame` has another shape or type, no pixels, or is a strip over 100 times as long as wide.
    """
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise UsageError(f"a frame must be an array (H, W, 3) of uint8, not {_describe(frame)}")
    height, width = frame.shape[:2]
    if not height or not width:
        raise UsageError(f"a frame must hold at least one pixel, not {_describe(frame)}")
    shorter, longer = sorted((height, width))
    if longer > _MAX_ASPECT * shorter:
        raise UsageError(f"a frame must not be more than {_MAX_ASPECT} times as long as wide, as {_describe(frame)} is")
    if shorter != FRAME_SIZE:
        # Pillow's `box` would spare the sides that the crop drops, but moves some pixels by one: it rounds to float32.
        size = (int(FRAME_SIZE * width / shorter), int(FRAME_SIZE * height / shorter))
        frame = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))
    top, left = (round((side - FRAME_SIZE) / 2) for side in frame.shape[:2])
    return frame[top : top + FRAME_SIZE, left : left + FRAME_SIZE]


def prepare_frame(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Crop a frame and normalize its colours (docs/method.md, Frame).

    Args:
        frame: (H, W, 3) uint8 RGB of any size.

    Returns:
        (3, 224, 224) float32.

    Raises:
        UsageError: `frame` has another shape or type, no pixels, or is a strip over 100 times as long as wide.
    """
    crop = crop_frame(frame)
    prepared = np.empty((3, FRAME_SIZE, FRAME_SIZE), np.float32)
    for channel, table in enumerate(_pixel_table()):
        # With "clip" NumPy need not check that 8 bits are below 256: five times as fast as indexing.
        table.take(crop[:, :, channel], out=prepared[channel], mode="clip")
    return prepared


def prepare_waveform(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn one second of sound into a normalized log-mel picture (docs/method.md, Waveform).

    The mean is taken over all channels; only the first is used.

    Args:
        waveform: (C, 16000) float32 at 16 kHz.

    Returns:
        (1, 128, 204) float32.

    Raises:
        UsageError: `waveform` has another shape or type, or holds NaN or infinity.
    """
    _check_waveform(waveform, RATE_HZ)
    samples = waveform[0] - waveform.mean()
    log_mels = _log_mels(np.concatenate([samples, samples[: _FRAME_LENGTH - _FRAME_SHIFT]]))  # (100, 128)
    picture = np.zeros((1, MEL_BINS, MEL_FRAMES), np.float32)
    # The second is heard twice and holds a whole number of frame shifts, so its frames come back as they were.
    picture[0, :, :_FRAMES_PER_SECOND] = log_mels.T
    picture[0, :, _FRAMES_PER_SECOND:_FRAMES] = log_mels[: _FRAMES - _FRAMES_PER_SECOND].T
    picture -= _MEL_MEAN
    picture /= _MEL_STD
    return picture


def prepare_clap_waveform(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn one second of sound into CLAP's log-mel picture (docs/method.md, CLIP and CLAP).

    Only the first channel is used.

    Args:
        waveform: (C, 48000) float32 at 48 kHz.

    Returns:
        (1, 1001, 64) float32, in decibels.

    Raises:
        UsageError: `waveform` has another shape or type, or holds NaN or infinity.
    """
    _check_waveform(waveform, CLAP_RATE_HZ)
    return clap_log_mel(waveform[0])


def _check_waveform(waveform: NDArray[np.float32], rate_hz: int) -> None:
    """Raise UsageError unless `waveform` is a second of sound at this rate."""
    if (
        not isinstance(waveform, np.ndarray)
        or waveform.dtype != np.float32
        or waveform.ndim != 2
        or waveform.shape[0] < 1
        or waveform.shape[1] != rate_hz
    ):
        raise UsageError(f"a waveform must be an array (C, {rate_hz}) of float32, not {_describe(waveform)}")
    if not np.isfinite(waveform).all():
        raise UsageError(
            f"a waveform must be finite; {np.count_nonzero(~np.isfinite(waveform))} of the samples in "
            f"{_describe(waveform)} are NaN or infinite"
        )


def _log_mels(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n,) samples → (F, 128) natural logarithms of mel energies, as Kaldi computes them."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, _FRAME_LENGTH)[::_FRAME_SHIFT]
    frames = frames - frames.mean(axis=1, keepdims=True)
    emphasized = frames * (1 - _PRE_EMPHASIS)  # right for the first sample, which is its own predecessor
    np.subtract(frames[:, 1:], _PRE_EMPHASIS * frames[:, :-1], out=emphasized[:, 1:])
    emphasized *= _window()
    spectrum = fft.rfft(emphasized, _FFT_LENGTH)
    power = spectrum.real**2 + spectrum.imag**2
    # A larger product than these would wake OpenBLAS's threads, which then spin for a tenth of a second on the cores
    # that the encoders need.
    energies = (power.reshape(-1, _FRAMES_A_PRODUCT, power.shape[1]) @ _mel_bank()).reshape(len(power), MEL_BINS)
    return np.log(np.maximum(energies, _FLOOR, out=energies), out=energies)


@cache
def _window() -> NDArray[np.float32]:
    """Symmetric Hann window."""
    window: NDArray[np.float32] = np.hanning(_FRAME_LENGTH).astype(np.float32)
    return window


@cache
def _mel_bank() -> NDArray[np.float32]:
    """(257, 128) triangles, evenly spaced and straight-sided on the mel scale."""
    low, high = _mel(np.array([_LOW_HZ, _HIGH_HZ]))
    corners = np.linspace(low, high, MEL_BINS + 2)
    bins = _mel(fft.rfftfreq(_FFT_LENGTH, 1 / RATE_HZ))[:, None]
    rising = (bins - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - bins) / (corners[2:] - corners[1:-1])
    bank: NDArray[np.float32] = np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
    return bank


def _mel(frequency_hz: NDArray[np.floating]) -> NDArray[np.floating]:
    mel: NDArray[np.floating] = 1127.0 * np.log1p(frequency_hz / 700.0)
    return mel


@cache
def _pixel_table() -> NDArray[np.float32]:
    """(3, 256): what each 8-bit value becomes, by channel."""
    values = (np.arange(256) / 255.0 - _PIXEL_MEAN[:, None]) / _PIXEL_STD[:, None]
    table: NDArray[np.float32] = values.astype(np.float32)
    return table


def _describe(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.shape} of {value.dtype}"
    return type(value).__name__


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """One way to prepare the seconds of one sense."""

    name: str
    """As bundles call it."""
    sense: Sense
    parameters: Mapping[str, Parameter]
    """What it is implemented with; a bundle that asks for other values is refused."""
    shape: tuple[int, ...]
    """Of what it returns, float32."""
    prepare: Callable[[NDArray[Any]], NDArray[np.float32]]
    """Takes `Window.frame` or `Window.waveform`; raises UsageError for one of another shape or type."""

    @property
    def rate_hz(self) -> int:
        """Sample rate of the seconds of sound that it takes."""
        return int(self.parameters["rate_hz"])  # type: ignore[arg-type]

    def spec(self, input_name: str, embedding_size: int, *, context_length: int) -> EncoderSpec:
        """Return what a manifest says of an encoder whose input, called `input_name`, is prepared like this.

        `context_length` is of the texts it is compared with, which one text encoder embeds for both senses.
        """
        return EncoderSpec(
            input=input_name,
            shape=self.shape,
            embedding_size=embedding_size,
            preprocessing=self.name,
            parameters=dict(self.parameters),
            context_length=context_length,
        )


PREPARATIONS: Mapping[str, Preparation] = {
    each.name: each
    for each in (
        Preparation(
            name="clip-frame",
            sense="vision",
            parameters={
                "frame_px": FRAME_SIZE,
                "mean": tuple(map(float, _PIXEL_MEAN)),
                "std": tuple(map(float, _PIXEL_STD)),
            },
            shape=(3, FRAME_SIZE, FRAME_SIZE),
            prepare=prepare_frame,
        ),
        Preparation(
            name="kaldi-log-mel",
            sense="audio",
            parameters={
                "rate_hz": RATE_HZ,
                "window_s": WINDOW_S,
                "mel_bins": MEL_BINS,
                "mel_frames": MEL_FRAMES,
                "mean": -4.268,
                "std": 9.138,
            },
            shape=(1, MEL_BINS, MEL_FRAMES),
            prepare=prepare_waveform,
        ),
        Preparation(
            name="clap-log-mel",
            sense="audio",
            parameters={
                "rate_hz": CLAP_RATE_HZ,
                "window_s": WINDOW_S,
                "mel_bins": CLAP_BINS,
                "mel_frames": CLAP_FRAMES,
            },
            shape=(1, CLAP_FRAMES, CLAP_BINS),
            prepare=prepare_clap_waveform,
        ),
    )
}
"""By name. A further one is added here, with its parameters (docs/extend/encoder.md)."""


def find_preparation(sense: Sense, spec: EncoderSpec) -> Preparation:
    """Return what prepares the seconds of `sense` for the encoder that `spec` describes.

    Raises:
        BundleError: there is none of this name for this sense, or with these parameters; says what differs.
    """
    found = PREPARATIONS.get(spec.preprocessing)
    if found is None or found.sense != sense:
        known = ", ".join(each.name for each in PREPARATIONS.values() if each.sense == sense)
        raise BundleError(
            f"the bundle asks for the preprocessing {spec.preprocessing[:40]!r} of {sense}, and this ovavel has: "
            f"{known}. Use the ovavel that wrote it, or export it again"
        )
    asked: dict[str, object] = {**spec.parameters, "shape": spec.shape}
    done: dict[str, object] = {**found.parameters, "shape": found.shape}
    different = [
        f"{name} = {asked.get(name)!r}, not {done.get(name)!r}"
        for name in sorted(asked.keys() | done.keys())
        if asked.get(name) != done.get(name)
    ]
    if different:
        raise BundleError(
            f"the bundle asks for another {found.name} than this ovavel does ({', '.join(different)[:300]}): "
            "use the ovavel that wrote it, or export it again"
        )
    return found


def preparations(encoders: Encoders) -> dict[Sense, Preparation]:
    """Return what prepares the seconds of each sense; raises as `find_preparation`."""
    return {sense: find_preparation(sense, encoders.of(sense)) for sense in ("audio", "vision")}


def sound_rate(encoders: Encoders) -> int:
    """Return the sample rate of the seconds that the audio encoder takes; raises as `find_preparation`."""
    return find_preparation("audio", encoders.audio).rate_hz
