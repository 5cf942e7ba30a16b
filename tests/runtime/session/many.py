"""Memory of many cameras in one process: `python -m tests.runtime.session.many CLIP --bundle BUNDLE`.

Each camera is a `Session` with a thread, a decoder and queues of its own; all use one backend. A recording is decoded
by several threads, each with pictures of its own. With `--live` each session watches the recording, which has to be an
MPEG transport stream, from a server at its own speed, as it watches a network camera.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
import psutil

from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.session import Session
from tests.support.http_station import TransportStream

__all__ = ["Grown", "grown"]

_EVERY_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """Resident memory, in units of 10^6 bytes."""

    loaded_mb: float
    """With the backend open and warm."""
    peak_mb: float
    """While the cameras ran."""
    cameras: int

    @property
    def camera_mb(self) -> float:
        """What each camera added at most."""
        return (self.peak_mb - self.loaded_mb) / self.cameras


@contextmanager
def streamed(clip: Path) -> Iterator[str]:
    """Serve `clip` at its own speed to each who asks; the address."""
    with av.open(str(clip)) as container:
        seconds = (container.duration or av.time_base) / av.time_base
    content = clip.read_bytes()
    with closing(TransportStream(content, rate_bytes=len(content) / seconds)) as station:
        yield station.url


def grown(bundle: Path, clip: Path | str, cameras: int, windows: int) -> Grown:
    """Watch `clip`, a recording or the address of a stream, in so many sessions at once.

    It ends when each has decided about so many windows.
    """
    process, over, peak = psutil.Process(), threading.Event(), [0]
    opened = Bundle.open(bundle)

    def sample() -> None:
        while not over.wait(_EVERY_S):
            peak[0] = max(peak[0], process.memory_info().rss)

    with closing(open_backend(opened, device="cpu")) as backend:
        backend.warm_up()
        loaded = peak[0] = process.memory_info().rss

        def watch(_: int) -> int:
            with Session(opened, clip, backend=backend) as session:
                together.wait()  # so that all of them hold their decoders and queues at once
                return sum(1 for _ in islice((each for each in session.updates() if each.window), windows))

        together = threading.Barrier(cameras)
        sampler = threading.Thread(target=sample)
        sampler.start()
        try:
            with ThreadPoolExecutor(cameras) as pool:
                seen = list(pool.map(watch, range(cameras)))
        finally:
            over.set()
            sampler.join()
    if min(seen) < windows:
        raise SystemExit(f"{clip} has {min(seen)} windows, not {windows}")
    return Grown(loaded_mb=loaded / 1e6, peak_mb=peak[0] / 1e6, cameras=cameras)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--cameras", type=int, default=10)
    parser.add_argument("--windows", type=int, default=5, help="that each camera decides about")
    parser.add_argument("--live", action="store_true", help="serve CLIP as network cameras do")
    asked = parser.parse_args()
    with streamed(asked.clip) if asked.live else nullcontext(asked.clip) as watched:
        found = grown(asked.bundle, watched, asked.cameras, asked.windows)
    print(
        f"{found.loaded_mb:.0f} MB loaded, {found.peak_mb:.0f} MB at the peak with {found.cameras} cameras: "
        f"{found.camera_mb:.1f} MB each"
    )
