"""One stream watched once, with an economy or without: its decisions, and what they cost hour by hour."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from ovavel.eval.demo.world.plan import HOUR_S
from ovavel.eval.economy.streams import Stream
from ovavel.runtime.backends import Backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.economy.settings import Economy
from ovavel.runtime.session import Session
from ovavel.runtime.sources import Source
from ovavel.runtime.system.files import atomic_write
from ovavel.runtime.system.progress import Progress, no_progress
from ovavel.runtime.types import Chunk, EconomyMode, Frame, Update

__all__ = ["Found", "Hour", "StreamRun", "recorded_run", "run_stream"]


class Hour(Struct, frozen=True, kw_only=True):
    """What an hour of a stream took."""

    seconds: int
    pictures: int
    """Seconds that had a picture."""
    encoded: int
    """Pictures that were encoded, audits among them."""
    reused: int
    """Pictures that kept the embedding of an earlier one."""
    sounds: int
    """Seconds that had a sound."""
    sounds_reused: int
    """Sounds that kept the embedding of an earlier one."""
    busy_s: float
    """Time from a window to its decision, summed up."""
    cpu_s: float
    """Time of all processor cores: with decoding, but without making the pictures and sounds of days."""


class Found(Struct, frozen=True, kw_only=True):
    """An event as it was reported."""

    label: str
    start_s: float
    end_s: float


class StreamRun(Struct, frozen=True, kw_only=True):
    """What came of watching a stream once; the content of a file in the folder `runs`."""

    made_with: str
    """What it depends on: a stored run counts only where this is the same."""
    mode: EconomyMode
    rule: str
    note: str
    """What of the economy ran instead of all, and why, e.g. "off, as …"; empty where all of it did."""
    spans: tuple[tuple[str, int], ...]
    """Final label of each second: runs of a label, and how many seconds long."""
    events: tuple[Found, ...]
    hours: tuple[Hour, ...]
    skipped: dict[str, int]
    """Seconds that were decided without their picture, by cause."""
    wake_ms: tuple[float, ...]
    """Time of each decision for which several pictures had to be encoded at once."""
    usual_ms: float
    """Median time of all other decisions."""
    audited: int
    audits_failed: int
    drift_p99: float | None
    drift_max: float | None

    @property
    def labels(self) -> list[str]:
        """Final label of each second."""
        return [label for label, seconds in self.spans for _ in range(seconds)]


def run_stream(
    bundle: Bundle,
    backend: Backend,
    stream: Stream,
    economy: Economy,
    *,
    fusion: str | None = None,
    progress: Progress = no_progress,
) -> StreamRun:
    """Watch `stream` from its first second to its last, as fast as possible.

    `fusion` names the rule that decides, by default the bundle's own. `progress` is called after each second.

    Raises:
        MediaError, DeviceError: the source or the backend failed.
    """
    source = _Metered(stream.open())
    labels: list[str] = []
    events: list[Found] = []
    meter = _Meter(source, made=stream.made)
    with Session(bundle, source, backend=backend, economy=economy, fusion=fusion) as session:
        meter.start(session)
        for update in session.updates():
            labels += [score.label for score in update.scores if score.final]
            events += [
                Found(label=event.label, start_s=event.start_s, end_s=event.end_s)
                for event in update.events
                if event.state == "end"
            ]
            meter.take(update)
            progress("watching", len(labels), stream.seconds)
        rule, plan, figures = session.info.fusion, session.info.economy, session.stats.economy.figures
    return StreamRun(
        made_with=_made_with(bundle, backend, stream, economy, fusion),
        mode=economy.mode,
        rule=rule,
        note=plan.note,
        spans=tuple((label, len(list(run))) for label, run in groupby(labels)),
        events=tuple(events),
        hours=meter.hours,
        skipped=figures.skipped,
        wake_ms=tuple(meter.wake_ms),
        usual_ms=float(np.median(meter.usual_ms)) if meter.usual_ms else 0.0,
        audited=figures.audited,
        audits_failed=figures.audits_failed,
        drift_p99=figures.drift_p99,
        drift_max=figures.drift_max,
    )


def recorded_run(
    folder: Path,
    bundle: Bundle,
    backend: Backend,
    stream: Stream,
    economy: Economy,
    *,
    fusion: str | None = None,
    progress: Progress = no_progress,
) -> StreamRun:
    """Return the run stored in `folder` by an earlier call, or make and store it; see `run_stream`.

    A stored run of another stream, bundle, engine or economy is made again, and so is one that cannot be read.

    Raises:
        MediaError, DeviceError, OutputError: the source or the backend failed, or the run could not be stored.
    """
    path = folder / f"{stream.name}.{economy.mode}.json"
    try:
        stored = msgspec.json.decode(path.read_bytes(), type=StreamRun)
        if stored.made_with == _made_with(bundle, backend, stream, economy, fusion):
            return stored
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        pass
    run = run_stream(bundle, backend, stream, economy, fusion=fusion, progress=progress)
    atomic_write(path, msgspec.json.encode(run))
    return run


def _made_with(bundle: Bundle, backend: Backend, stream: Stream, economy: Economy, fusion: str | None) -> str:
    # Of the manifest, what decides: a gate that is written into it changes no decision.
    parity = msgspec.structs.replace(bundle.manifest.parity, gates=())
    manifest = msgspec.structs.replace(bundle.manifest, economy=(), parity=parity)
    parts = (
        version("ovavel"),
        stream.content,
        manifest,
        fusion,
        backend.info.engine,
        dict(backend.info.precision),
        economy.mode,
        economy.budget if economy.mode == "auto" else None,
    )
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()


class _Metered:
    """A source, and how long its thread worked to make pictures and sounds."""

    def __init__(self, source: Source) -> None:
        self.name, self.senses, self.live = source.name, source.senses, source.live
        self.recorded, self.duration_s = source.recorded, source.duration_s
        self.close = source.close
        self._source = source
        self._lock = threading.Lock()
        self._cpu_s = 0.0

    @property
    def cpu_s(self) -> float:
        with self._lock:
            return self._cpu_s

    def chunks(self) -> Iterator[Chunk]:
        chunks = self._source.chunks()
        while True:
            start_s = time.thread_time()
            chunk = next(chunks, None)
            self._worked(start_s)
            if chunk is None:
                return
            yield replace(chunk, image=partial(self._image, chunk)) if isinstance(chunk, Frame) else chunk

    def _image(self, frame: Frame) -> NDArray[np.uint8]:
        start_s = time.thread_time()
        image = frame.image()
        self._worked(start_s)
        return image

    def _worked(self, start_s: float) -> None:
        with self._lock:
            self._cpu_s += time.thread_time() - start_s


class _Meter:
    """Adds up what each hour took."""

    def __init__(self, source: _Metered, *, made: bool) -> None:
        """Of CPU time, leave out that of the thread of `source` if its pictures and sounds are `made`.

        Decoding is not left out: FFmpeg has threads of its own for it.
        """
        self._source, self._made = source, made
        self._rows: list[list[float]] = []  # of each hour, in the order of the fields of `Hour`
        self.wake_ms: list[float] = []
        self.usual_ms: list[float] = []

    def start(self, session: Session) -> None:
        """Count from now on."""
        self._session = session
        self._before = self._reading()

    def take(self, update: Update) -> None:
        """Count what was done up to `update`."""
        if update.window is None or update.segment is None:
            return
        hour = int(update.window.start_s) // HOUR_S
        while len(self._rows) <= hour:
            self._rows.append([0.0] * len(Hour.__struct_fields__))
        now = self._reading()
        pictures, encoded, reused, kept, busy_s, cpu_s = (b - a for a, b in zip(self._before, now, strict=True))
        self._before = now
        if self._session.info.economy.mode == "off":
            pictures = encoded = float(update.window.frame is not None)
        took = (1, pictures, encoded, reused, update.window.waveform is not None, kept, busy_s, cpu_s)
        self._rows[hour] = [a + b for a, b in zip(self._rows[hour], took, strict=True)]
        (self.wake_ms if encoded > 1 else self.usual_ms).append(1e3 * busy_s)

    @property
    def hours(self) -> tuple[Hour, ...]:
        """All hours so far."""
        names = Hour.__struct_fields__
        return tuple(
            msgspec.convert(
                {name: value if name.endswith("_s") else int(value) for name, value in zip(names, row, strict=True)},
                Hour,
            )
            for row in self._rows
        )

    def _reading(self) -> tuple[float, ...]:
        stats = self._session.stats
        figures = stats.economy.figures
        busy_s = stats.real_time_factor * stats.windows
        cpu_s = time.process_time() - (self._source.cpu_s if self._made else 0.0)
        return figures.pictures, figures.encoded, figures.reused, figures.sounds_reused, busy_s, cpu_s
