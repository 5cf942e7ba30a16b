"""Archives of made-up vectors, and one of the demo's clip."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.archive.layout import ContextSecond, Model, model_of
from ovavel.runtime.archive.sink import ArchiveSink
from ovavel.runtime.archive.writer import ArchiveWriter
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.session import Session
from ovavel.runtime.types import Event, SegmentScores
from support.demo_copies import BUNDLE, CLIP

DAY = int(datetime(2026, 11, 28, tzinfo=UTC).timestamp())
"""Unix time of a midnight."""


def made_up_model(audio: int = 64, vision: int = 64, number: int = 0) -> Model:
    return Model(id=f"{number:016x}", name="made-up", head="temporal", audio_size=audio, vision_size=vision)


def unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def write_seconds(root: Path, camera: str, model: Model, seconds: Iterable[ContextSecond], every: int = 600) -> None:
    with ArchiveWriter(root, camera, model, every=every) as writer:
        for second in seconds:
            writer.write(second)


def archive_clip(root: Path, start_s: int, camera: str = "yard") -> tuple[dict[int, SegmentScores], list[Event]]:
    """Archive the demo's clip as if it began at `start_s`. Returns what was decided live, by second, and the events."""
    bundle, scores, events = Bundle.open(BUNDLE), {}, []
    with Session(bundle, CLIP) as session:
        sink = ArchiveSink(
            ArchiveWriter(root, camera, model_of(bundle)),
            session._backend,
            lag=session.info.lag,
            start=datetime.fromtimestamp(start_s, UTC),
        )
        for update in session.updates():
            sink.write(update)
            scores |= {start_s + each.index: each for each in update.scores if each.final}
            events += [event for event in update.events if event.state == "end"]
        sink.close()
    return scores, events
