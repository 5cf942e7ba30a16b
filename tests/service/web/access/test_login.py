"""Who may do what: log-in, roles, tokens, requests of other sites' pages, proxies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.service import CLIP, site
from support.web import ask, cookie_of, log_in, send_json

from ovavel.runtime.errors import InputError
from ovavel.service.config.site import Camera
from ovavel.service.store import people
from ovavel.service.watch.service import Service
from ovavel.service.web.access.passwords import Attempts, hashed
from ovavel.service.web.server import Server

pytestmark = pytest.mark.timeout(300)

PASSWORD = "correct horse battery"
HTML = {"Accept": "text/html"}


@contextmanager
def serving(folder: Path, *, users: tuple[tuple[str, people.Role], ...] = (), **changes: Any) -> Iterator[int]:
    """A site whose camera is never started; its port."""
    with Service(site(folder, Camera(id="one", source=CLIP), **changes)) as service:
        with service.store.write() as transaction:
            for name, role in users:
                people.set_user(transaction, name, role, hashed(PASSWORD), now_us=0)
        server = Server(service, host="127.0.0.1", port=0, token=None)
        server.start()
        try:
            yield server.port
        finally:
            server.stop()


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    users: tuple[tuple[str, people.Role], ...] = (("anna", "admin"), ("otto", "operate"), ("vera", "view"))
    with serving(tmp_path_factory.mktemp("site"), users=users) as found:
        yield found


def session(port: int, name: str) -> dict[str, str]:
    return {"Cookie": cookie_of(log_in(port, name, PASSWORD))}


def test_a_page_asks_for_a_login_and_comes_back(port: int) -> None:
    answer = ask(port, "/events?camera=one", **HTML)
    assert (answer.status, answer.headers["location"]) == (303, "login?next=events%3Fcamera%3Done")
    assert ask(port, "/api/v1/cameras").status == 401
    assert ask(port, "/api/v1/cameras").headers["content-type"] == "application/problem+json"
    assert 'value="events?camera=one"' in ask(port, "/login?next=events%3Fcamera%3Done").text
    answer = log_in(port, "anna", PASSWORD, next="events?camera=one")
    assert (answer.status, answer.headers["location"]) == (303, "./events?camera=one")
    cookie = answer.headers["set-cookie"]
    for part in ("HttpOnly", "SameSite=strict", "Path=/"):
        assert part in cookie
    assert "Secure" not in cookie, "this is not HTTPS"
    assert ask(port, "/events", Cookie=cookie_of(answer)).status == 200
    assert ask(port, "/api/v1/me", Cookie=cookie_of(answer)).json == {"name": "anna", "role": "admin"}


def test_a_session_ends_with_the_log_out(port: int) -> None:
    cookie = session(port, "vera")
    assert ask(port, "/api/v1/me", **cookie).status == 200
    answer = ask(port, "/logout", "POST", **cookie)
    assert (answer.status, answer.headers["location"]) == (303, "./login")
    assert ask(port, "/api/v1/me", **cookie).status == 401


@pytest.mark.parametrize(
    "target", ["//evil.example", "https://evil.example", "/\\evil.example", "..//x", "a\nb", "x" * 9]
)
def test_a_login_leads_nowhere_else(port: int, target: str) -> None:
    location = log_in(port, "anna", PASSWORD, next=target).headers["location"]
    assert location in ("./", "./" + "x" * 9)


def test_wrong_passwords_have_to_wait_and_are_on_record(tmp_path: Path) -> None:
    with serving(tmp_path, users=(("anna", "admin"),)) as port:
        cookie = session(port, "anna")
        for name in ["anna", "nobody"] * (Attempts.MOST // 2):
            assert log_in(port, name, "wrong password").status == 401
        answer = log_in(port, "anna", PASSWORD)
        assert answer.status == 429
        assert 0 < int(answer.headers["retry-after"]) <= Attempts.WITHIN_S
        whats = [each["what"] for each in ask(port, "/api/v1/audit", **cookie).json]
        assert whats.count("login failed") == Attempts.MOST


def test_roles_may_do_what_they_may(port: int) -> None:
    for name, status in (("vera", 403), ("otto", 403), ("anna", 200)):
        assert ask(port, "/api/v1/users", **session(port, name)).status == status
    vera = session(port, "vera")
    assert send_json(port, "/api/v1/users", {}, **vera).status == 403
    new = {"old": PASSWORD, "new": "another password"}
    assert send_json(port, "/api/v1/me/password", {**new, "old": "wrong"}, **vera).status == 403
    assert send_json(port, "/api/v1/me/password", new, **vera).status == 204
    assert ask(port, "/api/v1/me", **vera).status == 401, "its sessions end"
    assert log_in(port, "vera", "another password").status == 303
    anna = session(port, "anna")
    assert (
        send_json(port, "/api/v1/users", {"name": "vera", "password": PASSWORD, "role": "view"}, **anna).status == 201
    )


def test_users_and_tokens_come_and_go(port: int) -> None:
    anna = session(port, "anna")
    wrong = {"name": "x", "password": "short", "role": "view"}
    assert send_json(port, "/api/v1/users", wrong, **anna).status == 422
    assert send_json(port, "/api/v1/users", {**wrong, "password": PASSWORD, "role": "root"}, **anna).status == 422
    assert ask(port, "/api/v1/users", "POST", b"{}", **anna).status == 415
    name = "<b>zoë</b>"
    assert send_json(port, "/api/v1/users", {"name": name, "password": PASSWORD, "role": "view"}, **anna).status == 201
    assert name in [each["name"] for each in ask(port, "/api/v1/users", **anna).json]
    assert ask(port, "/api/v1/users/%3Cb%3Ezo%C3%AB%3C%2Fb%3E", "DELETE", **anna).status in (204, 404)
    token = send_json(port, "/api/v1/tokens", {"name": "backup", "role": "view"}, **anna).json["token"]
    assert send_json(port, "/api/v1/tokens", {"name": "backup", "role": "view"}, **anna).status == 409
    bearer = {"Authorization": f"Bearer {token}"}
    assert ask(port, "/api/v1/me", **bearer).json == {"name": "token backup", "role": "view"}
    assert ask(port, "/api/v1/tokens/backup", "DELETE", **bearer).status == 403
    assert ask(port, "/api/v1/tokens/backup", "DELETE", **anna).status == 204
    assert ask(port, "/api/v1/me", **bearer).status == 401
    assert ask(port, "/api/v1/me", Authorization="Bearer nonsense", **anna).status == 401, "a wrong token is one"


def test_there_is_always_an_admin(tmp_path: Path) -> None:
    with serving(tmp_path) as port:
        assert ask(port, "/api/v1/me").json == {"name": "local", "role": "admin"}
        assert send_json(port, "/api/v1/tokens", {"name": "x", "role": "admin"}).status == 409
        user = {"name": "anna", "password": PASSWORD, "role": "view"}
        assert send_json(port, "/api/v1/users", user).status == 409
        assert send_json(port, "/api/v1/users", {**user, "role": "admin"}).status == 201
        assert ask(port, "/api/v1/me").status == 401, "from now on everybody logs in"
        anna = session(port, "anna")
        assert send_json(port, "/api/v1/users", user, **anna).status == 409
        assert ask(port, "/api/v1/users/anna", "DELETE", **anna).status == 409


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Sec_Fetch_Site": "same-origin"}, 303),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({}, 303),
    ],
)
def test_what_another_site_s_page_sends_changes_nothing(port: int, headers: dict[str, str], status: int) -> None:
    assert ask(port, "/logout", "POST", **session(port, "otto"), **headers).status == status


def test_our_own_origin_is_ours(port: int) -> None:
    headers = {"Origin": f"http://127.0.0.1:{port}"}
    assert ask(port, "/logout", "POST", **session(port, "otto"), **headers).status == 303


def test_a_proxy_may_use_any_path_and_only_a_named_one_is_believed(tmp_path: Path) -> None:
    users: tuple[tuple[str, people.Role], ...] = (("anna", "admin"),)
    forwarded = {"X_Forwarded_Proto": "https", "X_Forwarded_For": "192.0.2.7"}
    with serving(tmp_path, users=users, base_path="/cam", proxies=("127.0.0.1",)) as port:
        assert ask(port, "/cam").headers["location"] == "/cam/"
        assert ask(port, "/cam/events", **HTML).headers["location"] == "login?next=events"
        answer = log_in(port, "anna", PASSWORD, "/cam/login", **forwarded)
        assert "Secure" in answer.headers["set-cookie"]
        assert "Path=/cam" in answer.headers["set-cookie"]
        cookie = cookie_of(answer)
        for path in ("/cam/events", "/events", "/cam/static/page.css", "/cam/api/v1/cameras"):
            assert ask(port, path, Cookie=cookie, Host="cameras.example").status == 200, path
        assert ask(port, "/camera/events", Cookie=cookie).status == 404
        log_ins = [each for each in ask(port, "/api/v1/audit", Cookie=cookie).json if each["what"] == "login"]
        assert log_ins[0]["detail"] == {"address": "192.0.2.7"}


def test_without_a_named_proxy_forwarded_headers_are_nothing(port: int) -> None:
    answer = log_in(port, "anna", PASSWORD, X_Forwarded_Proto="https", X_Forwarded_For="192.0.2.7")
    assert "Secure" not in answer.headers["set-cookie"]
    newest = ask(port, "/api/v1/audit", Cookie=cookie_of(answer)).json[0]
    assert newest["detail"] == {"address": "127.0.0.1"}


def test_a_proxy_needs_somebody_to_log_in(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="add-user"), serving(tmp_path, proxies=("10.0.0.0/8",)):
        pass


@pytest.mark.parametrize("size", [70_000, 1_000_000])
def test_a_huge_body_is_refused(port: int, size: int) -> None:
    assert log_in(port, "x" * size, PASSWORD).status == 413


def test_two_services_on_one_host_do_not_log_each_other_out(tmp_path: Path) -> None:
    vera: tuple[tuple[str, people.Role], ...] = (("vera", "view"),)
    with serving(tmp_path / "one", users=vera) as one, serving(tmp_path / "two", users=vera) as two:
        first, second = (cookie_of(log_in(each, "vera", PASSWORD)) for each in (one, two))
        assert first.partition("=")[0] != second.partition("=")[0]
        both = f"{first}; {second}"
        assert [ask(each, "/api/v1/me", Cookie=both).status for each in (one, two)] == [200, 200]
        described = ask(one, "/api/v1/openapi.json", Cookie=first).json
        assert described["components"]["securitySchemes"]["session"]["name"] == first.partition("=")[0]
