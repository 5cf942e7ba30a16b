"""Windows of several cameras → segments, and the head, through the encoder that they share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.backends import HeadOutput
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.pipeline.localizer import Head
from ovavel.runtime.types import DropCause, GapCause, Segment
from ovavel.service.capture.messages import Captured
from ovavel.service.encoding.remote import EncoderLost, RemoteEncoder
from ovavel.service.watch.queue import Waiting

__all__ = ["encode", "persistent_head"]

_HEAD_TRIES = 3


def persistent_head(encoder: RemoteEncoder) -> Head:
    """The head in the encoder's process; it is asked again where that was lost, and raises EncoderLost in the end."""

    def head(audio: NDArray[np.float32], vision: NDArray[np.float32], text: TextEmbeddings) -> HeadOutput:
        for remaining in reversed(range(_HEAD_TRIES)):
            try:
                return encoder.head(audio, vision, text)
            except EncoderLost:
                if not remaining:
                    raise
        raise AssertionError("the last try returns or raises")

    return head


def encode(
    encoder: RemoteEncoder, windows: Sequence[Waiting]
) -> list[tuple[Waiting, Segment, GapCause | DropCause | None]]:
    """Encode together what is a window; return a segment for each, and why it was dropped, if it was."""
    found = [(each, each.news) for each in windows if isinstance(each.news, Captured)]
    captured = [window for _, window in found]
    frames = [index for index, each in enumerate(captured) if each.frame]
    sounds = [index for index, each in enumerate(captured) if each.sound]
    vision, audio = {}, {}
    failed = False
    try:
        if frames or sounds:
            seen, heard = encoder.encode(
                [each.frame.values for each in captured if each.frame],
                [each.sound.values for each in captured if each.sound],
            )
            vision, audio = dict(zip(frames, seen, strict=True)), dict(zip(sounds, heard, strict=True))
    except EncoderLost:
        failed = True
    segments: list[tuple[Waiting, Segment, GapCause | DropCause | None]] = []
    for index, (waiting, window) in enumerate(found):
        segment = Segment(index=window.index, start_s=window.start_s, vision=vision.get(index), audio=audio.get(index))
        lost = DropCause.BACKEND_FAILED if failed and (window.frame or window.sound) else None
        segments.append((waiting, segment, waiting.dropped or lost))
    return segments
