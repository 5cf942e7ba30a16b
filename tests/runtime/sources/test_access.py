"""What a path or an address may make FFmpeg open; see docs/threat-model.md."""

from __future__ import annotations

import ipaddress
import os
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support.media_factory import make_clip
from support.runtime.pictures import pictures, refused

from ovavel.runtime.cli import main
from ovavel.runtime.commands.live import Live
from ovavel.runtime.errors import InputError, UsageError
from ovavel.runtime.sources import access
from ovavel.runtime.sources.access import Access, address_of, open_container
from ovavel.runtime.sources.camera import CameraFeed

NEAR, FAR = "127.0.0.2", "127.0.0.1"
"""Two addresses of this machine; where a test needs a public one, FAR is taken for that."""

OPENED = {"http", "https", "rtsp", "rtsps", "rtp", "udp", "tcp", "tls"}
WRAPPERS = ("async", "cache", "concat", "concatf", "crypto", "data", "subfile", "pipe", "hls", "httpproxy", "unix")


class Web:
    """Serves `pages` (status, headers, body) on `host` and remembers what was asked for."""

    def __init__(self, host: str) -> None:
        self.pages: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.asked: list[str] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.asked.append(self.path)
                status, headers, body = web.pages.get(self.path, (404, {}, b""))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer((host, 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://{host}:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def redirect(self, path: str, target: str, status: int = 302) -> str:
        self.pages[path] = (status, {"Location": target}, b"")
        return self.url + path


@pytest.fixture
def webs() -> Iterator[Callable[[str], Web]]:
    made: list[Web] = []

    def make(host: str) -> Web:
        made.append(Web(host))
        return made[-1]

    yield make
    for web in made:
        web.server.shutdown()
        web.server.server_close()


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> None:
    """FAR is an address of the public internet."""
    is_private = access._is_private
    monkeypatch.setattr(access, "_is_private", lambda each: str(each) != FAR and is_private(each))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return make_clip(path, duration_s=1, fps=5, options={"movflags": "faststart"}).read_bytes()


SCHEMES = st.from_regex(r"[A-Za-z][A-Za-z0-9+.-]{1,12}", fullmatch=True) | st.sampled_from(WRAPPERS)


@given(SCHEMES, st.sampled_from(["host/x", "/etc/passwd", "http://host/x", "127.0.0.1:1|127.0.0.1:2"]))
def test_a_scheme_that_is_not_listed_is_refused(scheme: str, rest: str) -> None:
    assume(scheme.lower() not in OPENED | {"file"})
    with pytest.raises(UsageError, match="are not supported"):
        open_container(f"{scheme}://{rest}", Access())
    with pytest.raises(UsageError, match="are not supported"):
        CameraFeed(f"{scheme}://{rest}", lambda _: None)


@pytest.mark.parametrize("wrapper", [*(f"{name}:" for name in WRAPPERS), "subfile,,start,0,end,0,,:", "hls+"])
def test_a_wrapper_opens_nothing(wrapper: str, webs: Callable[[str], Web], clip: bytes, tmp_path: Path) -> None:
    web = webs(FAR)
    web.pages["/clip.mp4"] = (200, {}, clip)
    (tmp_path / "clip.mp4").write_bytes(clip)
    for inner in (f"{web.url}/clip.mp4", str(tmp_path / "clip.mp4"), f"//{tmp_path / 'clip.mp4'}"):
        assert "secret" not in refused(wrapper + inner)
    assert not web.asked


def test_the_command_lists_the_supported_schemes(exported_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["live", "--bundle", str(exported_bundle), "cache://u:secret@host/x"]) == 2
    said = capsys.readouterr().err
    assert "choose one of http, https" in said
    assert "secret" not in said


def test_a_scheme_in_capitals_is_opened(webs: Callable[[str], Web], clip: bytes) -> None:
    web = webs(FAR)
    web.pages["/clip.mp4"] = (200, {}, clip)
    assert pictures(web.url.upper().replace("HTTP", "HtTp") + "/clip.mp4") == 5


LOCAL = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"),
    *("224.0.0.0/4", "240.0.0.0/4", "::1/128", "fc00::/7", "fe80::/10", "ff00::/8"),
    *("fec0::/10", "64:ff9b:1::/48", "::/96"),
)


@given(st.sampled_from(LOCAL).flatmap(lambda network: st.ip_addresses(network=network)))
def test_local_addresses_are_private_however_they_are_written(address: Any) -> None:
    assert access._is_private(address)
    if address.version == 4:
        number = int(address)
        for prefix in (0xFFFF << 32, 0x64FF9B << 96):
            assert access._is_private(ipaddress.IPv6Address(prefix | number))
        assert access._is_private(ipaddress.IPv6Address(0x2002 << 112 | number << 80))


@pytest.mark.parametrize(
    "host", ["localhost", "127.1", "2130706433", "0x7f.1", "017700000001", "[::1]", "u:p@127.0.0.1:8"]
)
def test_names_and_numbers_of_this_machine_are_private(host: str) -> None:
    found = access._addresses(f"http://{host}/x?@8.8.8.8")
    if not found and host == "[::1]":
        pytest.skip("no IPv6 here")
    assert found
    assert all(map(access._is_private, found))


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert not access._is_private(ipaddress.ip_address(address))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.usefixtures("public")
def test_a_public_address_redirects_to_no_private_one(status: int, webs: Callable[[str], Web], clip: bytes) -> None:
    far, near = webs(FAR), webs(NEAR)
    near.pages["/clip.mp4"] = far.pages["/clip.mp4"] = (200, {}, clip)
    first = far.redirect("/first", "/second", status)
    far.redirect("/second", near.url.replace("//", "//u:secret@") + "/clip.mp4?token=secret", status)
    said = refused(first)
    assert "--allow-private" in said
    assert NEAR in said
    assert "secret" not in said
    assert not near.asked
    near.pages["/clip.mp4?token=secret"] = (200, {}, clip)
    assert pictures(first, allow_private=True) == 5
    assert pictures(far.redirect("/here", "/clip.mp4", status)) == 5, "it may lead to another public one"


@pytest.mark.usefixtures("public")
def test_a_name_that_is_public_and_private_is_public(
    webs: Callable[[str], Web], clip: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    far, near = webs(FAR), webs(NEAR)
    near.pages["/clip.mp4"] = (200, {}, clip)
    first = far.redirect("/first", near.url + "/clip.mp4")
    look_up = access._addresses
    both = [ipaddress.ip_address(each) for each in (FAR, NEAR)]
    monkeypatch.setattr(access, "_addresses", lambda url: both if url == first else look_up(url))
    assert "--allow-private" in refused(first)
    assert not near.asked


def test_a_private_address_may_redirect_to_another(webs: Callable[[str], Web], clip: bytes) -> None:
    far, near = webs(FAR), webs(NEAR)
    near.pages["/clip.mp4"] = (200, {}, clip)
    assert pictures(far.redirect("/first", f"{near.url}/clip.mp4")) == 5


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("/first", "redirected more than"),
        ("file:///etc/passwd", "not an allowed address"),
        ("cache:http://127.0.0.2/", "not an allowed address"),
        ("http://no-such-host.invalid/", "whose host name is unknown"),
        ("http://127.0.0.2\x9b/", "not an allowed address"),
    ],
)
@pytest.mark.usefixtures("public")
def test_redirects_that_lead_nowhere(target: str, message: str, webs: Callable[[str], Web]) -> None:
    assert message in refused(webs(FAR).redirect("/first", target))


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"


