"""Words and Settings: what is searched for, what runs, and a file that is looked at again without being taken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.service import CLIP, DEMO, site
from support.web import ask, cookie_of, log_in, send_json

from ovavel.service.config.read import read_site
from ovavel.service.config.site import Camera
from ovavel.service.store import people
from ovavel.service.watch.service import Service
from ovavel.service.web.access.passwords import hashed
from ovavel.service.web.server import Server

pytestmark = pytest.mark.timeout(300)

PASSWORD = "correct horse battery"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Service, Path, int]]:
    """A site read from a file, whose camera is never started, with a sink."""
    file = tmp_path / "site.toml"
    lines = (f'bundle = "{DEMO / "bundle"}"', 'data = "data"', "threads = 1", "[[sink]]", 'kind = "jsonl"')
    camera = ("[[camera]]", 'id = "gate"', f'source = "{CLIP}"')
    file.write_text("\n".join((*lines, 'id = "lines"', 'path = "events.jsonl"', *camera)), encoding="utf-8")
    with Service(read_site(file), file=file) as service:
        server = Server(service, host="127.0.0.1", port=0, token=None)
        server.start()
        service.deliveries.start()
        try:
            yield service, file, server.port
        finally:
            server.stop()


def test_a_changed_file_is_described_and_a_broken_one_too(served: tuple[Service, Path, int]) -> None:
    service, file, port = served
    assert send_json(port, "/api/v1/config:check", {}).json["text"] == "well-formed; nothing has changed"
    good = file.read_text(encoding="utf-8")
    file.write_text(good + '\nname = "Gate"\n', encoding="utf-8")
    assert send_json(port, "/api/v1/config:check", {}).json["text"] == "well-formed; cameras shown differently: gate"
    file.write_text("camera = [", encoding="utf-8")
    answer = send_json(port, "/api/v1/config:check", {}).json
    assert not answer["ok"]
    assert "not TOML" in answer["text"]
    assert service.site.camera[0].name == "", "nothing was taken"


def test_a_test_message_arrives(served: tuple[Service, Path, int]) -> None:
    _, file, port = served
    assert 'data-api="outbox/lines/test"' in ask(port, "/settings").text
    assert send_json(port, "/api/v1/outbox/lines/test", {}).json["delivered"]
    assert "test" in (file.parent / "events.jsonl").read_text(encoding="utf-8")


def test_words_are_those_of_the_bundle(served: tuple[Service, Path, int]) -> None:
    service, _, port = served
    labels = [each["label"] for each in ask(port, "/api/v1/labels").json]
    assert tuple(labels) == service.bundle.vocabulary.names[:-1]
    page = ask(port, "/words").text
    assert "large dog barking slowly" in page
    assert "Look at it first" in page, "this bundle has a text encoder"


def test_only_admins_see_the_configuration(served: tuple[Service, Path, int]) -> None:
    service, _, port = served
    assert "What runs" in ask(port, "/settings").text
    roles: tuple[people.Role, ...] = ("admin", "operate", "view")
    with service.store.write() as transaction:
        for role in roles:
            people.set_user(transaction, role, role, hashed(PASSWORD), now_us=0)
    for role, status in (("admin", 200), ("operate", 403), ("view", 403)):
        cookie = {"Cookie": cookie_of(log_in(port, role, PASSWORD))}
        assert ask(port, "/api/v1/config", **cookie).status == status
        assert send_json(port, "/api/v1/config:check", {}, **cookie).status == status
        page = ask(port, "/settings", **cookie).text
        assert ("What runs" in page, "Your password" in page) == (role == "admin", True)


def test_without_a_file_there_is_nothing_to_check(tmp_path: Path) -> None:
    with Service(site(tmp_path, Camera(id="one", source=CLIP))) as service:
        server = Server(service, host="127.0.0.1", port=0, token=None)
        server.start()
        try:
            assert send_json(server.port, "/api/v1/config:check", {}).status == 409
        finally:
            server.stop()
