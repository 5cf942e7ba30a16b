"""Hours of media at full speed: memory stays flat and every second is counted."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from rich.console import Console

from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.session import Session
from ovavel.runtime.sinks.jsonl import JsonlSink
from ovavel.runtime.sinks.terminal import TerminalSink
from ovavel.runtime.types import Chunk, Frame, Gap, Samples, Sense

SETTLED_S = 600


class Hours:
    """A source without pace: pictures and sound that change, and an outage now and then."""

    name = "hours"
    senses: frozenset[Sense] = frozenset({"vision", "audio"})
    live = False
    recorded = True

    def __init__(self, hours: int) -> None:
        self.seconds = hours * 3600
        self.duration_s = float(self.seconds)

    def chunks(self) -> Iterator[Chunk]:
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (16, 224, 224, 3), dtype=np.uint8)
        waveforms = (rng.standard_normal((16, 1, 16_000)) / 8).astype(np.float32)
        for second in range(self.seconds):
            now_s = time.monotonic()
            if second % 1000 < 990:
                image = images[second // 7 % 16]
                yield Frame(time_s=second + 0.4, captured_s=now_s, image=lambda image=image: image)
            else:
                yield Gap(sense="vision", cause="camera lost", start_s=float(second), duration_s=1.0)
            waveform = waveforms[second // 7 % 16]
            yield Samples(time_s=float(second), captured_s=now_s, waveform=waveform, rate_hz=16_000)

    def close(self) -> None:
        pass


@pytest.fixture
def smallest_bundle(tmp_path: Path) -> Path:
    """A bundle whose encoders take next to no time."""
    from support.golden_weights import write_golden_checkpoint

    from ovavel.export.bundle import BundleContents, write_bundle
    from ovavel.training.models.imagebind.model import ImageBindConfig, TowerConfig

    tower = TowerConfig(width=16, blocks=1, heads=2)
    config = ImageBindConfig(name="smallest", vision=tower, audio=tower, text=tower, embedding_size=16)
    weights = write_golden_checkpoint(tmp_path / "smallest.safetensors", config)
    write_bundle(BundleContents(weights, ("dog barking", "rain", "engine"), config=config), tmp_path / "bundle")
    return tmp_path / "bundle"


def watch(hours: int, bundle: Path, news: Path) -> dict[str, object]:
    """Run so many hours into two sinks; returns what was counted, and the memory every minute of media."""
    process = psutil.Process()
    memory: list[tuple[float, float]] = []  # hours of media, MB
    finals = 0
    screen = Console(file=io.StringIO(), force_terminal=True, width=100, height=30)
    sinks = [JsonlSink(news), TerminalSink(screen)]
    opened = Bundle.open(bundle)
    with Session(opened, Hours(hours), backend=open_backend(opened, device="cpu", threads=1)) as session:
        for sink in sinks:
            sink.open(session.info, session.stats)
        for update in session.updates():
            for sink in sinks:
                sink.write(update)
            for scores in update.scores:
                if scores.final:
                    assert scores.index == finals, "every second once, in order"
                    finals += 1
            if update.window and update.window.index % 60 == 0:
                screen.file = io.StringIO()  # what was drawn is not the program's memory
                memory.append((update.window.index / 3600, process.memory_info().rss / 1e6))
        for sink in sinks:
            sink.close()
    stats = session.stats
    return {
        "finals": finals,
        "windows": stats.windows,
        "dropped": stats.dropped,
        "gap_s": stats.gap_s,
        "memory": memory,
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("hours", [2, pytest.param(6, marks=pytest.mark.proof)])
def test_memory_stays_flat_and_every_window_is_counted(hours: int, smallest_bundle: Path, tmp_path: Path) -> None:
    # In a process of its own: the memory of other tests is not the session's.
    code = (
        f"import json, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path; from test_hours import watch\n"
        f"print(json.dumps(watch({hours}, Path({str(smallest_bundle)!r}), Path({str(tmp_path / 'news.jsonl')!r}))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    counted = json.loads(done.stdout.splitlines()[-1])

    assert counted["finals"] == counted["windows"] == hours * 3600
    assert counted["dropped"] == {}
    assert counted["gap_s"] == {"camera lost": pytest.approx(hours * 36, rel=0.05)}
    settled = np.array([m for m in counted["memory"] if m[0] * 3600 >= SETTLED_S])
    slope_mb_h = np.polyfit(*settled.T, 1)[0]
    assert slope_mb_h < 1, f"memory grows by {slope_mb_h:.2f} MB an hour: {settled[::30].round(2).tolist()}"
