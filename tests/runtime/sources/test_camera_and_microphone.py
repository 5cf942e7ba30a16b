"""A real camera and a real microphone together, live: what starts together is found in the same window."""

from __future__ import annotations

import functools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import pulse
from support.http_station import JpegCamera

pytestmark = pytest.mark.slow

WATCH = """
import json, sys, time
import numpy as np
from ovavel.runtime import CameraMicSource, Session

bundle, camera, last = sys.argv[1], sys.argv[2], int(sys.argv[3])
reported = []
source = CameraMicSource(camera, "default")
with Session(bundle, source, device="cpu") as session:
    print(time.monotonic(), flush=True)
    for update in session.updates():
        reported += [notice.message for notice in update.notices]
        window = update.window
        if window:
            print(json.dumps({
                "index": window.index,
                "colour": None if window.frame is None else window.frame.mean(axis=(0, 1)).tolist(),
                "loudness": None if window.waveform is None else float(np.sqrt((window.waveform ** 2).mean())),
                "gaps": [gap.cause for gap in window.gaps],
                "latency_ms": update.latency_ms,
            }), flush=True)
            if window.index >= last and window.frame is not None:
                session.stop()
print(json.dumps({"reported": reported, "dropped": session.stats.dropped, "windows": session.stats.windows}))
"""
RED, BLUE = (200, 30, 30), (30, 30, 200)
LAST = 16
"""It ends with the first picture from this window on."""
SLACK_S = 0.3
"""What is on its way when something changes."""


class Stretch:
    """What the camera shows or the microphone hears, from when it was switched on to when it was switched off again.

    A busy machine switches late, and takes long over it: a window that may show either proves nothing.
    """

    def __init__(self, on: tuple[float, float], off: tuple[float, float]) -> None:
        """`on` and `off` are the media times, in seconds, before and after the switching."""
        self._on, self._off = on, off

    def windows(self, *, sure: bool) -> set[int]:
        """The windows in whose middle it must be on (`sure`), or may be."""
        first_s, last_s = (self._on[1] + SLACK_S, self._off[0]) if sure else (self._on[0], self._off[1] + SLACK_S)
        return {window for window in range(round(last_s) + 2) if first_s <= window + 0.5 <= last_s}


@pytest.mark.timeout(300)
def test_a_tone_and_a_colour_that_start_together_are_found_in_the_same_window(
    exported_bundle: Path, tmp_path: Path
) -> None:
    camera = JpegCamera()
    camera.change(RED)
    with pulse.null_sink(tmp_path) as server:
        server.control("load-module", "module-sine", "sink=null", "frequency=440")
        server.control("set-sink-mute", "null", "1")
        command = [sys.executable, "-c", WATCH, str(exported_bundle), camera.url, str(LAST)]
        watch = subprocess.Popen(
            command, env=server.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert watch.stdout is not None
        begin_s = float(watch.stdout.readline())

        def at(media_s: float, *switches: Callable[[], object]) -> tuple[float, float]:
            """Do something at that time, or soon after; returns the times before and after."""
            time.sleep(max(0.0, begin_s + media_s - time.monotonic()))
            before_s = time.monotonic() - begin_s
            for switch in switches:
                switch()
            return before_s, time.monotonic() - begin_s

        def mute(state: int) -> Callable[[], object]:
            return functools.partial(server.control, "set-sink-mute", "null", str(state))

        on = at(4.15, functools.partial(camera.change, BLUE), mute(0))
        off = at(on[1] + 2.9, functools.partial(camera.change, RED), mute(1))
        stopped = at(off[1] + 2.5, camera.stop)
        at(stopped[1] + 4)
        camera = JpegCamera(port=camera.port)
        camera.change(BLUE)
        out, err = watch.communicate(timeout=200)
        camera.stop()
    assert watch.returncode == 0, err
    *lines, summary = map(json.loads, out.splitlines())
    windows: dict[int, dict[str, Any]] = {line["index"]: line for line in lines}

    last = max(windows)
    assert sorted(windows) == list(range(last + 1))
    blue = {i for i, w in windows.items() if w["colour"] is not None and np.argmax(w["colour"]) == 2}
    loud = {i for i, w in windows.items() if w["loudness"] is not None and w["loudness"] > 0.1}
    event = Stretch(on, off)
    certain = event.windows(sure=True)
    assert len(certain) >= 2, (on, off)
    assert certain <= loud <= event.windows(sure=False) | {int(off[1] + SLACK_S)}, windows  # the tone may ring on
    assert certain <= blue & set(range(int(stopped[0]))) <= event.windows(sure=False), windows

    dark = {i for i, w in windows.items() if w["colour"] is None}
    gone = int(stopped[1]) + 2  # a picture may stay for a second
    assert {gone, gone + 1} <= dark <= set(range(int(stopped[0]), last)), windows
    assert all("camera lost" in windows[i]["gaps"] for i in dark)
    assert last in blue
    assert all(w["loudness"] is not None for w in windows.values()), "the microphone went on while the camera was lost"
    assert ["lost" in summary["reported"][0], "back" in summary["reported"][-1]] == [True, True]
    assert summary["dropped"] in ({}, {"stopped": 1})


@pytest.mark.timeout(180)
def test_after_a_stop_what_is_lost_is_counted_once(exported_bundle: Path, tmp_path: Path) -> None:
    """SIGSTOP for eight seconds: pictures are gone, and sound as far as the sound server did not keep it: seconds of it
    where the machine is idle, on a busy one perhaps none.
    """
    camera, news, stopped_s = JpegCamera(), tmp_path / "news.jsonl", 8
    command = [sys.executable, "-c", "from ovavel.runtime.cli import main; raise SystemExit(main())", "live"]
    command += ["--bundle", str(exported_bundle), "--device", "cpu", "--camera", camera.url, "--view", "none"]

    def segments() -> list[dict[str, Any]]:
        lines = news.read_text().splitlines() if news.exists() else []
        return [record for record in map(json.loads, lines) if record["type"] == "segment"]

    def wait_for(count: int) -> None:
        while len(segments()) < count:
            assert watch.poll() is None
            time.sleep(0.05)

    with pulse.null_sink(tmp_path) as server:
        server.control("load-module", "module-sine", "sink=null", "frequency=440")
        watch = subprocess.Popen([*command, "--jsonl", str(news), "--lag", "0"], env=server.environment)
        try:
            wait_for(4)
            watch.send_signal(signal.SIGSTOP)
            before = len(segments())
            time.sleep(stopped_s)
            watch.send_signal(signal.SIGCONT)
            wait_for(before + stopped_s + 4)
            watch.terminate()
            assert watch.wait(100) == 0
        finally:
            watch.kill()
    camera.stop()
    reported = segments()
    for record in reported:
        for sense in ("vision", "audio"):
            gaps = [g for g in record["gaps"] if g["sense"] == sense and g["cause"] != "clock drift"]
            assert sum(gap["duration_s"] for gap in gaps) <= 1.001, record
            for gap in gaps:
                assert record["index"] <= gap["start_s"], record
                assert gap["start_s"] + gap["duration_s"] <= record["index"] + 1.001, record
    causes = {gap["cause"] for record in reported for gap in record["gaps"]}
    assert "overlapping samples" not in causes
    assert "encoder too slow" not in causes
    inside = reported[before + 2 : before + stopped_s - 1]
    for record in inside:
        assert [gap["cause"] for gap in record["gaps"] if gap["sense"] == "vision"] == ["process not running"], record
        silent = "audio" in record["missing"]
        assert not silent or any(gap["sense"] == "audio" for gap in record["gaps"]), record
