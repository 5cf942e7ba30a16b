"""What every second of a stream takes with economy and without, measured side by side.

Shapes: B pictures or sounds, T seconds, D embedding size of a sense.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from ovavel.eval.demo.world.day import Day
from ovavel.eval.demo.world.plan import DayKind
from ovavel.runtime.backends import Backend, BackendInfo, HeadOutput
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.graphs import SENSES, Encoders
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.economy.settings import Economy
from ovavel.runtime.errors import MediaError, UsageError
from ovavel.runtime.pipeline.assembler import WindowAssembler
from ovavel.runtime.pipeline.localizer import no_picture
from ovavel.runtime.session import Session
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.system.progress import Progress, no_progress
from ovavel.runtime.types import RATE_HZ, WINDOW_S, Chunk, EconomyMode, Frame, Gap, GapCause, Samples, Sense, Window

__all__ = ["MODES", "Costs", "Film", "Twin", "day_film", "looped_film", "measure_costs"]

MODES: tuple[EconomyMode, ...] = ("off", "exact", "auto")
_LONGEST_S = 300
"""Most seconds of a recording that are kept in memory and looped."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """Seconds of picture and sound in memory, played over and over: making them takes no time while it is watched."""

    name: str
    frames: Sequence[NDArray[np.uint8] | None]
    """(H, W, 3) each; None where nothing is seen."""
    sounds: Sequence[NDArray[np.float32] | None]
    """(channels, n) each, a second; None where nothing is heard."""
    rate_hz: int = RATE_HZ


def day_film(kind: DayKind, seed: int, seconds: int) -> Film:
    """Make the beginning of a day of the demo world."""
    day = Day(kind, seed, seconds)
    return Film(
        name=f"{kind} day",
        frames=[day.frame(second + WINDOW_S / 2) for second in range(seconds)],
        sounds=[day.sound(second)[None] for second in range(seconds)],
    )


def looped_film(path: Path, seconds: int, rate_hz: int) -> Film:
    """Read the first `seconds` of a recording, at most five minutes, with sound at `rate_hz`. The rest is not read.

    Raises:
        MediaError: it cannot be read, or is shorter than a second.
    """
    with closing(MediaSource(path)) as source:
        kept = list(islice(_windows(source, rate_hz), min(seconds, _LONGEST_S)))
    if not kept:
        raise MediaError(f"{path} is shorter than a second; give a longer recording")
    return Film(
        name=f"{path.name}, looped",
        frames=[window.frame for window in kept],
        sounds=[None if window.waveform is None else window.waveform[:1] for window in kept],
        rate_hz=rate_hz,
    )


def _windows(source: MediaSource, rate_hz: int) -> Iterator[Window]:
    assembler = WindowAssembler(source.senses, live=False, rate_hz=rate_hz, channel="auto")
    for chunk in source.chunks():
        yield from assembler.push(chunk)
    yield from assembler.flush()


class Costs(Struct, frozen=True, kw_only=True):
    """What the seconds of one stream took in one mode, in order."""

    work_ms: tuple[float, ...]
    """From a window to its decision, on the wall clock."""
    cpu_ms: tuple[float, ...]
    """Of all processor cores."""
    encoded: tuple[int, ...]
    """Pictures."""
    note: str = ""
    """What of the economy ran instead of all, and why; empty where all of it did."""
    sound_first: bool = False
    """Whether sound may decide alone: it does not in every mode with every rule and engine."""


def measure_costs(
    bundle: Bundle,
    backend: Backend,
    film: Film,
    seconds: int,
    *,
    fusion: str | None = None,
    progress: Progress = no_progress,
) -> Mapping[EconomyMode, Costs]:
    """Watch `film` for so many seconds in every mode at once: the modes take turns, second by second.

    Raises:
        UsageError: the rule `fusion` cannot run with the bundle.
        DeviceError: the backend failed.
    """
    with ExitStack() as opened:
        watched: dict[EconomyMode, _Watched] = {}
        for mode in MODES:
            source = _Played(film, seconds)
            economy = Economy(mode=mode)
            session = Session(bundle, source, backend=backend, economy=economy, fusion=fusion)
            watched[mode] = _Watched(opened.enter_context(session), source, backend)
        for second in range(seconds):
            for turn in range(len(MODES)):
                watched[MODES[(second + turn) % len(MODES)]].take()
            progress("watching", second + 1, seconds)
    return {mode: each.costs for mode, each in watched.items()}


class Twin:
    """Decides with one backend and takes as long as another, which computes all the same and is not listened to."""

    def __init__(self, deciding: Backend, timed: Backend, text: TextEmbeddings) -> None:
        """`text`: what the head of `timed` is asked about.

        Raises:
            UsageError: their encoders take different pictures or sounds, or `timed` encodes both at once: of work that
                overlaps, the part of `deciding` is not the time it takes.
        """
        if timed.info.concurrent:
            raise UsageError(
                f"--deciding cannot be used on {timed.info.device}, where picture and sound are encoded at once: its "
                "own time could not be left out. Use --device cpu, or leave out --deciding"
            )
        for sense in SENSES:
            shapes = [each.encoders.of(sense).shape for each in (deciding, timed)]
            if shapes[0] != shapes[1]:
                raise UsageError(
                    f"--deciding takes other input for {sense} than --bundle: {shapes[0]} and {shapes[1]}; give a "
                    "bundle whose encoders take the same"
                )
        self._deciding, self._timed, self._text = deciding, timed, text
        self._lock = threading.Lock()
        self._aside = (0.0, 0.0)

    @property
    def aside_s(self) -> tuple[float, float]:
        """Seconds that deciding took so far, on the wall clock and of all cores: no part of what is measured."""
        with self._lock:
            return self._aside

    @property
    def info(self) -> BackendInfo:
        """What decides, at the batch size of what is timed, one sense after the other."""
        timed = self._timed.info
        return replace(self._deciding.info, batch=timed.batch, concurrent=False)

    @property
    def encoders(self) -> Encoders:
        """Those that decide."""
        return self._deciding.encoders

    def vision(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Backend`."""
        self._timed.vision(frames)
        return self._decided(self._deciding.vision, frames)

    def audio(self, sounds: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Backend`."""
        self._timed.audio(sounds)
        return self._decided(self._deciding.audio, sounds)

    def text(self, tokens: NDArray[np.int64], sense: Sense) -> NDArray[np.float32]:
        """See `Backend`."""
        return self._deciding.text(tokens, sense)

    def head(self, audio: NDArray[np.float32], vision: NDArray[np.float32], text: TextEmbeddings) -> HeadOutput:
        """See `Backend`."""
        heard, seen = (no_picture(audio.shape[1], size) for size in self._text.sizes)
        self._timed.head(heard, seen, self._text)
        return self._decided(self._deciding.head, audio, vision, text)

    def warm_up(self) -> None:
        """Both."""
        self._timed.warm_up()
        self._decided(self._deciding.warm_up)

    def close(self) -> None:
        """Both stay open: they are their owners' to close."""

    def _decided(self, run: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        output = run(*args, **kwargs)
        with self._lock:
            before = self._aside
            self._aside = before[0] + time.perf_counter() - wall_s, before[1] + time.process_time() - cpu_s
        return output


class _Played:
    """A film as a recording, one second whenever it is asked for."""

    def __init__(self, film: Film, seconds: int) -> None:
        self.name, self.live, self.recorded = film.name, False, True
        self.senses: frozenset[Sense] = frozenset(SENSES)
        self.duration_s: float | None = seconds * WINDOW_S
        self._film, self._seconds = film, seconds
        self._asked = threading.Semaphore(2)  # a window is complete once the next one has begun
        self._stopping = False

    def ask(self) -> None:
        """Let one more second come."""
        self._asked.release()

    def chunks(self) -> Iterator[Chunk]:
        """Yield picture and sound of each second, or a gap in place of them."""
        for second in range(self._seconds):
            self._asked.acquire()
            if self._stopping:
                return
            place, now_s = second % len(self._film.frames), time.monotonic()
            frame, sound = self._film.frames[place], self._film.sounds[place]
            # A sense that the film lacks is declared missing: the next second is asked for when this one is decided.
            if frame is None:
                yield Gap(sense="vision", cause=GapCause.NO_VIDEO, start_s=float(second), duration_s=WINDOW_S)
            else:
                yield Frame(time_s=second + WINDOW_S / 2, captured_s=now_s, image=partial(_same, frame))
            if sound is None:
                yield Gap(sense="audio", cause=GapCause.NO_AUDIO, start_s=float(second), duration_s=WINDOW_S)
            else:
                yield Samples(time_s=float(second), captured_s=now_s, waveform=sound, rate_hz=self._film.rate_hz)

    def close(self) -> None:
        """End `chunks`, from any thread."""
        self._stopping = True
        self._asked.release()


def _same(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return frame


class _Watched:
    """A session, and what each of its seconds took."""

    def __init__(self, session: Session, source: _Played, backend: Backend) -> None:
        self._session, self._source, self._backend = session, source, backend
        self._updates = session.updates()
        self._rows: list[tuple[float, float, int]] = []

    def take(self) -> None:
        """Decide on one more second."""
        wall_s, cpu_s, encoded = self._reading()
        update = next(self._updates)
        self._source.ask()
        now = self._reading()
        pictures = now[2] - encoded
        if self._session.info.economy.mode == "off":
            pictures = int(update.window is not None and update.window.frame is not None)
        self._rows.append((1e3 * (now[0] - wall_s), 1e3 * (now[1] - cpu_s), pictures))

    @property
    def costs(self) -> Costs:
        work, cpu, encoded = zip(*self._rows, strict=True)
        plan = self._session.info.economy
        return Costs(work_ms=work, cpu_ms=cpu, encoded=encoded, note=plan.note, sound_first=plan.sound)

    def _reading(self) -> tuple[float, float, int]:
        stats = self._session.stats
        wall_s, cpu_s = self._backend.aside_s if isinstance(self._backend, Twin) else (0.0, 0.0)
        busy_s = stats.real_time_factor * stats.windows
        return busy_s - wall_s, time.process_time() - cpu_s, stats.economy.figures.encoded
