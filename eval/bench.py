"""How long a window takes, stage by stage, in the runtime's own parts, and against PyTorch on request.

Each window goes through decoding, preprocessing, both encoders, the temporal head and the event tracker, one window
at a time, as in live use. With PyTorch, the same window goes through both backends in turn, so that a busy moment of
the machine meets both.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ovavel.eval.machine import Machine, describe_machine, peak_memory_mb
from ovavel.runtime.assembler import WindowAssembler
from ovavel.runtime.backends import Backend, BackendInfo, open_backend
from ovavel.runtime.bundle import Bundle
from ovavel.runtime.encoder import Encoder
from ovavel.runtime.errors import MediaError, UsageError
from ovavel.runtime.localizer import Localizer
from ovavel.runtime.sources.media import MediaSource
from ovavel.runtime.timing import Percentiles, Timings
from ovavel.runtime.tracker import EventTracker
from ovavel.runtime.types import RATE_HZ, Segment, Window

__all__ = ["STAGES", "BackendReport", "BenchReport", "Ratio", "run_bench"]

STAGES = ("decode", "preprocess", "vision", "audio", "head", "decide", "besides encoders", "window", "end to end")
"""`besides encoders` is preprocess, head and decide; `window` adds the encoders; `end to end` adds decoding."""

_WARM_UP = 3
_KEPT_WINDOWS = 12
_KEPT_DURATIONS = 1_000_000
_REST_S = 0.05  # the threads of one backend come to rest before the other is timed
_CLIP_S = 12
_CLIP_SIZE = (640, 360)
_CLIP_FPS = 25

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendReport:
    """One backend's figures."""

    backend: BackendInfo
    stages_ms: dict[str, Percentiles]
    """Milliseconds a window, by stage; a sense the media lacks has no stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """How many times faster than PyTorch eager."""

    of_medians: float
    p5: float
    """Of the ratios of the single pairs, as is `p95`."""
    p95: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchReport:
    """All that `ovavel bench` finds out."""

    machine: Machine
    bundle_sha256: str
    model: str
    media: str
    windows: int
    runtime: BackendReport
    peak_memory_mb: float
    """Most memory resident while the runtime alone was loaded and running, in units of 2^20 bytes."""
    pytorch: BackendReport | None = None
    ratios: dict[str, Ratio] | None = None
    """By stage, where PyTorch was run too."""


def run_bench(
    bundle: Bundle,
    *,
    weights: Path | None = None,
    head: Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    windows: int = 30,
    media: str | None = None,
    tell: Tell = lambda _: None,
) -> BenchReport:
    """Time `windows` windows after warm-up.

    Args:
        bundle: what to run.
        weights: the ImageBind checkpoint of the bundle: runs PyTorch eager fp32 too, on the same device and threads.
        head: the temporal head's checkpoint for PyTorch, where the bundle has one.
        device: "cpu", "cuda", "cuda:N" or "auto".
        threads: cores for the encoders on the CPU.
        windows: how many to time; the media is gone through again as often as it takes.
        media: a recording; None makes a clip of noise.
        tell: told in a few words what is going on.

    Raises:
        UsageError: `windows` is not positive, or `media` is a live stream.
        MediaError, DeviceError, BundleError, CheckpointError, MissingExtraError: what cannot be opened, and why.
    """
    if windows < 1:
        raise UsageError(f"windows must be at least 1, not {windows}")
    tell("decoding")
    kept, decode_ms = _decode(media, windows)
    tell("loading the bundle")
    own = _Pipeline(bundle, open_backend(bundle, device=device, threads=threads))
    try:
        tell("warming up")
        own.warm_up(kept)
        reference = None
        if weights is None:
            _time(windows, kept, [own], tell)
            memory_mb = peak_memory_mb()
        else:
            for window in kept[:_WARM_UP]:  # the most memory that it takes alone
                own.run(window)
            memory_mb = peak_memory_mb()
            own.timings.clear()
            tell("loading PyTorch")
            info = own.backend.info
            reference = _Pipeline(
                bundle,
                open_backend(
                    bundle, name="torch", device=info.device, threads=info.threads, weights=weights, head=head
                ),
            )
            try:
                reference.warm_up(kept)
                _time(windows, kept, [own, reference], tell)
            finally:
                reference.close()
    finally:
        own.close()
    return BenchReport(
        machine=describe_machine(),
        bundle_sha256=bundle.sha256,
        model=bundle.manifest.model.name,
        media=media or f"noise, {_CLIP_SIZE[0]} × {_CLIP_SIZE[1]} at {_CLIP_FPS} frames/s",
        windows=windows,
        runtime=own.report(decode_ms),
        peak_memory_mb=round(memory_mb, 1),
        pytorch=reference.report(decode_ms) if reference else None,
        ratios=_ratios(reference.durations_ms(decode_ms), own.durations_ms(decode_ms)) if reference else None,
    )


class _Pipeline:
    """A window's whole way through one backend, timed."""

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self.backend = backend
        self.timings = Timings(keep=_KEPT_DURATIONS)
        self._encoder = Encoder(backend, self.timings)
        self._localizer = Localizer(backend.head, bundle.vocabulary)
        self._tracker = EventTracker(bundle.vocabulary.background)
        self._index = 0

    def warm_up(self, windows: Sequence[Window]) -> None:
        """Run until caches are filled and first-run costs are paid."""
        self.backend.warm_up()
        for window in itertools.islice(itertools.cycle(windows), _WARM_UP):
            self.run(window)
        self.timings.clear()

    def run(self, window: Window) -> None:
        """Take one window to its decision."""
        begin_s = time.perf_counter()
        segment = self._encoder.encode([window])[0]
        # The same few windows come again and again; to the localizer they are one long stream.
        segment = Segment(index=self._index, start_s=float(self._index), vision=segment.vision, audio=segment.audio)
        self._index += 1
        with self.timings.measure("head"):
            scores = self._localizer.push(segment)
        with self.timings.measure("decide"):
            self._tracker.push(scores)
        self.timings.add("window", (time.perf_counter() - begin_s) * 1e3)

    def durations_ms(self, decode_ms: Sequence[float]) -> dict[str, list[float]]:
        """Milliseconds of every window by stage, in the order of `STAGES`."""
        found = {stage: list(self.timings.durations_ms(stage)) for stage in self.timings.stages()}
        found["decode"] = list(decode_ms)
        parts = [found[stage] for stage in ("preprocess", "head", "decide")]
        found["besides encoders"] = [sum(durations) for durations in zip(*parts, strict=True)]
        found["end to end"] = [a + b for a, b in zip(found["window"], itertools.cycle(decode_ms), strict=False)]
        return {stage: found[stage] for stage in STAGES if stage in found}

    def report(self, decode_ms: Sequence[float]) -> BackendReport:
        """Sum up."""
        timings = Timings(keep=_KEPT_DURATIONS)
        for stage, durations in self.durations_ms(decode_ms).items():
            for duration in durations:
                timings.add(stage, duration)
        stages = {stage: timings.percentiles(stage) for stage in timings.stages()}
        return BackendReport(
            backend=self.backend.info, stages_ms={stage: found for stage, found in stages.items() if found}
        )

    def close(self) -> None:
        self._encoder.close()
        self.backend.close()


