"""The page behind a real nginx, under the base path of deploy/nginx.conf."""

from __future__ import annotations

import http.client
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.needed import program_path
from support.served import CLIP_BYTES, PASSWORD, Served, served
from support.service import until
from support.web import ask, cookie_of, log_in, send_json

CONF = (Path(__file__).parents[3] / "deploy" / "nginx.conf").read_text(encoding="utf-8")

pytestmark = pytest.mark.timeout(300)

MAIN = """
daemon off; master_process off; pid {folder}/pid; error_log stderr;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    server {{
        listen 127.0.0.1:{port};
        {locations}
    }}
}}
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, int]]:
    """A site, and the port of the nginx in front of it."""
    nginx = program_path("nginx")
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    with served(tmp_path_factory.mktemp("site"), base_path="/ovavel", proxies=("127.0.0.1",)) as running:
        assert CONF.count("127.0.0.1:8470") == 2
        locations = CONF.replace("127.0.0.1:8470", f"127.0.0.1:{running.port}")
        conf = folder / "nginx.conf"
        conf.write_text(MAIN.format(folder=folder, port=port, locations=locations), encoding="utf-8")
        process = subprocess.Popen([nginx, "-p", folder, "-c", conf], stderr=subprocess.PIPE)
        try:
            until(lambda: listens(port) or process.poll() is not None)
            assert process.poll() is None, process.stderr and process.stderr.read()
            yield running, port
        finally:
            process.terminate()
            process.communicate(timeout=60)


@pytest.fixture(scope="module")
def cookie(behind: tuple[Served, int]) -> dict[str, str]:
    answer = log_in(behind[1], "anna", PASSWORD, "/ovavel/login", Host="house.example")
    assert answer.status == 303
    assert "Path=/ovavel;" in answer.headers["set-cookie"] + ";"
    return {"Cookie": cookie_of(answer)}


def test_a_login_leads_back_to_the_page(behind: tuple[Served, int]) -> None:
    _, port = behind
    assert ask(port, "/ovavel").headers["location"].endswith("/ovavel/")
    answer = ask(port, "/ovavel/events/e1", Accept="text/html")
    assert (answer.status, answer.headers["location"]) == (303, "../login?next=events%2Fe1")
    assert ask(port, "/ovavel/api/v1/me").status == 401
    assert ask(port, "/ovavel/api/v1/me", Host="localhost").status == 401, "nobody is let in by the name they ask for"


def test_pages_and_what_they_name_are_there(behind: tuple[Served, int], cookie: dict[str, str]) -> None:
    _, port = behind
    for page in ("", "events", "events/e1", "health"):
        answer = ask(port, f"/ovavel/{page}", Accept="text/html", **cookie)
        assert answer.status == 200, page
        place = f"/ovavel/{page}"
        for name in re.findall(r'(?:src|href)="([^"#?][^"?]*\.(?:js|css))"', answer.text):
            assert not name.startswith("/"), "addresses are relative"
            target = http_join(place, name)
            assert ask(port, target).status == 200, target


def http_join(place: str, name: str) -> str:
    from urllib.parse import urljoin

    return urljoin(place, name)


def test_the_api_and_files_are_there(behind: tuple[Served, int], cookie: dict[str, str]) -> None:
    _, port = behind
    assert ask(port, "/ovavel/api/v1/me", **cookie).json == {"name": "anna", "role": "admin"}
    answer = ask(port, "/ovavel/api/v1/events/e1/clip.mp4", Range="bytes=0-9", **cookie)
    assert (answer.status, answer.body) == (206, CLIP_BYTES[:10])
    origin = {"Origin": "https://house.example", "Host": "house.example"}
    change = {"reviewed": True}
    assert send_json(port, "/ovavel/api/v1/events/e1", change, "PATCH", **cookie, **origin).status == 200
    origin["Origin"] = "https://evil.example"
    assert send_json(port, "/ovavel/api/v1/events/e1", change, "PATCH", **cookie, **origin).status == 403


def test_news_pass_at_once(behind: tuple[Served, int], cookie: dict[str, str]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", behind[1], timeout=60)
    connection.request("GET", "/ovavel/api/v1/stream", headers={**cookie, "Last-Event-ID": "0"})
    answer = connection.getresponse()
    assert answer.getheader("content-type", "").startswith("text/event-stream")
    while b"id: 1" not in (line := answer.readline()):
        assert line, "the stream ended"
    connection.close()


def test_what_a_browser_claims_of_itself_is_replaced(behind: tuple[Served, int]) -> None:
    claims = {"X_Forwarded_For": "192.0.2.66", "X_Forwarded_Proto": "https", "Forwarded": "for=192.0.2.67"}
    answer = log_in(behind[1], "anna", PASSWORD, "/ovavel/login", **claims)
    assert "Secure" not in answer.headers["set-cookie"]
    newest = ask(behind[1], "/ovavel/api/v1/audit", Cookie=cookie_of(answer)).json[0]
    assert newest["detail"] == {"address": "127.0.0.1"}
