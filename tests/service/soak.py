"""Hours of several cameras in minutes, and what must not grow meanwhile: `python -m tests.service.soak --hours 24`.

Made-up windows go through the real queue, decider, store, evidence and delivery as fast as they can; the encoder and
the capture processes are stand-ins, and the clocks are those of the media.

Many lines: the stand-ins, the course of the hours and what is measured belong to this program alone.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import json
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import psutil

from ovavel.runtime.backends import BackendInfo, HeadOutput
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.pipeline.fusion import cosine_similarity, fused_score
from ovavel.service.capture.child import small_picture
from ovavel.service.capture.feed import OFFLINE, CameraState, Ended
from ovavel.service.capture.messages import Captured, Clip, Cut, Opened
from ovavel.service.capture.spectrum import spectrum_of
from ovavel.service.config.sinks import Jsonl
from ovavel.service.config.site import Camera, Keep, Site
from ovavel.service.delivery.deliveries import open_sender
from ovavel.service.delivery.message import Place
from ovavel.service.delivery.worker import Worker
from ovavel.service.evidence import keeper as keeping
from ovavel.service.evidence import retention
from ovavel.service.evidence.keeper import Keeper
from ovavel.service.link import Array
from ovavel.service.store.accounts import read_accounts
from ovavel.service.store.cameras import CameraFacts, add_camera
from ovavel.service.store.care.invariants import violations
from ovavel.service.store.database import FILE, Database, one_row, rows
from ovavel.service.watch import decider as deciding
from ovavel.service.watch.board import Board
from ovavel.service.watch.decider import Decider
from ovavel.service.watch.incidents import Monitor
from ovavel.service.watch.queue import FairQueue, Waiting
from ovavel.service.watch.runs import camera_watch as watching
from ovavel.service.watch.runs.camera_watch import Seen

if (TESTS := str(Path(__file__).parents[1])) not in sys.path:
    sys.path.insert(0, TESTS)

from support.chaos.scratch import scratch

BUNDLE = Path(__file__).parents[2] / "eval" / "demo" / "assets" / "bundle"
START_US = 1_699_999_200_000_000
"""A full hour."""
_US = 1_000_000
EVENT_EVERY_S, OUTAGE_EVERY_S, OUTAGE_S, LACKS_EVERY_S = 120, 1800, 60, 97
SETTLE_EVERY_S, LOOK_EVERY_S = 60, 10
CLIP = bytes(range(256)) * 80
KEEP = Keep(clips_gb=0.001, snapshots_gb=0.001, min_free_gb=0)
"""So little that most of an hour's files go again."""
GROWTH_BYTES = 8_000_000
"""Memory may grow by so much over the second half: caches and the allocator, not something for each window."""
WAL_BYTES = 16_000_000
"""SQLite writes its log back into the file at about 4 MB."""
WITHIN_S = 120.0
MEMORY = Path("/dev/shm")
"""A soak writes some hundred thousand transactions; on a disk that alone would take hours."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment."""

    hours: float
    rss: int
    descriptors: int
    threads: int
    wal: int
    files: int
    """Of evidence."""
    rows: dict[str, int]
    cpu_s: float
    """Of this process since the start."""


