"""Cameras of one encoder: what each second takes, and how many it holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.media_factory import make_clip

from ovavel.eval.commands.bench.economy import BenchEconomy
from ovavel.eval.demo.assets import Assets
from ovavel.eval.economy.cameras import held, on_time, simulate
from ovavel.eval.economy.costs import Costs, Film, Twin, looped_film, measure_costs
from ovavel.eval.economy.held import held_svg, stream_costs
from ovavel.runtime.backends import open_backend
from ovavel.runtime.commands.options import EngineOptions
from ovavel.runtime.errors import MediaError, UsageError
from ovavel.runtime.pipeline.window_queue import WAITING, capacity
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.system.bounds import check_bounds
from ovavel.runtime.types import Chunk, Frame, Samples


@settings(max_examples=20)
@given(st.integers(1, 12))
def test_seconds_that_all_take_the_same_fill_the_time(cameras: int) -> None:
    cost_s = 1 / (cameras + 0.5)
    assert held([cost_s], WAITING) == on_time([cost_s], WAITING) == cameras


def test_a_worker_that_is_too_slow_drops_what_it_has_no_time_for() -> None:
    outcome = simulate([2.0], 1, WAITING)
    assert outcome.windows == 600
    assert outcome.dropped == 300 - WAITING, "half, but for those that wait at the end"
    assert held([2.0], WAITING) == 0


def test_a_waking_is_held_with_the_room_for_it_and_not_without() -> None:
    """Ten pictures of 0.9 s: nine windows come meanwhile."""
    costs_s = [0.05] * 49 + [9.05]
    assert simulate(costs_s, 1, capacity(sound_first=True)).dropped == 0
    assert simulate(costs_s, 1, WAITING).dropped > 0
    outcome = simulate(costs_s, 1, capacity(sound_first=True))
    assert outcome.late > 0
    assert outcome.missed == outcome.late / outcome.windows


@settings(max_examples=20)
@given(st.lists(st.floats(0.01, 0.5), min_size=1, max_size=20), st.integers(1, 5), st.integers(0, 3))
def test_every_window_is_dropped_or_decided_and_none_is_dropped_where_all_may_wait(
    costs_s: list[float], cameras: int, seed: int
) -> None:
    tight, wide = (simulate(costs_s, cameras, room, seed=seed) for room in (1, 600))
    assert tight.windows == wide.windows == 600 * cameras
    assert tight.dropped + tight.late <= tight.windows
    assert wide.dropped == 0


def test_a_twin_decides_with_one_backend_and_asks_the_other_as_often() -> None:
    """Silence, and a picture: without economy both look at all, with it neither at one."""
    bundle, seconds = Assets.open().bundle, 12
    film = Film(
        name="silence",
        frames=[np.zeros((40, 40, 3), np.uint8)] * 5,
        sounds=[np.zeros((1, 16_000), np.float32)] * 5,
    )
    backend = open_backend(bundle, device="cpu", threads=1)
    asked: list[str] = []

    class Counted:
        def __init__(self) -> None:
            self.info, self.encoders = backend.info, backend.encoders
            self.warm_up, self.close, self.text, self.head = backend.warm_up, backend.close, backend.text, backend.head

        def vision(self, frames: np.ndarray) -> np.ndarray:
            asked.extend(["vision"] * len(frames))
            return backend.vision(frames)

        def audio(self, sounds: np.ndarray) -> np.ndarray:
            asked.extend(["audio"] * len(sounds))
            return backend.audio(sounds)

    try:
        twin = Twin(backend, Counted(), bundle.vocabulary.embeddings)  # type: ignore[arg-type]
        costs = measure_costs(bundle, twin, film, seconds, fusion="agreement")
    finally:
        backend.close()
    assert costs["off"].encoded == (1,) * seconds
    assert costs["exact"].encoded == costs["auto"].encoded == (0,) * seconds
    assert (asked.count("vision"), asked.count("audio")) == (seconds, 2 * seconds + 1), "silence stays the same"
    assert all(ms > 0 for each in costs.values() for ms in each.work_ms)
    assert all(each > 0 for each in twin.aside_s)


def test_of_a_long_recording_no_more_is_read_than_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip, chunks, read_s = make_clip(tmp_path / "long.mp4", duration_s=8, fps=5), MediaSource.chunks, [0.0]

    def noted(source: MediaSource) -> Iterator[Chunk]:
        for chunk in chunks(source):
            read_s[0] = max(read_s[0], chunk.time_s if isinstance(chunk, Frame | Samples) else 0.0)
            yield chunk

    monkeypatch.setattr(MediaSource, "chunks", noted)
    assert len(looped_film(clip, 2, 16_000).frames) == 2
    assert read_s[0] < 5
    monkeypatch.setattr("ovavel.eval.economy.costs._LONGEST_S", 1)
    assert len(looped_film(clip, 300, 16_000).frames) == 1
    with pytest.raises(UsageError, match="--seconds takes a number from 10 to 3600"):
        check_bounds(BenchEconomy(bundle=tmp_path, seconds=86_400, out=tmp_path))


def test_a_recording_of_one_second_is_looped(tmp_path: Path) -> None:
    film = looped_film(make_clip(tmp_path / "second.mp4", duration_s=1), 300, 16_000)
    assert [each is not None for each in (*film.frames, *film.sounds)] == [True, True]
    with pytest.raises(MediaError, match="shorter than a second"):
        looped_film(make_clip(tmp_path / "short.mp4", duration_s=0.4), 300, 16_000)


@pytest.mark.parametrize(("seen", "heard"), [((1,), (0,)), ((0,), (1,)), ((1, 0, 0), (1, 1, 0))])
def test_a_film_that_lacks_a_sense_now_and_then_or_always_is_watched_to_its_end(
    seen: tuple[int, ...], heard: tuple[int, ...]
) -> None:
    """Two seconds at most are ahead: a window that waited for later ones would wait for ever."""
    bundle, seconds = Assets.open().bundle, 5
    picture, sound = np.zeros((40, 40, 3), np.uint8), np.zeros((1, 16_000), np.float32)
    film = Film(
        name="gaps",
        frames=[picture if each else None for each in seen],
        sounds=[sound if each else None for each in heard],
    )
    with closing(open_backend(bundle, device="cpu", threads=1)) as backend:
        costs = measure_costs(bundle, backend, film, seconds, fusion="agreement")
    assert costs["off"].encoded == tuple(seen[second % len(seen)] for second in range(seconds))
    assert {len(each.work_ms) for each in costs.values()} == {seconds}


def test_a_twin_of_an_engine_that_encodes_both_senses_at_once_is_refused() -> None:
    """The time that deciding takes beside it cannot be left out."""
    bundle = Assets.open().bundle
    with closing(open_backend(bundle, device="cpu", threads=1)) as backend:
        info = replace(backend.info, concurrent=True, device="cuda:0")
        timed = SimpleNamespace(info=info, encoders=backend.encoders)
        with pytest.raises(UsageError, match="on cuda:0, where picture and sound are encoded at once"):
            Twin(backend, timed, bundle.vocabulary.embeddings)  # type: ignore[arg-type]


def test_the_command_writes_figures_and_a_chart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assets = Assets.open()
    command = BenchEconomy(
        recordings=(assets.clip,),
        bundle=assets.bundle.path,
        deciding=assets.bundle.path,
        days=(),
        seconds=12,
        out=tmp_path / "held",
        engine=EngineOptions(device="cpu", threads=1),
    )
    assert command.run() == 0
    report = json.loads((tmp_path / "held" / "cameras.json").read_bytes())
    modes = {each["mode"]: each for each in report["streams"]}
    assert modes.keys() == {"off", "exact", "auto"}
    assert all(len(each["costs"]["work_ms"]) == each["seconds"] == 12 for each in modes.values())
    assert (modes["off"]["room"], modes["exact"]["room"]) == (4, 13)
    assert report["rule"] == "agreement"
    assert b"<svg" in (tmp_path / "held" / "cameras.svg").read_bytes()
    assert "wrote cameras.json" in capsys.readouterr().out


def test_an_economy_that_does_not_run_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assets = Assets.open()
    command = BenchEconomy(
        recordings=(assets.clip,),
        bundle=assets.bundle.path,
        days=(),
        seconds=3,
        fusion="published",
        out=tmp_path / "held",
        engine=EngineOptions(device="cpu", threads=1),
    )
    assert command.run() == 0
    streams = json.loads((tmp_path / "held" / "cameras.json").read_bytes())["streams"]
    notes = {each["mode"]: each["costs"]["note"] for each in streams}
    assert (notes["off"], notes["auto"]) == ("", "")
    assert notes["exact"].startswith("off, as ")
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count(f"economy exact: {notes['exact']}") == printed.count("economy exact") == 1


def test_a_busy_machine_is_left_out_by_the_time_of_the_cores() -> None:
    costs = Costs(work_ms=(900.0, 300.0), cpu_ms=(400.0, 200.0), encoded=(2, 1))
    wall, cpu = (stream_costs("yard", "exact", costs, clock=clock, cores=2) for clock in ("wall", "cpu"))
    assert (wall.work_ms, wall.wake_ms, wall.cameras) == (600, 900, 1)
    assert (cpu.work_ms, cpu.wake_ms, cpu.second_ms) == (150, 200, (200, 100))
    assert cpu.cameras > wall.cameras
    assert cpu.costs == wall.costs == costs
    assert b"yard: windows dropped" in held_svg([wall, cpu])


def test_nothing_to_measure_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="measure what"):
        BenchEconomy(bundle=Assets.open().bundle.path, days=(), out=tmp_path).run()
