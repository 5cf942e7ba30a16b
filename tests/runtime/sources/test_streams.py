"""Network streams: their clock, what is lost of them, and that no address shows its secrets."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.closed_after import closed_after
from support.http_station import HttpStation, JpegCamera, TransportStream
from support.media_factory import make_clip, tone

from ovavel.runtime.errors import DeviceError, MediaError
from ovavel.runtime.sources.camera_mic import CameraMicSource
from ovavel.runtime.sources.media.reader import _Arrivals
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.types import Chunk, Frame, Gap

SECONDS = 60


@pytest.fixture(scope="module")
def stream_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    sound = (tone(SECONDS, 16_000) * 30_000).astype(np.int16)
    path = tmp_path_factory.mktemp("stream") / "stream.ts"
    clip = make_clip(
        path, duration_s=SECONDS, codec="mpeg2video", audio_codec="mp2", audio_format="s16", waveform=sound
    )
    return clip.read_bytes()


def transport(clip: bytes, **options: int) -> TransportStream:
    return TransportStream(clip, rate_bytes=len(clip) / SECONDS, **options)


def test_after_reconnects_media_time_is_no_further_ahead_of_the_wall(stream_bytes: bytes) -> None:
    station = transport(stream_bytes)
    reported: list[str] = []
    source = MediaSource(station.url)
    ahead_s: list[list[float]] = [[]]  # by connection: media time minus the clock on the wall
    lost: list[Gap] = []
    frames: list[Frame] = []
    for chunk in closed_after(source, 90, reported.append):
        if isinstance(chunk, Gap):
            lost += [chunk] if (chunk.cause, chunk.sense) == ("stream lost", "vision") else []
            if station.stopped.is_set():
                station = transport(stream_bytes, port=station.port)
        elif isinstance(chunk, Frame):
            frames.append(chunk)
            if sum("back" in text for text in reported) == len(ahead_s):
                ahead_s.append([])
            ahead_s[-1].append(chunk.time_s - chunk.captured_s)
            if len(ahead_s[-1]) == 75:
                if len(ahead_s) == 3:
                    source.close()
                station.stop()
    station.stop()
    assert [len(each) >= 75 for each in ahead_s] == [True] * 3
    for again in ahead_s[1:]:
        assert max(again) - max(ahead_s[0]) < 0.5
    for gap in lost:
        shown = [f.time_s for f in frames if gap.start_s + 0.05 < f.time_s < gap.start_s + gap.duration_s - 0.05]
        assert not shown, "no second is both lost and shown"


@pytest.mark.parametrize("fps", [2, 10, 40])
def test_pictures_without_timestamps_have_the_time_on_the_wall(fps: int) -> None:
    camera = JpegCamera(fps=fps)
    reported: list[str] = []
    source = MediaSource(camera.url, audio=False)
    assert source.live
    chunks: list[Chunk] = []
    for chunk in closed_after(source, 60, reported.append):
        chunks.append(chunk)
        if len(chunks) == 4 * fps:
            source.close()
    camera.stop()
    frames = [chunk for chunk in chunks if isinstance(chunk, Frame)]
    assert frames == chunks, "nothing is lost"
    assert reported == []
    elapsed_s = frames[-1].captured_s - frames[0].captured_s
    assert frames[-1].time_s - frames[0].time_s == pytest.approx(elapsed_s, abs=0.5)


def test_buffered_data_is_distinguished_from_live_data() -> None:
    arrivals = _Arrivals()
    stamps = [0.04 * i for i in range(200)]
    buffered = [arrivals.caught_up(stamp_s, 100 + 0.002 * i) for i, stamp_s in enumerate(stamps[:100])]
    assert not any(buffered)
    live = [arrivals.caught_up(stamp_s, 100.2 + 0.04 * i) for i, stamp_s in enumerate(stamps[100:])]
    assert 5 <= live.index(True) <= 10
    endless = _Arrivals()
    assert any(endless.caught_up(i / 10, 100 + i / 100) for i in range(400)), "and does not wait for good"


@pytest.mark.parametrize("kind", ["input", "camera"])
def test_the_newest_reason_of_a_failed_reconnect_is_reported(stream_bytes: bytes, kind: str) -> None:
    reported: list[str] = []

    def report(text: str) -> None:
        reported.append(text)
        if re.search(r"\b401\b", text):
            source.close()

    station: HttpStation
    if kind == "input":
        station = transport(stream_bytes)
        source: MediaSource | CameraMicSource = MediaSource(station.url)
    else:
        station = JpegCamera()
        source = CameraMicSource(station.url, None)
    for chunk in closed_after(source, 60, report):
        if isinstance(chunk, Frame) and not station.refusal:
            station.refusal = 401
            station.stopped.set()  # the server goes on, and refuses
    station.stop()
    assert "is lost" in reported[0]
    assert "is still lost" in reported[-1]
    assert re.search(r"\b401\b", reported[-1])


SECRETS = ("/cam/?user=QsecretZ&pwd=QsecretZ&token=QsecretZ#QsecretZ", "/cam/password=QsecretZ")


def secret_url(port: int, tail: str) -> str:
    return f"http://admin:QsecretZ@127.0.0.1:{port}{tail}"


@pytest.mark.parametrize("tail", SECRETS)
@pytest.mark.parametrize("refusal", [401, 403, 404, 500, -1])
def test_what_cannot_be_opened_shows_no_secret(tail: str, refusal: int) -> None:
    camera = JpegCamera(refusal=refusal)
    if refusal < 0:
        camera.stop()  # nobody listens
    for make, error in ((MediaSource, MediaError), (lambda url: CameraMicSource(url, None), DeviceError)):
        with pytest.raises(error, match=r"127\.0\.0\.1") as refused:  # type: ignore[call-overload]
            make(secret_url(camera.port, tail))
        chain: BaseException | None = refused.value
        while chain is not None:
            assert "QsecretZ" not in str(chain)
            chain = chain.__cause__
    if refusal > 0:
        camera.stop()


WATCH = """
import sys
from ovavel.runtime.cli import main
raise SystemExit(main())
"""


@pytest.mark.parametrize("flag", ["", "--camera"])
@pytest.mark.parametrize("tail", SECRETS)
def test_no_failure_of_a_session_shows_a_secret(exported_bundle: Path, tmp_path: Path, flag: str, tail: str) -> None:
    """Open, loss, refused reconnect, return, end: on standard output, on standard error and in the JSONL file."""
    camera = JpegCamera()
    news = tmp_path / "news.jsonl"
    source = [flag, secret_url(camera.port, tail), "--no-audio"] if flag else [secret_url(camera.port, tail)]
    command = [sys.executable, "-c", WATCH, "live", "--bundle", str(exported_bundle), "--device", "cpu"]
    process = subprocess.Popen(
        [*command, *source, "--view", "lines", "--jsonl", str(news)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    reported = []
    for line in process.stdout:
        reported.append(line)
        if line.startswith("ready"):
            camera.refusal = 401
            camera.stopped.set()
        elif re.search(r"\b401\b", line):  # not the port
            camera.refusal = 0
            camera.stopped.clear()
        elif "is back" in line:
            process.terminate()
    _, err = process.communicate(timeout=60)
    camera.stop()
    assert process.returncode == 0, err
    out = "".join(reported)
    for text in ("is lost", "still lost", "is back", "summary"):
        assert text in out
    assert "127.0.0.1" in out
    written = news.read_text()
    assert json.loads(written.splitlines()[-1])["type"] == "summary"
    for where in (out, err, written):
        assert "QsecretZ" not in where
        assert "admin" not in where
