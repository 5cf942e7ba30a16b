"""Golden inputs and outputs: what PyTorch made of a few windows, in the bundle, so that any machine can compare.

`golden.npz` holds a window's whole way: raw frames and waveforms, what they become when they are prepared, PyTorch's
fp32 embeddings of exactly that, and the decisions on clips of ten seconds that are put together from them. It has its
own names and text embeddings, so it stays true when the bundle's vocabulary changes.

Shapes: F frames, A waveforms, D embedding size, C golden names with the background last, K clips of T seconds.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ovavel.runtime.errors import BundleError
from ovavel.runtime.pipeline.fusion import fused_labels
from ovavel.runtime.pipeline.preprocess import FRAME_SIZE, MEL_BINS, MEL_FRAMES
from ovavel.runtime.system.untrusted import read_arrays
from ovavel.runtime.types import RATE_HZ

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ovavel.runtime.bundle.bundle import Bundle

__all__ = ["GOLDEN", "GOLDEN_REFERENCE", "Golden", "to_float"]

GOLDEN = "golden.npz"
GOLDEN_REFERENCE = "golden outputs of PyTorch fp32"
"""What `Gate.reference` calls them."""

_FRAME, _CROP, _WAVEFORM, _LOG_MEL = "frame/", "crop/", "waveform/", "log_mel/"
_FULL_SCALE = 32768
_MOST_BYTES = 512 * 2**20
"""Unpacked; what export writes takes a tenth of it."""
_ARRAYS = ("vision", "audio", "tokens", "text", "clips", "audio_similarity", "vision_similarity", "score")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Golden:
    """Inputs and what PyTorch makes of them in fp32. `Golden.load` reads a bundle's own."""

    frames: Mapping[str, NDArray[np.uint8]]
    """F raw frames (H, W, 3) by name."""
    waveforms: Mapping[str, NDArray[np.int16]]
    """A waveforms (channels, 16000) by name; `to_float` makes them what the runtime takes."""
    crops: Mapping[str, NDArray[np.uint8]]
    """The middles (224, 224, 3) of the frames, resized."""
    pixels: NDArray[np.float32]
    """(3, 256): what each 8-bit value becomes, by channel."""
    log_mels: Mapping[str, NDArray[np.float32]]
    """A prepared waveforms (1, 128, 204)."""
    vision: NDArray[np.float32]
    """(F, D) unit norm."""
    audio: NDArray[np.float32]
    """(A, D) unit norm."""
    names: tuple[str, ...]
    """C names, the background last: of the vocabulary that was exported, or its first ones."""
    tokens: NDArray[np.int64]
    """(C, 77): what the tokenizer makes of `names`."""
    text: NDArray[np.float32]
    """(C, D) unit norm."""
    clips: NDArray[np.int64]
    """(K, T, 2): which frame and which waveform a second of a clip has, by number."""
    audio_similarity: NDArray[np.float32]
    """(K, T, C)."""
    vision_similarity: NDArray[np.float32]
    """(K, T, C)."""
    score: NDArray[np.float32]
    """(K, T, C)."""

    @property
    def labels(self) -> NDArray[np.intp]:
        """(K, T) decisions."""
        return fused_labels(self.score)

    @property
    def lead(self) -> NDArray[np.float32]:
        """(K, T): how far the best score is above the next one."""
        ranked = np.sort(self.score, axis=-1)
        lead: NDArray[np.float32] = ranked[..., -1] - ranked[..., -2]
        return lead

    def prepared_frame(self, name: str) -> NDArray[np.float32]:
        """What the vision encoder was given for the frame `name`: (3, 224, 224)."""
        crop = self.crops[name]
        return np.stack([self.pixels[channel][crop[:, :, channel]] for channel in range(3)])

    def encode(self) -> bytes:
        """Return the bytes of `golden.npz`; the same values give the same bytes."""
        arrays: dict[str, NDArray[Any]] = {name: getattr(self, name) for name in (*_ARRAYS, "pixels")}
        arrays["names"] = np.array(self.names)
        for prefix, pictures in ((_FRAME, self.frames), (_WAVEFORM, self.waveforms), (_LOG_MEL, self.log_mels)):
            arrays |= {prefix + name: picture for name, picture in pictures.items()}
        # Most frames are as large as the encoder wants them, so that frame and crop are the same.
        arrays |= {_CROP + n: crop for n, crop in self.crops.items() if not np.array_equal(crop, self.frames[n])}
        file = io.BytesIO()
        np.savez_compressed(file, allow_pickle=False, **arrays)
        return file.getvalue()

    @classmethod
    def load(cls, bundle: Bundle) -> Golden:
        """Read the golden file of `bundle`.

        Raises:
            BundleError: the bundle has none, or it is damaged.
        """
        path = bundle.path / GOLDEN
        if GOLDEN not in bundle.manifest.files:
            raise BundleError(
                f"the bundle {bundle.path} holds no {GOLDEN}: an older ovavel wrote it, and it cannot check itself. "
                "Export it again, or compare it with its weights: `ovavel eval parity --help`"
            )
        return cls.decode(bundle.read(GOLDEN), bundle.manifest.embedding_size, where=str(path))

    @classmethod
    def decode(cls, data: bytes, size: int, *, where: str) -> Golden:
        """Read what a golden file with embeddings of `size` holds; `where` names it in errors.

        Raises:
            BundleError: it is damaged, or unpacks to far more than golden outputs need.
        """
        try:
            golden = cls._from_arrays(read_arrays(data, _MOST_BYTES))
            golden._check(size)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise BundleError(f"{where} is damaged ({error}); export or copy the bundle again") from error
        return golden

    @classmethod
    def _from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Golden:
        def named(prefix: str) -> dict[str, NDArray[Any]]:
            return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}

        frames = named(_FRAME)
        crops = named(_CROP)
        return cls(
            frames=frames,
            waveforms=named(_WAVEFORM),
            crops={name: crops.get(name, frame) for name, frame in frames.items()},
            pixels=arrays["pixels"],
            log_mels=named(_LOG_MEL),
            names=tuple(str(name) for name in arrays["names"]),
            **{name: arrays[name] for name in _ARRAYS},
        )

    def _check(self, size: int) -> None:
        """Refuse what does not fit together, or compares with nothing because it is not finite: ValueError."""
        frames, waves, names = len(self.frames), len(self.waveforms), len(self.names)
        shape = (*self.clips.shape[:2], names)
        wanted = {
            "vision": (frames, size),
            "audio": (waves, size),
            "tokens": (names, 77),
            "text": (names, size),
            "clips": (*self.clips.shape[:2], 2),
            "pixels": (3, 256),
            **dict.fromkeys(("audio_similarity", "vision_similarity", "score"), shape),
        }
        for name, expected in wanted.items():
            found = getattr(self, name).shape
            if found != expected or 0 in found:
                raise ValueError(f"{name} is {found}, not {expected}")
        if {crop.shape for crop in self.crops.values()} != {(FRAME_SIZE, FRAME_SIZE, 3)}:
            raise ValueError("a crop is of another size")
        if set(self.log_mels) != set(self.waveforms) or any(
            wave.shape[1:] != (RATE_HZ,) or wave.dtype != np.int16 for wave in self.waveforms.values()
        ):
            raise ValueError("the waveforms are not whole")
        if {picture.shape for picture in self.log_mels.values()} != {(1, MEL_BINS, MEL_FRAMES)}:
            raise ValueError("a log-mel picture is of another size")
        numbers = {**{name: getattr(self, name) for name in wanted}, **self.log_mels}
        if odd := [name for name, array in numbers.items() if not np.isfinite(array).all()]:
            raise ValueError(f"{odd[0]} is not finite")


def to_float(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    """16-bit samples as the float32 waveform, in [-1, 1), that the runtime takes."""
    return samples.astype(np.float32) / np.float32(_FULL_SCALE)
