"""A real camera and a real microphone together, live: what starts together is found in the same window."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pulse
import pytest
from http_station import JpegCamera

WATCH = """
import json, sys, time
import numpy as np
from ovavel.runtime import CameraMicSource, Session

bundle, camera, last = sys.argv[1], sys.argv[2], int(sys.argv[3])
told = []
source = CameraMicSource(camera, "default", listener=told.append)
with Session(bundle, source, device="cpu") as session:
    print(time.monotonic(), flush=True)
    for update in session.updates():
        window = update.window
        if window:
            print(json.dumps({
                "index": window.index,
                "colour": None if window.frame is None else window.frame.mean(axis=(0, 1)).tolist(),
                "loudness": None if window.waveform is None else float(np.sqrt((window.waveform ** 2).mean())),
                "gaps": [gap.cause for gap in window.gaps],
                "latency_ms": update.latency_ms,
            }), flush=True)
            if window.index == last:
                session.stop()
print(json.dumps({"told": told, "dropped": session.stats.dropped, "windows": session.stats.windows}))
"""
RED, BLUE = (200, 30, 30), (30, 30, 200)
LAST = 22


@pytest.mark.timeout(120)
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

        def at(media_s: float) -> None:
            time.sleep(max(0.0, begin_s + media_s - time.monotonic()))

        at(4.15)
        camera.change(BLUE)
        server.control("set-sink-mute", "null", "0")
        at(7.15)
        camera.change(RED)
        server.control("set-sink-mute", "null", "1")
        at(10)
        camera.stop()
        at(13)
        camera = JpegCamera(port=camera.port)
        camera.change(BLUE)
        out, err = watch.communicate(timeout=60)
        camera.stop()
    assert watch.returncode == 0, err
    *lines, summary = map(json.loads, out.splitlines())
    windows: dict[int, dict[str, Any]] = {line["index"]: line for line in lines}

    assert sorted(windows) == list(range(LAST + 1))
    blue = {i for i, w in windows.items() if w["colour"] is not None and np.argmax(w["colour"]) == 2}
    loud = {i for i, w in windows.items() if w["loudness"] is not None and w["loudness"] > 0.1}
    assert loud == {4, 5, 6} | (loud & {7}), windows  # the tone may ring on for the first moments of second 7
    assert blue & set(range(10)) == {4, 5, 6}, windows

    dark = {i for i, w in windows.items() if w["colour"] is None}
    assert {11, 12} <= dark <= set(range(10, 20)), windows
    assert all("camera lost" in windows[i]["gaps"] for i in dark)
    assert LAST in blue
    assert all(w["loudness"] is not None for w in windows.values()), "the microphone went on while the camera was lost"
    assert ["lost" in summary["told"][0], "back" in summary["told"][-1]] == [True, True]
    assert summary["dropped"] in ({}, {"stopped": 1})


@pytest.mark.timeout(180)
def test_after_a_stop_sound_is_kept_and_what_is_lost_is_counted_once(exported_bundle: Path, tmp_path: Path) -> None:
    """SIGSTOP for eight seconds: the sound server keeps the sound; a camera's pictures are gone."""
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
            assert watch.wait(60) == 0
        finally:
            watch.kill()
    camera.stop()
    told = segments()
    for record in told:
        for sense in ("vision", "audio"):
            gaps = [g for g in record["gaps"] if g["sense"] == sense and g["cause"] != "clock drift"]
            assert sum(gap["duration_s"] for gap in gaps) <= 1.001, record
            for gap in gaps:
                assert record["index"] <= gap["start_s"], record
                assert gap["start_s"] + gap["duration_s"] <= record["index"] + 1.001, record
    causes = {gap["cause"] for record in told for gap in record["gaps"]}
    assert "overlapping samples" not in causes
    assert "encoder too slow" not in causes
    inside = told[before + 2 : before + stopped_s - 1]
    for record in inside:
        assert [gap["cause"] for gap in record["gaps"] if gap["sense"] == "vision"] == ["process not running"], record
    assert sum("audio" not in record["missing"] for record in inside) > len(inside) / 2
