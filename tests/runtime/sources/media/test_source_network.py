"""Recordings and streams from the network."""

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from support.closed_after import closed_after
from support.http_station import TransportStream
from support.media_factory import make_clip, tone
from support.runtime.played import MP2_SOUND

from ovavel.runtime.errors import MediaError
from ovavel.runtime.sources.media.decode import Media, Piece
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.types import Chunk, Frame, Gap, Samples


@pytest.fixture(scope="module")
def stream_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("stream") / "clip.ts"
    sound = (tone(20, 16_000) * 30_000).astype(np.int16)
    return make_clip(path, duration_s=20, codec="mpeg2video", **{**MP2_SOUND, "waveform": sound}).read_bytes()


@pytest.fixture
def station(stream_bytes: bytes) -> Iterator[TransportStream]:
    station = TransportStream(stream_bytes, rate_bytes=len(stream_bytes) / 20)
    yield station
    station.stop()


@pytest.mark.timeout(300)
def test_a_stream_that_freezes_and_comes_back(station: TransportStream) -> None:
    reported: list[tuple[float, str]] = []
    source = MediaSource(station.url)
    assert source.live
    assert source.senses == {"vision", "audio"}
    assert source.duration_s is None
    begin_s = time.monotonic()
    chunks: list[Chunk] = []
    back = 0
    for chunk in closed_after(source, 200, lambda text: reported.append((time.monotonic(), text))):
        chunks.append(chunk)
        if isinstance(chunk, Frame) and chunk.time_s > 1 and not reported:
            station.muted.set()
        if reported and station.muted.is_set():
            station.muted.clear()
        if reported and "is back" in reported[-1][1]:
            back += isinstance(chunk, Frame)
            if back > 25:
                source.close()
    (lost_s, lost), *_, (back_s, again) = reported
    assert "is lost" in lost
    assert "is back" in again
    gaps = [chunk for chunk in chunks if isinstance(chunk, Gap) and chunk.cause == "stream lost"]
    assert {gap.sense for gap in gaps} == {"vision", "audio"}
    assert sum(gap.duration_s for gap in gaps if gap.sense == "vision") > 2
    for sense in (Frame, Samples):
        times = [chunk.time_s for chunk in chunks if isinstance(chunk, sense)]
        assert times == sorted(times)
    # Media time continued with the wall clock: the gap ends between the two messages, on that clock. What was
    # captured before, on that clock, gives its zero.
    last = chunks.index(gaps[-1])
    zero_s = min(chunk.captured_s - chunk.time_s for chunk in chunks[:last] if not isinstance(chunk, Gap))
    end_s = gaps[-1].start_s + gaps[-1].duration_s
    assert lost_s - zero_s <= end_s <= back_s - min(zero_s, begin_s)
    after = [chunk for chunk in chunks[last:] if not isinstance(chunk, Gap)]
    assert after[0].time_s == pytest.approx(end_s, abs=0.1)


@pytest.mark.timeout(300)
def test_a_stream_that_is_cut_and_restarted(station: TransportStream, stream_bytes: bytes) -> None:
    reported: list[str] = []
    source = MediaSource(station.url)
    cut = False
    restarted: TransportStream | None = None
    for chunk in closed_after(source, 200, reported.append):
        if isinstance(chunk, Frame) and chunk.time_s > 0.5 and not cut:
            cut = True
            station.stop()
        elif isinstance(chunk, Gap) and restarted is None and cut:
            restarted = TransportStream(stream_bytes, rate_bytes=len(stream_bytes) / 20, port=station.port)
        elif isinstance(chunk, Frame) and restarted is not None and "back" in reported[-1]:
            source.close()
    assert ["is lost" in reported[0], "is back" in reported[-1]] == [True, True]
    assert restarted is not None
    restarted.stop()


def test_close_ends_chunks_though_the_network_holds_the_reader(
    station: TransportStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, released = threading.Event(), threading.Event()
    pieces_of = Media.pieces

    def pieces(media: Media) -> Iterator[Piece]:
        yield next(pieces_of(media))
        held.set()
        released.wait()  # as a read that never returns

    monkeypatch.setattr(Media, "pieces", pieces)
    source = MediaSource(station.url)
    chunks = source.chunks()
    next(chunks)
    assert held.wait(100)
    threading.Timer(0.3, source.close).start()
    assert not [chunk for chunk in chunks if not isinstance(chunk, Gap)]
    assert not released.is_set()
    released.set()


def test_an_address_where_nothing_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(MediaError, match=f"127.0.0.1:{port}.*check the address"):
        MediaSource(f"http://127.0.0.1:{port}/nothing")


def test_a_whole_file_over_http_is_a_recording(tmp_path: Path) -> None:
    content = make_clip(tmp_path / "clip.mp4", options={"movflags": "faststart"}).read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        source = MediaSource(f"http://127.0.0.1:{server.server_address[1]}/clip.mp4")
        assert not source.live
        assert sum(isinstance(chunk, Frame) for chunk in source.chunks()) == 75
    finally:
        server.shutdown()
        server.server_close()


def test_a_login_is_never_shown() -> None:
    with pytest.raises(MediaError) as refused:
        MediaSource("http://user:secret@127.0.0.1:9/stream")
    assert "127.0.0.1:9/stream" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_udp_stream_is_watched_until_closed(stream_bytes: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    stopped = threading.Event()

    def send() -> None:
        packet = 7 * 188  # as many packets of the transport stream as fit a datagram
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for at in range(0, len(stream_bytes), packet):
                sender.sendto(stream_bytes[at : at + packet], ("127.0.0.1", port))
                if stopped.wait(20 * packet / len(stream_bytes)):
                    return

    thread = threading.Thread(target=send)
    thread.start()
    try:
        source = MediaSource(f"udp://127.0.0.1:{port}")
        assert source.live
        assert not source.recorded
        assert source.senses == {"vision", "audio"}
        colours, heard_s = [], 0.0
        for chunk in source.chunks():
            if isinstance(chunk, Samples):
                heard_s += chunk.waveform.shape[1] / chunk.rate_hz
            if isinstance(chunk, Frame) and len(colours) < 50:
                colours.append(chunk.image().mean(axis=(0, 1)))
            if len(colours) == 50 and heard_s > 1.5:
                source.close()
    finally:
        stopped.set()
        thread.join()
    assert np.ptp(np.array(colours), axis=0).max() > 50, "the picture changes its colour every second"
