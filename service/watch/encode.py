"""Windows of several cameras → segments, and the head, through the encoder that they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.backends import HeadOutput
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.pipeline.localizer import Head
from ovavel.runtime.types import DropCause, GapCause, Segment
from ovavel.service.capture.messages import Captured
from ovavel.service.encoding.remote import EncoderLost, RemoteEncoder
from ovavel.service.watch.queue import Waiting

__all__ = ["Encoded", "encode", "persistent", "persistent_head"]

T = TypeVar("T")

Encoded = tuple[Waiting, Segment, GapCause | DropCause | None]
"""A window, its segment, and why it was dropped, if it was."""
_HEAD_TRIES = 3


def persistent(ask: Callable[[], T], tries: int) -> T:
    """Ask the encoder again where it was lost; raises EncoderLost in the end."""
    for remaining in reversed(range(tries)):
        try:
            return ask()
        except EncoderLost:
            if not remaining:
                raise
    raise AssertionError("the last try returns or raises")


def persistent_head(encoder: RemoteEncoder) -> Head:
    """The head in the encoder's process; it is asked again where that was lost, and raises EncoderLost in the end."""

    def head(audio: NDArray[np.float32], vision: NDArray[np.float32], text: TextEmbeddings) -> HeadOutput:
        return persistent(lambda: encoder.head(audio, vision, text), _HEAD_TRIES)

    return head


class Hearing(Protocol):
    """A camera whose pictures wait until they are needed."""

    @property
    def keeps_sounds(self) -> bool:
        """Whether `listen` is to embed its sounds, as not all of them need to be encoded."""

    def listen(self, sound: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embed a prepared sound: (D,). Raises EncoderLost."""


def encode(
    encoder: RemoteEncoder, windows: Sequence[Waiting], later: Mapping[str, Hearing] = MappingProxyType({})
) -> list[Encoded]:
    """Encode together what is a window. The pictures of the cameras `later` are prepared and not encoded."""
    found = [(each, each.news) for each in windows if isinstance(each.news, Captured)]
    captured = [window for _, window in found]
    frames = [index for index, (each, window) in enumerate(found) if window.frame and each.camera not in later]
    kept = {index for index, (each, _) in enumerate(found) if each.camera in later and later[each.camera].keeps_sounds}
    sounds = [index for index, each in enumerate(captured) if each.sound and index not in kept]
    vision, audio = {}, {}
    failed: set[int] = set()
    try:
        if frames or sounds:
            seen, heard = encoder.encode(
                [frame.values for index in frames if (frame := captured[index].frame)],
                [sound.values for index in sounds if (sound := captured[index].sound)],
            )
            vision, audio = dict(zip(frames, seen, strict=True)), dict(zip(sounds, heard, strict=True))
    except EncoderLost:
        failed.update(frames, sounds)
    for index in sorted(kept):
        if sound := captured[index].sound:
            try:
                audio[index] = later[found[index][0].camera].listen(sound.values)
            except EncoderLost:
                failed.add(index)
    segments: list[Encoded] = []
    for index, (waiting, window) in enumerate(found):
        lost = DropCause.BACKEND_FAILED if index in failed else None
        waits = waiting.camera in later and window.frame is not None and lost is None
        segment = Segment(
            index=window.index,
            start_s=window.start_s,
            vision=vision.get(index),
            audio=audio.get(index),
            frame=window.frame.values if waits and window.frame else None,
        )
        segments.append((waiting, segment, waiting.dropped or lost))
    return segments