@pytest.fixture(scope="module")
def segment(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("segment") / "segment.ts"
    return make_clip(path, duration_s=1, codec="mpeg2video", audio=False).read_bytes()


@pytest.mark.usefixtures("public")
def test_a_playlist_of_a_public_address_is_refused(webs: Callable[[str], Web], segment: bytes) -> None:
    far, near = webs(FAR), webs(NEAR)
    near.pages["/segment.ts"] = (200, {}, segment)
    far.pages["/list.m3u8"] = (200, {}, PLAYLIST.format(f"{near.url}/segment.ts").encode())
    said = refused(f"{far.url}/list.m3u8")
    assert "playlist" in said
    assert "--allow-private" in said
    assert not near.asked
    assert pictures(f"{far.url}/list.m3u8", allow_private=True)
    near.pages["/list.m3u8"] = far.pages["/list.m3u8"]
    assert pictures(f"{near.url}/list.m3u8"), "the first address is private"


SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {} RTP/AVP 33\n"


def test_a_file_opens_no_other_and_no_address(
    webs: Callable[[str], Web], clip: bytes, segment: bytes, tmp_path: Path
) -> None:
    web = webs(FAR)
    web.pages["/segment.ts"] = (200, {}, segment)
    (tmp_path / "segment.ts").write_bytes(segment)
    os.mkfifo(tmp_path / "pipe.ts")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind((FAR, 0))
        port = free.getsockname()[1]
    texts = [PLAYLIST.format(name) for name in (f"{web.url}/segment.ts", "segment.ts", "pipe.ts")]
    texts += [f"ffconcat version 1.0\nfile {name}\n" for name in ("segment.ts", "pipe.ts")]
    for text in (*texts, SDP.format(port)):
        for name in ("x.m3u8", "x.mp4", "x.sdp"):
            (tmp_path / name).write_text(text)
            assert "cannot be opened" in refused(tmp_path / name)
    assert not web.asked


def test_addresses_come_from_files_and_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "address"
    path.write_text(" rtsp://u:p@host/x \nnotes\n")
    monkeypatch.setenv("CAMERA", "rtsp://u:p@host/x")
    assert address_of(f"@{path}") == address_of("env:CAMERA") == "rtsp://u:p@host/x"
    assert address_of("clip.mp4") == "clip.mp4"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "noise").write_bytes(b"\xff\xfe")
    for name, message in (("gone", "No such file"), ("pipe", "is a pipe"), ("empty", "is empty"), ("noise", "UTF-8")):
        with pytest.raises(InputError, match=message):
            address_of(f"@{tmp_path / name}")
    with pytest.raises(UsageError, match="NONESUCH is not set"):
        address_of("env:NONESUCH")


def test_a_live_session_reads_its_address_from_a_file(
    exported_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "address").write_text("http://admin:secret/word@127.0.0.1:9/x?token=secret\n")
    monkeypatch.setenv("CAMERA", "http://admin:secret/word@127.0.0.1:9/x?token=secret")
    for address in (f"@{tmp_path / 'address'}", "env:CAMERA"):
        assert main(["live", "--bundle", str(exported_bundle), address]) == 1
        said = capsys.readouterr()
        assert "127.0.0.1:9/x" in said.err
        assert "secret" not in said.err + said.out


def test_options_for_addresses_are_refused_with_a_camera() -> None:
    with pytest.raises(UsageError, match="leave it out with a camera"):
        Live(allow_private=True)._source()
