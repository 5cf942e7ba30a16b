"""The site file is read again through the API: by admins, and what is wrong is said everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.service import CLIP, DEMO
from support.web import ask

from ovavel.service.config.read import read_site
from ovavel.service.store import people
from ovavel.service.watch.reload import Reloader
from ovavel.service.watch.service import Service
from ovavel.service.web.server import Server

pytestmark = pytest.mark.timeout(300)

SITE = f"""
bundle = "{DEMO / "bundle"}"
data = "data"
threads = 1
[[camera]]
id = "one"
name = "<script>alert(1)</script>"
source = "{CLIP}"
loop = true
[[camera]]
id = "far"
source = "rtsp://user:hunter22@127.0.0.1:9/stream?key=hunter22"
[[sink]]
kind = "jsonl"
id = "file"
path = "events.jsonl"
"""


class Running(NamedTuple):
    service: Service
    port: int
    path: Path
    tokens: dict[str, str]

    def ask(self, path: str, method: str = "GET", role: str = "admin", **headers: str) -> Any:
        return ask(self.port, path, method, Authorization=f"Bearer {self.tokens[role]}", **headers)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A site that is not started: nothing is watched, and all of it is configured."""
    path = tmp_path_factory.mktemp("site") / "site.toml"
    path.write_text(SITE)
    with Service(read_site(path)) as service:
        with service.store.write() as transaction:
            roles = people.Role.__args__  # type: ignore[attr-defined]
            tokens = {role: people.add_token(transaction, role, role, now_us=0) for role in roles}
        reloader = Reloader(service, path)
        server = Server(service, host="127.0.0.1", port=0, token=None, reloader=reloader)
        server.start()
        yield Running(service, server.port, path, tokens)
        server.stop()
        reloader.stop()


@pytest.mark.parametrize("role", ["view", "operate"])
def test_reading_it_again_is_for_admins(running: Running, role: str) -> None:
    for act in ("check", "reload"):
        assert running.ask(f"/api/v1/config:{act}", "POST", role).status == 403
        assert running.ask(f"/api/v1/config:{act}", role=role).status == 405
    foreign = running.ask("/api/v1/config:reload", "POST", Sec_Fetch_Site="cross-site")
    assert foreign.status == 403


def test_it_is_read_again_and_what_is_wrong_is_said(running: Running) -> None:
    running.path.write_text(SITE.replace("threads = 1", 'threads = 1\ntz = "Asia/Tokyo"'))
    checked = running.ask("/api/v1/config:check", "POST")
    assert (checked.json["ok"], checked.json["text"]) == (
        True,
        "well-formed; cameras shown differently: one, far; fields changed: tz",
    )
    assert (checked.json["changes"]["shown"], checked.json["changes"]["fields"]) == (["one", "far"], ["tz"])
    assert running.service.site.tz == "UTC"
    done = running.ask("/api/v1/config:reload", "POST")
    assert (done.status, done.json["text"]) == (200, "cameras shown differently: one, far; fields changed: tz")
    assert running.service.site.tz == "Asia/Tokyo"
    newest = people.read_audit(running.service.store.read)[0]
    assert (newest.who, newest.what) == ("token admin", "reload configuration")

    running.path.write_text(SITE.replace("threads = 1", "threads = 2"))
    why = "threads cannot change while the service runs; restart the service"
    checked = running.ask("/api/v1/config:check", "POST")
    assert (checked.json["ok"], why in checked.json["text"]) == (False, True)
    wrong = running.ask("/api/v1/config:reload", "POST")
    assert (wrong.status, why in wrong.json["title"]) == (422, True)
    assert running.service.site.tz == "Asia/Tokyo"
    for path in ("/settings", "/health"):
        page = running.ask(path, Accept="text/html")
        assert "threads cannot change" in page.text, path
    running.path.write_text(SITE)
    assert running.ask("/api/v1/config:reload", "POST").status == 200
    assert "threads" not in running.ask("/health", Accept="text/html").text
