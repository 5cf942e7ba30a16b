"""Golden inputs and PyTorch's outputs for them, shipped in the bundle so that any machine can compare.

`golden.npz` covers every stage of a window: raw frames and waveforms, their preprocessed form, PyTorch's fp32
embeddings of that, and the decisions on ten-second clips assembled from them. It has its own names and text embeddings,
so it stays valid when the bundle's vocabulary changes.

Shapes: F frames, A waveforms, D embedding size of a sense, L tokens of a text, C golden names with the background
last, K clips of T seconds.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.errors import BundleError
from ovavel.runtime.pipeline.fusion import fused_labels
from ovavel.runtime.system.untrusted import read_arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ovavel.runtime.bundle.bundle import Bundle
    from ovavel.runtime.bundle.graphs import Encoders

__all__ = ["GOLDEN", "GOLDEN_REFERENCE", "Golden", "to_float"]

GOLDEN = "golden.npz"
GOLDEN_REFERENCE = "golden outputs of PyTorch fp32"
"""Their name in `Gate.reference`."""

_FRAME, _CROP, _WAVEFORM, _LOG_MEL, _TEXT, _NAMED = "frame/", "crop/", "waveform/", "log_mel/", "text/", "named/"
_FULL_SCALE = 32768
_MOST_BYTES = 512 * 2**20
"""Limit for the unpacked file; exported ones take a tenth of it."""
_ARRAYS = (
    "vision",
    "audio",
    "audio_tokens",
    "vision_tokens",
    "clips",
    "audio_similarity",
    "vision_similarity",
    "score",
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Golden:
    """Inputs and PyTorch's fp32 outputs for them. `Golden.load` reads those of a bundle."""

    frames: Mapping[str, NDArray[np.uint8]]
    """F raw frames (H, W, 3) by name."""
    waveforms: Mapping[str, NDArray[np.int16]]
    """A waveforms (channels, n) by name, each a second at the audio encoder's rate; `to_float` converts them to the
    runtime's input."""
    crops: Mapping[str, NDArray[np.uint8]]
    """The middles of the frames, resized: (H, W, 3), which the encoder gets as (3, H, W)."""
    pixels: NDArray[np.float32]
    """(3, 256): the normalized value of each 8-bit value, by channel."""
    log_mels: Mapping[str, NDArray[np.float32]]
    """A prepared waveforms, as the encoder gets them."""
    vision: NDArray[np.float32]
    """(F, D) unit norm."""
    audio: NDArray[np.float32]
    """(A, D) unit norm."""
    names: tuple[str, ...]
    """C names, the background last: of the vocabulary that was exported, or its first ones."""
    audio_tokens: NDArray[np.int64]
    """(C, L): what the tokenizer for sound makes of `names`."""
    vision_tokens: NDArray[np.int64]
    """(C, L): what the tokenizer for sight makes of `names`; the same where one text encoder serves both."""
    text: TextEmbeddings
    """(C, D) for each sense, unit norm."""
    named: TextEmbeddings | None
    """(C, D) for each sense: what the exported vocabulary has for `names` where prompts made it; None: `text`."""
    clips: NDArray[np.int64]
    """(K, T, 2): indices of the frame and the waveform of each second of a clip."""
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
        """(K, T): best score minus second best."""
        ranked = np.sort(self.score, axis=-1)
        lead: NDArray[np.float32] = ranked[..., -1] - ranked[..., -2]
        return lead

    def prepared_frame(self, name: str) -> NDArray[np.float32]:
        """What the vision encoder was given for the frame `name`."""
        crop = self.crops[name]
        return np.stack([self.pixels[channel][crop[:, :, channel]] for channel in range(3)])

    def encode(self) -> bytes:
        """Return the bytes of `golden.npz`; the same values give the same bytes."""
        arrays: dict[str, NDArray[Any]] = {name: getattr(self, name) for name in (*_ARRAYS, "pixels")}
        arrays["names"] = np.array(self.names)
        arrays |= {_TEXT + name: array for name, array in self.text.normal().arrays.items()}
        if self.named is not None:
            arrays |= {_NAMED + name: array for name, array in self.named.normal().arrays.items()}
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
            BundleError: the bundle has no golden file, or it is damaged.
        """
        path = bundle.path / GOLDEN
        if GOLDEN not in bundle.manifest.files:
            raise BundleError(
                f"the bundle {bundle.path} holds no {GOLDEN} and cannot check itself. "
                "Export it again, or compare it with its weights: `ovavel eval parity --help`"
            )
        return cls.decode(bundle.read(GOLDEN), bundle.manifest.encoders, where=str(path))

    @classmethod
    def decode(cls, data: bytes, encoders: Encoders, *, where: str) -> Golden:
        """Read what the golden file of a bundle with `encoders` holds; `where` names it in errors.

        Raises:
            BundleError: it is damaged, or unpacks to far more than golden outputs need.
        """
        try:
            golden = cls._from_arrays(read_arrays(data, _MOST_BYTES))
            golden._check(encoders)
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
            text=TextEmbeddings.from_arrays(named(_TEXT)),
            named=TextEmbeddings.from_arrays(prompted) if (prompted := named(_NAMED)) else None,
            **{name: arrays[name] for name in _ARRAYS},
        )

    def _check(self, encoders: Encoders) -> None:
        """Raise ValueError if shapes do not match or a value is not finite."""
        frames, waves, names = len(self.frames), len(self.waveforms), len(self.names)
        shape = (*self.clips.shape[:2], names)
        wanted = {
            "vision": (frames, encoders.vision.embedding_size),
            "audio": (waves, encoders.audio.embedding_size),
            "vision_tokens": (names, encoders.vision.context_length),
            "audio_tokens": (names, encoders.audio.context_length),
            "clips": (*self.clips.shape[:2], 2),
            "pixels": (3, 256),
            **dict.fromkeys(("audio_similarity", "vision_similarity", "score"), shape),
        }
        for name, expected in wanted.items():
            found = getattr(self, name).shape
            if found != expected or 0 in found:
                raise ValueError(f"{name} is {found}, not {expected}")
        texts = [self.text] if self.named is None else [self.text, self.named]
        for each in texts:
            if len(each) != names or each.sizes != encoders.sizes:
                raise ValueError(f"its text embeddings are {len(each)} of size {each.sizes}")
        if {(*crop.shape[2:], *crop.shape[:2]) for crop in self.crops.values()} != {encoders.vision.shape}:
            raise ValueError("a crop is of another size")
        rate_hz = encoders.audio.parameters.get("rate_hz")
        if set(self.log_mels) != set(self.waveforms) or any(
            wave.shape[1:] != (rate_hz,) or wave.dtype != np.int16 for wave in self.waveforms.values()
        ):
            raise ValueError("the waveforms are not whole")
        if {picture.shape for picture in self.log_mels.values()} != {encoders.audio.shape}:
            raise ValueError("a log-mel picture is of another size")
        numbers = [*((name, getattr(self, name)) for name in wanted), *self.log_mels.items()]
        numbers += [item for each in texts for item in each.arrays.items()]
        if odd := [name for name, array in numbers if not np.isfinite(array).all()]:
            raise ValueError(f"{odd[0]} is not finite")


def to_float(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    """Convert 16-bit samples to the runtime's float32 waveform in [-1, 1)."""
    return samples.astype(np.float32) / np.float32(_FULL_SCALE)
