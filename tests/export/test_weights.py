"""Downloads from a real, misbehaving server on loopback."""

from __future__ import annotations

import fcntl
import hashlib
import io
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from ovavel.export import weights
from ovavel.export.weights import RetryPolicy, download_weights
from ovavel.runtime.errors import DownloadError, UsageError

CONTENT = np.random.default_rng(0).bytes(3_000_000)
RETRIES = RetryPolicy(timeout_s=60, attempts=3, backoff_s=0.01)
Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers each request by the next plan of the test; the last plan is repeated."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        requested = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        self.start = int(requested[1]) if requested else 0
        self.server.seen.append((self.start, self.headers.get("If-Range")))
        plan = self.server.plans.pop(0) if len(self.server.plans) > 1 else self.server.plans[0]
        plan(self)
        self.close_connection = True

    def send(
        self,
        *,
        content: bytes = CONTENT,
        until: int | None = None,
        ranges: bool = True,
        etag: str | None = '"v1"',
        claim: int | None = None,
    ) -> None:
        fresh = self.headers.get("If-Range") in (None, etag)
        start = self.start if ranges and fresh else 0
        size = len(content) if claim is None else claim
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(size - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        if etag:
            self.send_header("ETag", etag)
        self.end_headers()
        self.wfile.write(content[start:until])

    def fail(self, code: int, retry_after: str | None = None) -> None:
        self.send_response(code)
        if retry_after:
            self.send_header("Retry-After", retry_after)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"sorry")

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plans: list[Answer] = [Handler.send]
        self.seen: list[tuple[int, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/some/weights.pth"

    def handle_error(self, *_: object) -> None:
        pass  # the client disconnected, as it should


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fetch(server: Server, folder: Path, **options: object) -> Path:
    console = Console(file=io.StringIO())
    return download_weights(
        folder, **{"accept_license": True, "url": server.url, "console": console, "retries": RETRIES, **options}
    )


def assert_only(folder: Path, *names: str) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_a_download_is_complete_and_leaves_no_other_files(server: Server, tmp_path: Path) -> None:
    output = io.StringIO()
    path = fetch(server, tmp_path / "new" / "folder", console=Console(file=output, width=200))
    assert path.read_bytes() == CONTENT
    assert_only(path.parent, "weights.pth")
    assert "CC BY-NC-SA 4.0" in output.getvalue()
    assert str(path) in output.getvalue()


def test_the_licence_must_be_accepted(server: Server, tmp_path: Path) -> None:
    output = io.StringIO()
    with pytest.raises(UsageError, match="--accept-license"):
        fetch(server, tmp_path, accept_license=False, console=Console(file=output))
    assert "CC BY-NC-SA 4.0" in output.getvalue()
    assert not server.seen
    assert_only(tmp_path)


def test_a_cut_connection_is_resumed(server: Server, tmp_path: Path) -> None:
    server.plans = [lambda h: h.send(until=1_000_000), lambda h: h.send(until=2_500_000), Handler.send]
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.seen == [(0, None), (1_000_000, '"v1"'), (2_500_000, '"v1"')]


def test_a_failed_download_is_resumed_in_the_next_run(server: Server, tmp_path: Path) -> None:
    server.plans = [lambda h: h.send(until=1_000_000), lambda h: h.fail(503)]
    with pytest.raises(DownloadError, match=r"503.*1000000 bytes are kept.*run the command again"):
        fetch(server, tmp_path)
    assert_only(tmp_path, "weights.pth.part", "weights.pth.part.version")
    server.plans = [Handler.send]
    server.seen.clear()
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.seen == [(1_000_000, '"v1"')]
    assert_only(tmp_path, "weights.pth")


def test_a_server_that_ignores_ranges_restarts_the_download(server: Server, tmp_path: Path) -> None:
    server.plans = [lambda h: h.send(until=2_000_000, ranges=False), lambda h: h.send(ranges=False)]
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_a_new_version_restarts_the_download(server: Server, tmp_path: Path) -> None:
    other = CONTENT[::-1]
    server.plans = [lambda h: h.send(until=2_000_000), lambda h: h.send(content=other, etag='"v2"')]
    assert fetch(server, tmp_path).read_bytes() == other


def test_parts_without_a_version_are_not_joined(server: Server, tmp_path: Path) -> None:
    other = CONTENT[::-1]
    server.plans = [lambda h: h.send(until=2_000_000, etag=None), lambda h: h.send(content=other, etag=None)]
    assert fetch(server, tmp_path).read_bytes() == other


def test_a_server_that_always_cuts_early_fails(server: Server, tmp_path: Path) -> None:
    server.plans = [lambda h: h.send(until=1_000_000, ranges=False)]
    with pytest.raises(DownloadError, match="connection was cut"):
        fetch(server, tmp_path)
    assert len(server.seen) <= 1 + RETRIES.attempts


def test_a_wrong_length_fails(server: Server, tmp_path: Path) -> None:
    server.plans = [lambda h: h.send(claim=len(CONTENT) + 10)]
    with pytest.raises(DownloadError, match="could not be fetched"):
        fetch(server, tmp_path)
    assert not (tmp_path / "weights.pth").exists()


def test_an_unknown_length_is_refused(server: Server, tmp_path: Path) -> None:
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(CONTENT)

    server.plans = [answer]
    with pytest.raises(DownloadError, match="does not report the size"):
        fetch(server, tmp_path)
    assert_only(tmp_path)


def test_an_unresponsive_server_fails(server: Server, tmp_path: Path) -> None:
    released = threading.Event()

    def stall(handler: Handler) -> None:
        handler.send(until=500_000)
        released.wait(100)

    server.plans = [stall]
    try:
        with pytest.raises(DownloadError, match="stopped responding"):
            fetch(server, tmp_path, retries=RetryPolicy(timeout_s=0.2, attempts=2, backoff_s=0.01))
    finally:
        released.set()
    assert len(server.seen) >= 2, "it was retried"


def test_not_found_fails_at_once(server: Server, tmp_path: Path) -> None:
    server.plans = [lambda h: h.fail(404)]
    with pytest.raises(DownloadError, match="404"):
        fetch(server, tmp_path)
    assert len(server.seen) == 1
    assert_only(tmp_path)


def test_unavailable_is_retried(server: Server, tmp_path: Path) -> None:
    server.plans = [lambda h: h.fail(503, "0"), lambda h: h.fail(429), Handler.send]
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_no_server_fails(tmp_path: Path) -> None:
    absent = SimpleNamespace(url="http://127.0.0.1:9/weights.pth")
    with pytest.raises(DownloadError, match="refused"):
        fetch(absent, tmp_path)


def publish(monkeypatch: pytest.MonkeyPatch, server: Server, content: bytes) -> None:
    known = weights._Known(len(content), hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(weights.PUBLISHED, server.url, known)


def test_a_published_file_is_verified(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, server, CONTENT)
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    server.seen.clear()
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert not server.seen
    damaged = bytearray(CONTENT)
    damaged[7] ^= 1
    (tmp_path / "weights.pth").write_bytes(damaged)
    with pytest.raises(DownloadError, match="different hash"):
        fetch(server, tmp_path)


def test_a_file_with_another_hash_is_removed(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, server, CONTENT[::-1])
    with pytest.raises(DownloadError, match="not the published file"):
        fetch(server, tmp_path)
    assert_only(tmp_path)


def test_another_size_is_refused_before_the_download(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, server, CONTENT + b"more")
    with pytest.raises(DownloadError, match="3000000 bytes and the published file has 3000004"):
        fetch(server, tmp_path)
    assert_only(tmp_path)


def test_a_complete_part_is_only_verified(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, server, CONTENT)
    (tmp_path / "weights.pth.part").write_bytes(CONTENT)
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert not server.seen


def test_an_existing_file_is_verified(server: Server, tmp_path: Path) -> None:
    path = fetch(server, tmp_path)
    output = io.StringIO()
    assert fetch(server, tmp_path, console=Console(file=output, width=200)) == path
    assert "already" in output.getvalue()
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(DownloadError, match="2999999 bytes and should have 3000000"):
        fetch(server, tmp_path)
    server.plans = [lambda h: h.fail(503)]
    with pytest.raises(DownloadError, match="cannot be checked"):
        fetch(server, tmp_path)


def test_a_full_disk_is_detected_before_the_download(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=len(CONTENT)))
    with pytest.raises(DownloadError, match="free some space"):
        fetch(server, tmp_path)
    assert_only(tmp_path)


def test_an_impossible_folder_is_reported(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="cannot write"):
        fetch(server, tmp_path / "file" / "folder")


def test_two_downloads_do_not_write_the_same_file(server: Server, tmp_path: Path) -> None:
    with (tmp_path / "weights.pth.part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DownloadError, match="another download"):
            fetch(server, tmp_path)


@pytest.mark.parametrize("url", ["ftp://x/y.pth", "file:///etc/passwd", "weights.pth", "http://host/", "http://h/a/.."])
def test_an_address_without_a_file_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="HTTP address"):
        download_weights(tmp_path, accept_license=True, url=url, console=Console(file=io.StringIO()))