@dataclass
class Soaked:
    """What a soak showed."""

    cameras: int
    samples: list[Sample] = field(default_factory=list)
    events: int = 0
    runs: int = 0
    wrong: list[str] = field(default_factory=list)
    """What did not hold; empty where all did."""

    @property
    def rss_slope(self) -> float:
        """Bytes an hour of media over the second half."""
        half = self.second_half
        return float(np.polyfit([each.hours for each in half], [each.rss for each in half], 1)[0])

    @property
    def second_half(self) -> list[Sample]:
        """Samples after everything has been used for a while."""
        return self.samples[len(self.samples) // 2 :]


class MediaTime:
    """In place of the module `time`: the clocks of the media."""

    def __init__(self) -> None:
        self.now_us = START_US

    def time_ns(self) -> int:
        return self.now_us * 1000

    def monotonic_ns(self) -> int:
        return (self.now_us - START_US) * 1000

    def monotonic(self) -> float:
        return (self.now_us - START_US) / _US

    def microseconds(self) -> int:
        return self.now_us


class Encoder:
    """Embeds a frame or a sound that holds the number of a name as the text of that name."""

    ready = SimpleNamespace(
        info=BackendInfo(name="stub", engine="stub", device="cpu", provider="stub", precision={}, threads=1, batch=8)
    )

    def __init__(self, bundle: Bundle) -> None:
        self._text = bundle.vocabulary.embeddings

    def encode(self, frames: Sequence[Any], sounds: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        vision = [self._text.vision[int(each[0])] for each in frames]
        return vision, [self._text.audio[int(each[0])] for each in sounds]

    def head(self, audio: np.ndarray, vision: np.ndarray, text: TextEmbeddings) -> HeadOutput:
        similarities = (cosine_similarity(audio, text.audio), cosine_similarity(vision, text.vision))
        return HeadOutput(*similarities, fused_score(*similarities))


class Script:
    """What happens before one camera."""

    def __init__(self, number: int, labels: int) -> None:
        self._number, self._labels = number, labels

    def offline(self, second: int) -> bool:
        return (second + 60 * self._number) % OUTAGE_EVERY_S >= OUTAGE_EVERY_S - OUTAGE_S

    def label(self, second: int) -> int:
        """The class of a second; -1 is the background."""
        count, at = divmod(second + 11 * self._number, EVENT_EVERY_S)
        return (count + 7 * self._number) % self._labels if at < 3 + count % 5 else -1

    def lacks_frame(self, second: int) -> bool:
        return self.label(second) < 0 and second % LACKS_EVERY_S == 0

    def events(self, seconds: int) -> list[tuple[int, int, int]]:
        """Start, end and class of what is to be found."""
        found: list[tuple[int, int, int]] = []
        for second in range(seconds):
            label = -1 if self.offline(second) else self.label(second)
            if label < 0:
                continue
            if found and found[-1][1] == second and found[-1][2] == label:
                found[-1] = (found[-1][0], second + 1, label)
            else:
                found.append((second, second + 1, label))
        return found


class MadeUpQueue(FairQueue):
    """Brings the next second where nothing waits, so that deciding never waits for another thread."""

    def __init__(self, cameras: Sequence[str], bring: Callable[[], None]) -> None:
        super().__init__(dict.fromkeys(cameras, 1))
        self._cameras, self._bring = cameras, bring

    def take(self, most: int, timeout_s: float | None = None) -> list[Waiting]:
        if not any(self.waiting(each) for each in self._cameras):
            self._bring()
        return super().take(most, 0)


class World:
    """A site in media time."""

    def __init__(self, folder: Path, cameras: int, seconds: int) -> None:
        self.time, self.folder, self._seconds = MediaTime(), folder, iter(range(seconds))
        self.news = folder / "news.jsonl"
        sink = Jsonl(id="file", path=str(self.news))
        self.ids = [f"camera-{number}" for number in range(cameras)]
        self.site = Site(
            bundle=str(BUNDLE),
            data=str(folder / "data"),
            camera=tuple(Camera(id=each, source="made-up") for each in self.ids),
            sink=(sink,),
            keep=KEEP,
        )
        self.bundle = Bundle.open(BUNDLE)
        self.labels = self.bundle.vocabulary.names[:-1]
        self.scripts = {each: Script(number, len(self.labels)) for number, each in enumerate(self.ids)}
        self.store = Database.open(folder / "data", ballast_bytes=0)
        with self.store.write() as transaction:
            for each in self.ids:
                facts = CameraFacts(id=each, name=each, tz="UTC", source_redacted="made-up", config_sha="0" * 64)
                add_camera(transaction, facts, now_us=START_US)
        self.keeper = Keeper(self.store, self.site, self._cut)
        self.board = Board()
        self.queue = MadeUpQueue(self.ids, self._next)
        place = Place(self.site, self.labels)
        self.worker = Worker(sink, open_sender(sink, place), self.store, place, clock=self.time.microseconds)
        self.store.grown = self.worker.wake
        self.feeds = {
            each.id: SimpleNamespace(camera=each, state=CameraState.STARTING, why="", lost="", restarts=0)
            for each in self.site.camera
        }
        self.monitor = Monitor(
            self.store,
            self.site,
            self.feeds,  # type: ignore[arg-type]
            free_bytes=lambda _: 1 << 40,
        )
        self.restarted: list[str] = []
        self.passed: Callable[[int], object] = lambda _: None
        """Called with how many seconds are decided."""
        self.decider = Decider(
            self.store,
            self.bundle,
            Encoder(self.bundle),  # type: ignore[arg-type]
            self.queue,
            self.site.camera,
            sinks=self.site.sink,
            shown=self._show,
            restart=self.restarted.append,
            keeper=self.keeper,
        )
        random = np.random.default_rng(0)
        self._picture = small_picture(random.integers(0, 255, (36, 64, 3), np.uint8))
        self._spectrum = spectrum_of(random.standard_normal(16_000).astype(np.float32))
        self._opened_at: dict[str, int] = {}

    def run(self) -> None:
        """Decide on all of it."""
        self.keeper.start()
        self.worker.start()
        try:
            self.decider.run()
        finally:
            self.keeper.close(WITHIN_S)
            self.worker.stop()
            self.worker.join(WITHIN_S)

    def _next(self) -> None:
        """Bring the next second of every camera."""
        second = next(self._seconds, None)
        if second is None:
            self.time.now_us += _US
            self.queue.close()
            return
        if second:
            self.passed(second)
        self.time.now_us = START_US + second * _US
        if second % LOOK_EVERY_S == 0:
            self.monitor.look(now_s=self.time.monotonic(), now_us=self.time.now_us)
        for each in self.ids:
            self._bring(each, second)

    def settle(self) -> None:
        """Wait until evidence is written and news delivered."""
        self.worker.wake()
        end_s = time.monotonic() + WITHIN_S
        pending = (
            "SELECT (SELECT count(*) FROM asset WHERE state = 'pending'), "
            "(SELECT count(*) FROM outbox WHERE state = 'pending')"
        )
        while one_row(self.store.read, pending) != (0, 0):
            if time.monotonic() > end_s:
                raise AssertionError(f"still pending: {one_row(self.store.read, pending)}, {self.worker.trouble!r}")
            time.sleep(0.001)

    def sample(self, second: int) -> Sample:
        gc.collect()
        process, used = psutil.Process(), resource.getrusage(resource.RUSAGE_SELF)
        names = [name for (name,) in rows(self.store.read, "SELECT name FROM sqlite_schema WHERE type = 'table'")]
        wal = self.store.folder / f"{FILE}-wal"
        return Sample(
            hours=second / 3600,
            rss=process.memory_info().rss,
            descriptors=process.num_fds(),
            threads=process.num_threads(),
            wal=wal.stat().st_size if wal.exists() else 0,
            files=sum(each.is_file() for each in self.store.folder.glob("media/**/*")),
            rows={name: one_row(self.store.read, f'SELECT count(*) FROM "{name}"')[0] for name in sorted(names)},
            cpu_s=used.ru_utime + used.ru_stime,
        )

    def _bring(self, camera: str, second: int) -> None:
        script, feed, at_us = self.scripts[camera], self.feeds[camera], self.time.now_us
        if script.offline(second):
            if feed.state is CameraState.WATCHING:
                feed.state, feed.why = CameraState.OFFLINE, "it was switched off"
                feed.restarts += 1
                self.queue.put(camera, Ended(OFFLINE, feed.why))
            return
        if feed.state is not CameraState.WATCHING:
            feed.state, self._opened_at[camera] = CameraState.WATCHING, second
            senses = ("audio", "vision")
            self.queue.put(
                camera, Opened(senses=senses, child=feed.restarts, monotonic_us=at_us - START_US, utc_us=at_us)
            )
        media = Array.of(np.array([script.label(second)], np.float32))
        index = second - self._opened_at[camera]
        self.queue.put(
            camera,
            Captured(
                index=index,
                start_s=float(index),
                frame=None if script.lacks_frame(second) else media,
                sound=media,
                picture=self._picture + second.to_bytes(4),  # no two are one object
                spectrum=bytes(self._spectrum),
                gaps=(),
                notices=(),
                monotonic_us=at_us - START_US + _US,
                utc_us=at_us + _US,
            ),
        )

    def _show(self, camera: str, window: Captured | None, seen: Seen) -> None:
        self.board.show(camera, window, seen)

    def _cut(self, camera: str, cut: Cut) -> bool:
        """As a capture process: writes a file, and says so."""
        path = Path(cut.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CLIP)
        clip = Clip(
            event=cut.event,
            bytes=len(CLIP),
            sha256=hashlib.sha256(CLIP).hexdigest(),
            start_s=max(0.0, cut.from_s),
            end_s=cut.to_s,
            has_audio=True,
            codec="h264",
        )
        self.keeper.clipped(camera, clip)
        return True


@contextlib.contextmanager
def media_time(clock: MediaTime) -> Iterator[None]:
    """The clocks of the media for all that reads a clock by itself."""
    with contextlib.ExitStack() as patched:
        for module in (deciding, watching, keeping, retention):
            patched.enter_context(mock.patch.object(module, "time", clock))
        yield


def run(cameras: int, minutes: int, *, report: Callable[[str], object] = print) -> Soaked:
    """Soak a site of so many cameras for so many minutes of media."""
    soaked, seconds = Soaked(cameras), 60 * minutes
    gc.collect()
    gc.freeze()  # what was there before is not searched at each sample
    every_s = max(SETTLE_EVERY_S, seconds // 144 // SETTLE_EVERY_S * SETTLE_EVERY_S)
    with scratch(MEMORY if MEMORY.is_dir() else None) as folder:
        world = World(folder, cameras, seconds)

        def passed(second: int) -> None:
            if second % SETTLE_EVERY_S == 0:
                world.settle()
            if second % every_s == 0:
                soaked.samples.append(world.sample(second))
                if second % 3600 == 0:
                    report(_line(soaked.samples[-1]))

        world.passed = passed
        with world.store, media_time(world.time):
            world.run()
            _check(world, soaked, seconds)
    return soaked


def _check(world: World, soaked: Soaked, seconds: int) -> None:
    read, wrong = world.store.read, soaked.wrong
    wrong += violations(read, world.store.folder)
    wrong += [f"{each} was restarted" for each in world.restarted]
    expected = {
        (camera, START_US + start * _US, START_US + end * _US, world.labels[label])
        for camera, script in world.scripts.items()
        for start, end, label in script.events(seconds)
    }
    query = "SELECT camera_id, start_us, end_us, label, state FROM event"
    found = {tuple(row[:4]) for row in rows(read, query)}
    wrong += [f"event {each} is missing" for each in sorted(expected - found)[:5]]
    wrong += [f"event {each} should not be" for each in sorted(found - expected)[:5]]
    soaked.events, soaked.runs = len(found), one_row(read, "SELECT count(*) FROM run")[0]
    for camera, script in world.scripts.items():
        watched = sum(not script.offline(second) for second in range(seconds))
        accounts = read_accounts(read, camera, from_us=0, to_us=2**62)
        account = sum(each.final for each in accounts), sum(each.final_us for each in accounts) // _US
        if account != (watched, watched):
            wrong.append(f"{camera} was watched for {watched} s, and accounts for {account}")
        if (total := sum(each.total_us for each in accounts) // _US) != seconds:
            wrong.append(f"{camera} accounts for {total} of {seconds} s")
    lines = [json.loads(line) for line in world.news.read_text().splitlines()]
    delivered = Counter((line["id"], line["revision"]) for line in lines)
    meant = set(rows(read, "SELECT event_id, revision FROM outbox"))
    if delivered.keys() != meant or delivered.total() != len(meant):
        wrong.append(f"{delivered.total()} deliveries of {len(delivered)}, and not {len(meant)}")
    wrong += growth(soaked)
    exact = {
        "event": len(expected),
        "asset": 3 * len(expected),
        "run": soaked.runs,
        "anchor": soaked.runs,
        "account": len(world.ids) * -(-seconds // 3600),
    }
    last = {name: one_row(read, f'SELECT count(*) FROM "{name}"')[0] for name in exact}
    wrong += [f"{last[name]} rows of {name}, and not {count}" for name, count in exact.items() if last[name] != count]


def growth(soaked: Soaked) -> list[str]:
    """What grew and should not have."""
    half, last = soaked.second_half, soaked.samples[-1]
    first = soaked.samples[: len(soaked.samples) // 2]
    found, span = [], last.hours - half[0].hours
    if (grown := soaked.rss_slope * span) > GROWTH_BYTES:
        found.append(f"memory grew by {grown / 1e6:.1f} MB within {span:.1f} h of media")
    for name in ("descriptors", "threads"):
        most = max(getattr(each, name) for each in first)
        if (now := max(getattr(each, name) for each in half)) > most:
            found.append(f"{name} grew from {most} to {now}")
    if (wal := max(each.wal for each in soaked.samples)) > WAL_BYTES:
        found.append(f"the log of the store grew to {wal} bytes")
    kept = (KEEP.clips_gb + KEEP.snapshots_gb) * 1e9
    if last.files > 2 * max(each.files for each in first) and last.files * len(CLIP) > kept:
        found.append(f"{last.files} files of evidence are kept")
    # Events, their evidence and their deliveries are kept, so their rows grow with time, and not faster.
    for name, count in last.rows.items():
        most = half[0].rows[name] * last.hours / half[0].hours
        if count > 1.1 * most + 50:
            found.append(f"rows of {name} grew faster than time, to {count}")
    return found


def _line(each: Sample) -> str:
    kept = ", ".join(f"{name} {each.rows[name]}" for name in ("event", "event_log", "outbox", "asset"))
    return (
        f"{each.hours:5.1f} h: {each.rss / 1e6:.1f} MB, {each.descriptors} descriptors, {each.threads} threads, "
        f"WAL {each.wal / 1e6:.1f} MB, {each.files} files, {each.cpu_s:.0f} s of CPU; rows: {kept}"
    )


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cameras", type=int, default=8)
    parser.add_argument("--hours", type=float, default=24.0)
    parsed = parser.parse_args()
    try:
        soaked = run(parsed.cameras, round(60 * parsed.hours), report=lambda text: print(text, flush=True))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    half = soaked.second_half
    print(
        f"\n{soaked.cameras} cameras, {parsed.hours:g} h of media: {soaked.events} events in {soaked.runs} runs; "
        f"over the second half memory grew by {soaked.rss_slope / 1e3:.0f} kB an hour of media, "
        f"from {half[0].rss / 1e6:.1f} to {half[-1].rss / 1e6:.1f} MB; {half[-1].cpu_s:.0f} s of CPU"
    )
    for wrong in soaked.wrong:
        print(f"! {wrong}")
    return bool(soaked.wrong)


if __name__ == "__main__":
    raise SystemExit(main())
