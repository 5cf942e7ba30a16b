"""How many cameras one service holds where encoding costs nothing: `python -m tests.service.many --cameras 1 100 1000`.

Made-up embeddings go as fast as they can through what follows the encoder: the real queue, decider, store, board and
archive, on a real disk. What is left of the head is its products with the texts, computed in this process; `--child`
asks a real encoder process, with the bundle's head, as the service does. The clocks are those of the media.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import msgspec
import numpy as np
import psutil
from numpy.typing import NDArray

from ovavel.runtime.archive import writer as archive_writer
from ovavel.runtime.archive.contexts import ContextVectors
from ovavel.runtime.backends import BackendInfo, HeadOutput
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.pipeline.fusion import fused_score
from ovavel.runtime.pipeline.localizer import Localizer
from ovavel.runtime.pipeline.tracker import EventTracker
from ovavel.service.archive.archivist import Archivist
from ovavel.service.capture.messages import Captured, Opened
from ovavel.service.config.site import Camera, Keep, Site
from ovavel.service.encoding.remote import RemoteEncoder
from ovavel.service.evidence.retention import Retention
from ovavel.service.link import Array
from ovavel.service.store.cameras import CameraFacts, add_camera
from ovavel.service.store.database import Database, one_row
from ovavel.service.watch import commits, decider
from ovavel.service.watch.board import Board
from ovavel.service.watch.decider import Decider
from ovavel.service.watch.queue import FairQueue, Waiting
from ovavel.service.watch.runs import camera_watch
from tests.service.soak import START_US, MediaTime

BUNDLE = Path(__file__).parents[2] / "eval" / "demo" / "assets" / "bundle"
SENSES = ("audio", "vision")
POOL = 64
"""Stored seconds of each class."""
EVENT_EVERY_S, EVENT_S = 120, 5
BATCH = 16
"""Windows that are decided on together."""
_US = 1_000_000
HEAD = (
    "| cameras | seconds of cameras in a second | deciding, ms of a processor each | store, ms | archive, ms "
    "| memory, MB | descriptors | threads | store, bytes a second | archive, bytes a second | lost |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|"
)


class Times:
    """Seconds that parts of the program take, on the clock and of a processor, by name; what is inside counts twice."""

    def __init__(self) -> None:
        self.wall_s: defaultdict[str, float] = defaultdict(float)
        self.cpu_s: defaultdict[str, float] = defaultdict(float)
        self.calls: defaultdict[str, int] = defaultdict(int)

    def of(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, measured."""

        @functools.wraps(function)
        def measured(*values: Any, **named: Any) -> Any:
            wall_s, cpu_s = time.perf_counter(), time.thread_time()
            try:
                return function(*values, **named)
            finally:
                self.wall_s[name] += time.perf_counter() - wall_s
                self.cpu_s[name] += time.thread_time() - cpu_s
                self.calls[name] += 1

        return measured

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Measure the parts."""
        parts: tuple[tuple[str, Any, str], ...] = (
            ("queue", FairQueue, "take"),
            ("localizer, with head", Localizer, "push"),
            ("tracker", EventTracker, "push"),
            ("board", Board, "show"),
            ("store", commits, "commit"),
            ("archive: vectors, with head", ContextVectors, "push"),
            ("archive: files", archive_writer.DayFiles, "write"),
            ("archive: syncs", archive_writer.DayFiles, "_sync"),
        )
        with contextlib.ExitStack() as patched:
            for name, place, attribute in parts:
                measured = self.of(name, getattr(place, attribute))
                patched.enter_context(mock.patch.object(place, attribute, measured))
            yield


class Stored:
    """In place of the encoder: stored embeddings. A frame or a sound is a class and a number in the pool."""

    def __init__(self, bundle: Bundle, child: RemoteEncoder | None) -> None:
        info = BackendInfo(
            name="stored", engine="stored", device="cpu", provider="", precision={}, threads=1, batch=BATCH
        )
        self.ready = SimpleNamespace(info=info)
        self._child = child
        random = np.random.default_rng(0)
        text = bundle.vocabulary.embeddings
        self._pools = {"audio": _pool(text.audio, random), "vision": _pool(text.vision, random)}

    def encode(self, frames: Any, sounds: Any) -> tuple[list[Any], list[Any]]:
        found = [
            [self._pools[sense][int(label), int(number)] for label, number in given]
            for sense, given in (("vision", frames), ("audio", sounds))
        ]
        return found[0], found[1]

    def head(self, audio: NDArray[np.float32], vision: NDArray[np.float32], text: TextEmbeddings) -> HeadOutput:
        if self._child:
            return self._child.head(audio, vision, text)
        similarity = audio @ text.audio.T, vision @ text.vision.T
        return HeadOutput(*similarity, fused_score(*similarity))

    def contexts(self, audio: NDArray[np.float32], vision: NDArray[np.float32]) -> HeadOutput:
        return self._child.contexts(audio, vision) if self._child else HeadOutput(audio, vision, audio)


def _pool(text: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    """(C+1, POOL, D) of unit norm, each nearest to its class."""
    noise = random.standard_normal((len(text), POOL, text.shape[1])).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=-1, keepdims=True)
    vectors = text[:, None] + 0.3 * noise
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


class StoredQueue(FairQueue):
    """Brings the next second of all cameras where nothing waits."""

    def __init__(self, cameras: list[str], bring: Callable[[], None]) -> None:
        super().__init__(dict.fromkeys(cameras, 1))
        self._bring = bring

    def take(self, most: int, timeout_s: float | None = None) -> list[Waiting]:
        if not self.has_news:
            self._bring()
        return super().take(most, 0)


class Looked:
    """The archive, and what the process holds when the first camera ends."""

    def __init__(self, archivist: Archivist, queue: FairQueue) -> None:
        self._archivist, self._queue = archivist, queue
        self.begin, self.second = archivist.begin, archivist.second
        self.rss = self.descriptors = self.threads = 0

    def end(self, camera: str) -> None:
        if self._queue.closed and not self.rss:
            process = psutil.Process()
            self.rss, self.descriptors = process.memory_info().rss, process.num_fds()
            self.threads = process.num_threads()
        self._archivist.end(camera)


class World:
    """A site of many cameras, in media time."""

    def __init__(self, folder: Path, bundle: Bundle, cameras: int, seconds: int, encoder: Any) -> None:
        self.ids = [f"camera-{number:04}" for number in range(cameras)]
        self._seconds, self._bundle = seconds, bundle
        site = Site(
            bundle=str(BUNDLE),
            data=str(folder),
            camera=tuple(Camera(id=each, source="stored") for each in self.ids),
            keep=Keep(archive_gb=10_000, archive_days=3650, min_free_gb=0),
        )
        self.time = MediaTime()
        self.store = Database.open(folder, ballast_bytes=0)
        with self.store.write() as transaction:
            for each in self.ids:
                facts = CameraFacts(id=each, name=each, tz="UTC", source_redacted="stored", config_sha="0" * 64)
                add_camera(transaction, facts, now_us=self.time.now_us)
        self.archivist = Archivist(self.store, bundle, encoder, site, Retention(self.store, site.keep))
        self.queue = StoredQueue(self.ids, self._bring)
        self.looked: Any = Looked(self.archivist, self.queue)
        board = Board()
        self.decider = Decider(
            self.store,
            bundle,
            encoder,
            self.queue,
            site.camera,
            sinks=(),
            shown=lambda *seen: board.show(*seen),
            restart=lambda camera: None,
            archive=self.looked,
        )
        self.second = 0
        self.waited_s = 0.0

    def run(self) -> None:
        """Decide on all of it, until it is committed and archived."""
        self.archivist.start()
        self.decider.run()
        self.archivist.close(600)

    def _bring(self) -> None:
        """Bring the next second of every camera, once the archive has taken the one before."""
        began_s = time.perf_counter()
        while self.archivist._jobs.qsize() > len(self.ids):
            time.sleep(0.001)
        self.waited_s += time.perf_counter() - began_s
        second, self.second = self.second, self.second + 1
        if second == self._seconds:
            self.queue.close()
            return
        at_us = self.time.now_us = START_US + second * _US
        monotonic_us = at_us - START_US
        for number, camera in enumerate(self.ids):
            if second == 0:
                self.queue.put(camera, Opened(senses=SENSES, child=1, monotonic_us=monotonic_us, utc_us=at_us))
            media = Array.of(np.array([self._label(number, second), (31 * number + second) % POOL], np.float32))
            window = Captured(
                index=second,
                start_s=float(second),
                frame=media,
                sound=media,
                picture=None,
                spectrum=None,
                gaps=(),
                notices=(),
                monotonic_us=monotonic_us + _US,
                utc_us=at_us + _US,
            )
            self.queue.put(camera, window)

    def _label(self, number: int, second: int) -> int:
        """The class of a second; -1 is the background."""
        count, at = divmod(second + 11 * number, EVENT_EVERY_S)
        return (count + 7 * number) % (len(self._bundle.vocabulary.names) - 1) if at < EVENT_S else -1


def sized(bundle: Bundle, size: int) -> Bundle:
    """The bundle as if its embeddings had `size` components; its texts are made up."""
    encoders = bundle.manifest.encoders
    changed = {sense: msgspec.structs.replace(getattr(encoders, sense), embedding_size=size) for sense in SENSES}
    manifest = msgspec.structs.replace(bundle.manifest, encoders=msgspec.structs.replace(encoders, **changed))
    names = bundle.vocabulary.names
    text = np.random.default_rng(1).standard_normal((len(names), size)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    return Bundle(
        path=bundle.path,
        manifest=manifest,
        sha256=bundle.sha256,
        vocabulary=Vocabulary(names=names, embeddings=TextEmbeddings.shared(text)),
    )


def measure(bundle: Bundle, cameras: int, seconds: int, folder: Path, encoder: Stored) -> tuple[str, Times]:
    """Return a row of the table, and where the time went."""
    with tempfile.TemporaryDirectory(prefix="many-", dir=folder) as name:
        times, process = Times(), psutil.Process()
        gc.collect()
        before = process.memory_info().rss
        world = World(Path(name), bundle, cameras, seconds, encoder)
        with contextlib.ExitStack() as stack:
            for module in (decider, camera_watch):
                stack.enter_context(mock.patch.object(module, "time", world.time))
            stack.enter_context(times.watching())
            used, began_s = process.cpu_times(), time.monotonic()
            world.run()
            took_s, after = time.monotonic() - began_s, process.cpu_times()
        looked = world.looked
        count = cameras * seconds
        final = one_row(world.store.read, "SELECT sum(final) FROM account")[0]
        lost = count - final + sum(world.archivist.lost.values()) + count - sum(world.archivist.written.values())
        world.store.close()
        store = sum(each.stat().st_size for each in Path(name).glob("ovavel.sqlite3*"))
        archive = sum(each.stat().st_blocks * 512 for each in Path(name).glob("context/*/*/*"))
    total_s = after.user + after.system - used.user - used.system
    parts = times.cpu_s
    archive_s = parts["archive: vectors, with head"] + parts["archive: files"]
    cells = [
        str(cameras),
        f"{count / took_s:.0f}",
        *(f"{1e3 * each / count:.3f}" for each in (total_s - archive_s - parts["store"], parts["store"], archive_s)),
        f"{(looked.rss - before) / 1e6:.0f}",
        str(looked.descriptors),
        str(looked.threads),
        f"{store / count:.1f}",
        f"{archive / count:.0f}",
        str(lost),
    ]
    times.wall_s["waited for the archive"] = world.waited_s
    return f"| {' | '.join(cells)} |", times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cameras", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--seconds", type=int, default=60, help="of each camera")
    parser.add_argument("--size", type=int, default=1024, help="components of an embedding")
    parser.add_argument("--child", action="store_true", help="ask an encoder process for the demo's head")
    parser.add_argument("--folder", type=Path, help="on the disk to be measured")
    options = parser.parse_args()
    bundle = Bundle.open(BUNDLE)
    child = None
    if options.child:
        child = RemoteEncoder(BUNDLE, {"name": "onnxruntime", "precision": None, "device": "cpu", "threads": 1})
    else:
        bundle = sized(bundle, options.size)
    encoder = Stored(bundle, child)
    print(HEAD, flush=True)
    try:
        for cameras in options.cameras:
            seconds = max(options.seconds, -(-600 // cameras))
            row, times = measure(bundle, cameras, seconds, options.folder, encoder)
            print(row, flush=True)
            count = cameras * seconds
            each = [
                f"{name} {1e3 * wall_s / count:.3f} ({1e3 * times.cpu_s[name] / count:.3f})"
                for name, wall_s in times.wall_s.items()
            ]
            print(f"<!-- ms each, and of a processor: {', '.join(each)} -->", flush=True)
    finally:
        if child:
            child.close()


if __name__ == "__main__":
    main()
