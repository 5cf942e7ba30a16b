"""Text embeddings for each sense: audio and vision may have separate text spaces."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ovavel.runtime.errors import VocabularyError
from ovavel.runtime.system.untrusted import read_arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ovavel.runtime.types import Sense

__all__ = ["TextEmbeddings"]

# N texts, D embedding size of a sense


@dataclass(frozen=True, slots=True, eq=False)
class TextEmbeddings:
    """Embeddings of N texts for each sense: one array from a shared text encoder, or one array per sense."""

    audio: NDArray[np.float32]
    """(N, D of audio) float32, compared with audio embeddings."""
    vision: NDArray[np.float32]
    """(N, D of vision) float32, compared with vision embeddings."""

    @classmethod
    def shared(cls, embeddings: NDArray[np.float32]) -> TextEmbeddings:
        """Return (N, D) `embeddings` for both senses."""
        return cls(embeddings, embeddings)

    @classmethod
    def joined(cls, parts: Iterable[TextEmbeddings]) -> TextEmbeddings:
        """Concatenate the rows of `parts`; one array if each of them is one."""
        parts = list(parts)
        if all(each.is_shared for each in parts):
            return cls.shared(np.concatenate([each.audio for each in parts]))
        return cls(np.concatenate([each.audio for each in parts]), np.concatenate([each.vision for each in parts]))

    def __len__(self) -> int:
        """N."""
        return len(self.audio)

    def __getitem__(self, rows: Any) -> TextEmbeddings:
        """Select rows by a slice or their indices."""
        if self.is_shared:
            return self.shared(self.audio[rows])
        return TextEmbeddings(self.audio[rows], self.vision[rows])

    @property
    def sizes(self) -> tuple[int, int]:
        """D of audio and of vision."""
        return self.audio.shape[-1], self.vision.shape[-1]

    @property
    def is_shared(self) -> bool:
        """Whether one array serves both senses."""
        return self.audio is self.vision

    @property
    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """The array "both" for both senses, or one for each: "audio" and "vision"."""
        return {"both": self.audio} if self.is_shared else {"audio": self.audio, "vision": self.vision}

    def of(self, sense: Sense) -> NDArray[np.float32]:
        """(N, D of `sense`), compared with the embeddings of that sense."""
        return self.audio if sense == "audio" else self.vision

    def normal(self) -> TextEmbeddings:
        """Return a read-only copy: little-endian float32, one array if both senses have the same values."""
        arrays = [np.array(each, dtype="<f4", order="C") for each in (self.audio, self.vision)]
        for each in arrays:
            each.setflags(write=False)
        audio, vision = arrays
        return self.shared(audio) if self.is_shared or np.array_equal(audio, vision) else type(self)(*arrays)

    def checked(self, count: int) -> TextEmbeddings:
        """Return `normal` embeddings of `count` texts.

        Raises:
            VocabularyError: they are of another number of texts, or do not all have norm 1.
        """
        normal = self.normal()
        for array in normal.arrays.values():
            if array.ndim != 2 or len(array) != count:
                raise VocabularyError(f"{count} names and embeddings of shape {array.shape} do not fit together")
            with np.errstate(all="ignore"):  # what is beyond all numbers is no norm of 1 either
                norms = np.linalg.norm(array, axis=1)
            if not np.allclose(norms, 1, atol=1e-3):
                raise VocabularyError("the text embeddings do not all have norm 1")
        return normal

    @property
    def raw(self) -> bytes:
        """The values of all arrays, to be hashed."""
        return b"".join(array.tobytes() for array in self.arrays.values())

    def encode(self) -> bytes:
        """Return the bytes of an `.npz` file; an array shared by both senses is stored once."""
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **self.normal().arrays)
        return file.getvalue()

    @classmethod
    def decode(cls, data: bytes) -> TextEmbeddings:
        """Read bytes written by `encode`; any others raise ValueError."""
        return cls.from_arrays(read_arrays(data, len(data)))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> TextEmbeddings:
        """Build from the `arrays` of another instance; any others raise ValueError."""
        if any(array.dtype != np.float32 or array.ndim != 2 for array in arrays.values()):
            raise ValueError("its text embeddings are not float32 matrices")
        if set(arrays) == {"both"}:
            return cls.shared(arrays["both"])
        if set(arrays) != {"audio", "vision"} or len(arrays["audio"]) != len(arrays["vision"]):
            raise ValueError("it does not have text embeddings for each sense")
        return cls(arrays["audio"], arrays["vision"])
