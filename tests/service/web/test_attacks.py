"""What somebody may try who reaches the port, or whose page the operator's browser shows."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.served import CLIP_BYTES, PASSWORD, Served, served
from support.service import until
from support.web import Answer, ask, cookie_of, log_in, send_json

from ovavel.runtime.errors import InputError
from ovavel.service.config.read import read_site
from ovavel.service.web import connections
from ovavel.service.web.access.passwords import Attempts
from ovavel.service.web.server import is_loopback

pytestmark = pytest.mark.timeout(300)

HTML = {"Accept": "text/html"}
NAME = "<script>alert(1)</script>\"'&{{7*7}} \u202e=1+1 😀" + "é" * 120


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("site"), name=NAME) as found:
        yield found


@pytest.fixture(scope="module")
def open_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One without users."""
    with served(tmp_path_factory.mktemp("site"), users=False) as found:
        yield found


def raw(port: int, request: bytes) -> bytes:
    """The beginning of what comes back for these bytes; nothing where the connection is closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            connection.sendall(request)
            return connection.recv(65_536)
    return b""


TRAVERSALS = [
    "/static/../app.py",
    "/static/..%2fapp.py",
    "/static/%2e%2e/%2e%2e/app.py",
    "/static/..%5c..%5capp.py",
    "/static//etc/passwd",
    "/static/%2fetc%2fpasswd",
    "/static/%00page.css",
    "/static/page.css%00.html",
    "/static/" + "x" * 300,
    "/static/" + "%F0%9F%98%80" * 60,
    "/api/v1/events/../../../etc/passwd",
    "/api/v1/events/..%2f..%2fstore.json/clip.mp4",
    "/api/v1/events/%2e%2e/clip.mp4",
    "/api/v1/events/e1%00/clip.mp4",
    "/api/v1/cameras/..%2fone/snapshot.webp",
    "/api/v1/events/" + "x" * 5000,
    "/events/%ff%fe",
    "//evil.example/%2e%2e",
    "/\\evil.example",
]


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_path_leads_out(running: Served, path: str) -> None:
    answer = ask(running.port, path, **running.headers("vera"))
    assert answer.status in (400, 404)
    assert ask(running.port, path, **HTML).status in (303, 400, 401, 404), "nor without a session"


def test_absolute_and_starred_targets_are_no_way_in(running: Served) -> None:
    for target in (b"http://evil.example/api/v1/me", b"*", b"//evil.example/api/v1/me"):
        status = raw(running.port, b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % target).split()[1]
        assert status in (b"401", b"404")


@pytest.mark.parametrize("path", ["/", "/events", "/events/e1", "/health", "/login", "/none"])
def test_names_stay_text(running: Served, path: str) -> None:
    page = ask(running.port, path, **HTML, **running.headers("anna")).text
    assert "<script>" not in page
    assert page.count("alert(1)") == page.count("alert(1)&lt;/script&gt;"), "markup is text"
    assert page.count("&lt;script&gt;alert(1)") == page.count("{{7*7}}"), "and no template"


@pytest.mark.parametrize("name", ["a\nb", "a\0b", "front \u202etag", "\ud7ff\u2028"])
def test_a_camera_has_a_name_that_people_see(tmp_path: Path, name: str) -> None:
    spelled = "".join(f"\\u{ord(each):04x}" for each in name)
    path = tmp_path / "site.toml"
    path.write_text(f'bundle = "b"\ndata = "d"\n[[camera]]\nid = "one"\nsource = "x.mp4"\nname = "{spelled}"\n')
    with pytest.raises(InputError, match="visible"):
        read_site(path)


@pytest.mark.parametrize("path", ["/events/", "/login/", "/api/v1/events/", "/static"])
def test_no_answer_leads_to_the_host_that_was_asked_for(running: Served, path: str) -> None:
    answer = ask(running.port, path, Host="evil.example", **HTML)
    assert "evil" not in answer.headers.get("location", "")


@pytest.mark.parametrize("host", ["[", "[::1", "a/b/c", "a b", "x:99999999", "é", "@", "localhost:x", ""])
def test_any_host_has_an_answer(running: Served, open_site: Served, host: str) -> None:
    for port in (running.port, open_site.port):
        head = f"GET /events HTTP/1.1\r\nHost: {host}\r\nAccept: text/html\r\nConnection: close\r\n\r\n"
        assert raw(port, head.encode("latin-1")).split()[1] in (b"303", b"400", b"421", b"200")


@pytest.mark.parametrize("origin", ["http://[", "null", "", "//", "http://evil.example", "http://127.0.0.1:1@evil"])
def test_any_origin_has_an_answer(running: Served, origin: str) -> None:
    assert ask(running.port, "/logout", "POST", Origin=origin, **running.headers("otto")).status == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"X_Forwarded_For": "192.0.2.1"},
        {"X_Forwarded_Proto": "https"},
        {"Forwarded": "for=192.0.2.1"},
        {"Via": "1.1 proxy"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "localhost.evil.example:80"},
    ],
)
def test_a_site_without_users_answers_to_this_machine_alone(open_site: Served, headers: dict[str, str]) -> None:
    """Not through a proxy that nobody named, and not to the page of another site whose name leads here."""
    for path in ("/", "/api/v1/events", "/static/page.css"):
        assert ask(open_site.port, path, **headers).status == 421
    assert ask(open_site.port, "/api/v1/events").status == 200


def test_loopback_is_an_address() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "::1", "localhost")))
    assert not any(map(is_loopback, ("127.evil.example", "0.0.0.0", "192.168.1.2", "::")))


def test_numbers_that_are_too_large_are_refused(running: Served) -> None:
    vera, many = running.headers("vera"), "9" * 30
    for query in (f"cursor={many}-e1", f"from={many}", "limit=1_0", "limit=+1", "limit=%201", "cursor=%D9%A1-e"):
        assert ask(running.port, f"/api/v1/events?{query}", **vera).status == 400, query
    with socket.create_connection(("127.0.0.1", running.port), timeout=60) as connection:
        head = f"GET /api/v1/stream HTTP/1.1\r\nHost: x\r\nCookie: {vera['Cookie']}\r\nLast-Event-ID: {many}\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 200")


RANGES = {
    "bytes=0-0": 206,
    "bytes=-1": 206,
    "bytes=0-99999999": 206,
    "bytes=5-1": (200, 400, 416),
    "bytes=99999-": 416,
    "bytes=-0": (200, 400, 416),
    "bytes=--1": (200, 400, 416),
    "bytes=" + "9" * 5000 + "-": (200, 400, 416),
    "bytes=" + ",".join("0-" for _ in range(3000)): (200, 206, 400, 416),
    "bytes=" + ",".join(f"{2 * n}-{2 * n}" for n in range(1000)): (200, 206, 400, 416),
    "pages=1-2": (200, 400, 416),
}


@pytest.mark.parametrize("text", RANGES)
def test_parts_are_parts_and_never_more_than_the_file(running: Served, text: str) -> None:
    answer = ask(running.port, "/api/v1/events/e1/clip.mp4", Range=text, **running.headers("vera"))
    expected = RANGES[text]
    assert answer.status in (expected if isinstance(expected, tuple) else (expected,))
    assert len(answer.body) <= 2 * len(CLIP_BYTES)


def test_answers_are_kept_nowhere_and_shown_in_no_frame(running: Served) -> None:
    vera = running.headers("vera")
    for path in ("/", "/events/e1", "/api/v1/events", "/metrics", "/readyz", "/none", "/api/v1/events/e2/clip.mp4"):
        answer = ask(running.port, path, **HTML, **vera)
        assert answer.headers["cache-control"] == "no-store", path
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert ask(running.port, "/api/v1/me").headers["cache-control"] == "no-store"
    assert ask(running.port, "/api/v1/events/e1/clip.mp4", **vera).headers["cache-control"].startswith("private")
    assert ask(running.port, "/static/page.css").headers["cache-control"] == "no-cache"
    preflight = {"Origin": "https://evil.example", "Access_Control_Request_Method": "POST"}
    assert "access-control-allow-origin" not in ask(running.port, "/api/v1/me", "OPTIONS", **preflight, **vera).headers


def test_a_login_makes_a_session_of_its_own(running: Served) -> None:
    name = cookie_of(log_in(running.port, "vera", PASSWORD)).partition("=")[0]
    fixed = {"Cookie": f"{name}=chosen-by-somebody-else"}
    first = log_in(running.port, "vera", PASSWORD, **fixed)
    assert "chosen" not in first.headers["set-cookie"]
    cookie = {"Cookie": cookie_of(first)}
    second = log_in(running.port, "vera", PASSWORD, **cookie)
    assert ask(running.port, "/api/v1/me", **cookie).status == 401, "the one before is over"
    crowded = {"Cookie": f'a[b]=1; {{x}}="; {cookie_of(second)}; =; c'}
    assert ask(running.port, "/api/v1/me", **crowded).status == 200, "cookies of other programs here do no harm"


def test_an_old_password_is_not_guessed_either(running: Served) -> None:
    otto = running.headers("otto")
    guess = {"old": "wrong password", "new": "another password"}
    statuses = [send_json(running.port, "/api/v1/me/password", guess, **otto).status for _ in range(Attempts.MOST + 1)]
    assert statuses == [403] * Attempts.MOST + [429]


def test_a_user_of_any_name_can_be_removed(running: Served) -> None:
    anna = running.headers("anna")
    user = {"name": "a/b <i>é</i>", "password": PASSWORD, "role": "view"}
    assert send_json(running.port, "/api/v1/users", user, **anna).status == 201
    assert ask(running.port, "/api/v1/users/a%2Fb%20%3Ci%3E%C3%A9%3C%2Fi%3E", "DELETE", **anna).status == 204
    for name in ("..", ".", "a\nb", "\u202eroot", "x" * 65, "a\0"):
        assert send_json(running.port, "/api/v1/users", {**user, "name": name}, **anna).status == 422, name


def test_bodies_and_heads_have_a_size(running: Served) -> None:
    port = running.port
    head = b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000000\r\n\r\n" + b"x" * 200_000
    assert raw(port, head)[:12] in (b"HTTP/1.1 413", b"")
    assert raw(port, b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 40_000)[:12] in (b"HTTP/1.1 400", b"")
    assert ask(port, "/healthz").status == 200


def test_a_request_that_ends_early_is_no_fault_of_ours(running: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        with socket.create_connection(("127.0.0.1", running.port)) as connection:
            connection.sendall(b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nname=")
        assert ask(running.port, "/healthz").status == 200
    assert not caplog.records


def test_a_token_in_an_address_is_neither_taken_nor_logged(running: Served, caplog: pytest.LogCaptureFixture) -> None:
    secret = "super-secret-token"
    with caplog.at_level(logging.DEBUG):
        answer = ask(running.port, f"/api/v1/me?token={secret}&access_token={secret}")
    assert answer.status == 401
    assert secret not in caplog.text + answer.text


def half_open(port: int, count: int, sent: bytes) -> list[socket.socket]:
    found = []
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", port), timeout=60)
        connection.sendall(sent)
        found.append(connection)
    return found


def test_half_requests_keep_nobody_out_and_end(running: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST", 20)
    open_ones = half_open(running.port, 60, b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ")
    assert ask(running.port, "/healthz").status == 200, "others are answered"
    monkeypatch.setattr(connections, "REQUEST_S", 0.2)
    sent = (b"GET / HTTP/1.1\r\n", b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nname=", b"")
    for start in sent:
        (connection,) = half_open(running.port, 1, start)
        open_ones.append(connection)
        with contextlib.suppress(ConnectionResetError):
            while connection.recv(1000):
                pass  # it ends by itself, with an answer or without
    for each in open_ones:
        each.close()


def test_a_thousand_readers_leave_room_for_pages(running: Served) -> None:
    vera = running.headers("vera")
    head = f"GET /api/v1/stream HTTP/1.1\r\nHost: x\r\nCookie: {vera['Cookie']}\r\n\r\n".encode()
    readers, answers = [], []
    try:
        for _ in range(1000):
            connection = socket.create_connection(("127.0.0.1", running.port), timeout=60)
            connection.sendall(head)
            readers.append(connection)
            try:
                answers.append(connection.recv(12))
            except ConnectionResetError:
                answers.append(b"")
        assert answers.count(b"HTTP/1.1 200") == 200
        assert set(answers) <= {b"HTTP/1.1 200", b"HTTP/1.1 503", b""}
        assert ask(running.port, "/events", **HTML, **vera).status == 200
    finally:
        for each in readers:
            each.close()
    until(lambda: stream_status(running, vera) == 200)


def stream_status(running: Served, headers: dict[str, str]) -> int:
    """0 where nobody answers."""
    head = f"GET /api/v1/stream HTTP/1.1\r\nHost: x\r\nCookie: {headers['Cookie']}\r\n\r\n"
    answer = raw(running.port, head.encode())
    return int(answer.split()[1]) if answer else 0


def test_a_stream_ends_with_its_session(running: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ovavel.service.web.api._CHECK_S", 0.0)
    cookie = {"Cookie": cookie_of(log_in(running.port, "vera", PASSWORD))}
    with socket.create_connection(("127.0.0.1", running.port), timeout=60) as connection:
        connection.sendall(f"GET /api/v1/stream HTTP/1.1\r\nHost: x\r\nCookie: {cookie['Cookie']}\r\n\r\n".encode())
        assert connection.recv(12) == b"HTTP/1.1 200"
        assert ask(running.port, "/logout", "POST", **cookie).status == 303
        end = b""
        while not end.endswith(b"\r\n0\r\n\r\n"):
            more = connection.recv(65_536)
            assert more, "it was cut"
            end = (end + more)[-10:]


def test_a_name_that_is_a_formula_stays_in_json(running: Served) -> None:
    answer: Answer = ask(running.port, "/api/v1/export", **running.headers("vera"))
    assert answer.headers["content-disposition"] == 'attachment; filename="events.zip"'
    named = ask(running.port, "/api/v1/events/e1/clip.mp4?download", **running.headers("vera"))
    assert named.headers["content-disposition"] == 'attachment; filename="one-e1.clip.mp4"'