def _time(count: int, windows: Sequence[Window], pipelines: Sequence[_Pipeline], tell: Tell) -> None:
    """Run `count` windows through each pipeline; which goes first changes with each window."""
    for i, window in enumerate(itertools.islice(itertools.cycle(windows), count)):
        tell(f"window {i + 1} of {count}")
        for pipeline in pipelines if i % 2 == 0 else reversed(pipelines):
            if len(pipelines) > 1:
                time.sleep(_REST_S)
            pipeline.run(window)


def _ratios(slow: dict[str, list[float]], fast: dict[str, list[float]]) -> dict[str, Ratio]:
    ratios: dict[str, Ratio] = {}
    for stage in ("vision", "audio", "window"):
        if stage in slow and stage in fast:
            pairs = np.array(slow[stage]) / np.array(fast[stage])
            p5, p95 = np.percentile(pairs, [5, 95])
            of_medians = float(np.median(slow[stage]) / np.median(fast[stage]))
            ratios[stage] = Ratio(of_medians=of_medians, p5=float(p5), p95=float(p95))
    return ratios


def _decode(media: str | None, count: int) -> tuple[list[Window], list[float]]:
    """Return windows to work with, and how long each of up to `count` windows took to decode and assemble."""
    if media is not None:
        return _decode_file(media, count)
    with TemporaryDirectory(prefix="ovavel-bench-") as folder:
        clip = Path(folder) / "noise.mp4"
        _write_noise(clip)
        return _decode_file(str(clip), count)


def _decode_file(path: str, count: int) -> tuple[list[Window], list[float]]:
    source = MediaSource(path)
    if source.live:
        source.close()
        raise UsageError(f"{path} is a live stream, whose decoding takes as long as it plays; give a recording")
    kept: list[Window] = []
    durations: list[float] = []
    try:
        for window, duration_ms in _timed_windows(source):
            if len(kept) < _KEPT_WINDOWS:
                kept.append(window)
            if duration_ms is not None:
                durations.append(duration_ms)
            if len(durations) == count and len(kept) == min(count, _KEPT_WINDOWS):
                break
    finally:
        source.close()
    if not kept:
        raise MediaError(f"{path} holds less than one window of a second; give a longer recording")
    return kept, durations or [0.0]


def _timed_windows(source: MediaSource) -> Iterator[tuple[Window, float | None]]:
    """Windows and their decoding times; None for those that only the end of the media brings out."""
    assembler = WindowAssembler(source.senses, live=False)
    begin_s = time.perf_counter()
    for chunk in source.chunks():
        windows = assembler.push(chunk)
        if windows:
            each_ms = (time.perf_counter() - begin_s) * 1e3 / len(windows)
            for window in windows:
                yield window, each_ms
            begin_s = time.perf_counter()
    for window in assembler.flush():
        yield window, None


def _write_noise(path: Path) -> None:
    """Write a clip of moving noise and noisy sound, about as hard to decode as real media of its size."""
    import av

    random = np.random.default_rng(0)
    width, height = _CLIP_SIZE
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=_CLIP_FPS)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        sound = container.add_stream("aac", rate=RATE_HZ, layout="stereo")
        picture = np.kron(random.integers(0, 256, (height // 8, width // 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
        for second in range(_CLIP_S):
            for _ in range(_CLIP_FPS):
                picture = np.roll(picture, 3, axis=1)
                container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            samples = (0.1 * random.standard_normal((2, RATE_HZ))).astype(np.float32)
            block = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
            block.sample_rate, block.pts = RATE_HZ, second * RATE_HZ
            container.mux(sound.encode(block))
        for stream in (video, sound):
            container.mux(stream.encode(None))
