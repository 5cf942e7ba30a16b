"""What a model is asked about a clip: words, stills, sound, and the form of the answer.

Ten stills, each after the words "second k", and the sound as a part of its own: of all forms, this is the one that
every server takes. The classes are numbered in another order for each clip, since models prefer some places of a list.
"""

from __future__ import annotations

import base64
import hashlib
import io
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from ovavel.eval.datasets.clip_media import SEGMENTS, ClipMedia
from ovavel.runtime.reporting.text import one_line
from ovavel.runtime.types import RATE_HZ

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["QUESTIONS", "Prompt", "Question", "media_sha256", "prompt_sha256"]

Question = Literal["both", "sight", "sound"]
"""Stills and sound, and both lists; or the control of one sense alone."""
QUESTIONS: tuple[Question, ...] = ("both", "sight", "sound")

NOTHING = -1
"""In an answer: no class of the list."""
LISTS: dict[Question, tuple[str, ...]] = {"both": ("seen", "heard"), "sight": ("seen",), "sound": ("heard",)}
"""Names of the lists that are asked for."""

_MOST_SIDE = 512
"""Of a still, in pixels; servers charge by size."""
_QUALITY = 90
_MEDIA = {
    "both": f"{SEGMENTS} stills of a video, one for each second from second 0 to second {SEGMENTS - 1}, and then its "
    f"sound: one recording of the same {SEGMENTS} seconds",
    "sight": f"{SEGMENTS} stills of a video, one for each second from second 0 to second {SEGMENTS - 1}",
    "sound": f"a sound recording of {SEGMENTS} seconds, second 0 to second {SEGMENTS - 1}",
}
_TASK = {
    "both": "For each second, decide which class of the list is seen in its still, and which class is heard in that "
    "second of the sound. Judge each by itself: what is seen may be silent, and what is heard may be out of sight.",
    "sight": "For each second, decide which class of the list is seen in its still.",
    "sound": "For each second, decide which class of the list is heard in that second.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What is asked about one clip, without its media."""

    question: Question
    names: tuple[str, ...]
    """Of the classes, without the background."""
    clip: str
    """Identifies the clip, and so the order of its classes."""

    @property
    def order(self) -> tuple[int, ...]:
        """Class index of each number of the list: by a hash of clip and name, which depends on nothing else."""
        names = self.names
        return tuple(sorted(range(len(names)), key=lambda c: hashlib.sha256(_joined(self.clip, names[c])).digest()))

    @property
    def text(self) -> str:
        """The words of the question."""
        return _text(self.question, [self.names[c] for c in self.order])

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema of the answer."""
        return _schema(self.question, len(self.names))

    def content(self, media: ClipMedia) -> list[dict[str, Any]]:
        """Parts of the message, in the form of OpenAI's chat completions."""
        parts: list[dict[str, Any]] = [{"type": "text", "text": self.text}]
        if self.question != "sound":
            for second, frame in enumerate(media.frames):
                parts.append({"type": "text", "text": f"second {second}"})
                url = f"data:image/jpeg;base64,{_base64(_jpeg(frame))}"
                parts.append({"type": "image_url", "image_url": {"url": url}})
        if self.question != "sight":
            sound = {"data": _base64(_wav(media.waveform)), "format": "wav"}
            parts.append({"type": "input_audio", "input_audio": sound})
        return parts


def prompt_sha256(question: Question, names: Sequence[str], max_tokens: int) -> str:
    """Return the hash of all that shapes an answer but the clip, the model and the server."""
    everything = {
        "text": _text(question, names),
        "schema": _schema(question, len(names)),
        "names": list(names),
        "order": "sha256 of clip and name",
        "stills": ["jpeg", _MOST_SIDE, _QUALITY],
        "sound": ["wav", RATE_HZ],
        "max_tokens": max_tokens,
    }
    return hashlib.sha256(msgspec.json.encode(everything)).hexdigest()


def media_sha256(media: ClipMedia) -> str:
    """Return the hash of a clip's pixels and samples."""
    digest = hashlib.sha256()
    arrays: list[NDArray[Any]] = [*media.frames, media.waveform]
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _text(question: Question, names: Sequence[str]) -> str:
    lists = LISTS[question]
    form = ", ".join(f'"{name}": [{SEGMENTS} numbers]' for name in lists)
    listed = "\n".join(f"{number}: {one_line(name)}" for number, name in enumerate(names))
    each = "the list has" if len(lists) == 1 else "each list has"
    return (
        f"You are given {_MEDIA[question]}.\n{_TASK[question]}\n\nClasses:\n{listed}\n\n"
        f"Answer with one JSON object and nothing else: {{{form}}}; {each} one number for each second, from second 0 "
        f"to second {SEGMENTS - 1} in this order: the number of the class, or {NOTHING} where it is none of them."
    )


def _schema(question: Question, classes: int) -> dict[str, Any]:
    numbers = {
        "type": "array",
        "items": {"type": "integer", "minimum": NOTHING, "maximum": classes - 1},
        "minItems": SEGMENTS,
        "maxItems": SEGMENTS,
    }
    lists = LISTS[question]
    return {
        "type": "object",
        "properties": dict.fromkeys(lists, numbers),
        "required": list(lists),
        "additionalProperties": False,
    }


def _jpeg(frame: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    image = Image.fromarray(frame)
    image.thumbnail((_MOST_SIDE, _MOST_SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def _wav(waveform: NDArray[np.float32]) -> bytes:
    """The first channel, which is the one that bundles listen to as well (docs/method.md, Segment)."""
    samples = (np.clip(waveform[0], -1, 1) * 32767).round().astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, RATE_HZ, len(samples), "NONE", ""))
        sound.writeframes(samples.tobytes())
    return file.getvalue()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _joined(*parts: str) -> bytes:
    return "\0".join(parts).encode("utf-8", "surrogateescape")
