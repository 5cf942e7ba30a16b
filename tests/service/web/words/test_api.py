"""Names are added and removed through the API and shown on the page: by admins, from our own page, as text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from support.renamed import DOG, DRUM, renamed_site
from support.web import ask, send_json

from ovavel.runtime.bundle.bundle import Bundle
from ovavel.service.config.read import read_site
from ovavel.service.store import people
from ovavel.service.watch.reload import Reloader
from ovavel.service.watch.service import Service
from ovavel.service.web.server import Server

pytestmark = pytest.mark.timeout(300)

SCRIPT = '"><script>alert(1)</script>/..'
BELL = "small bell ringing quickly"
SINK = f'[[sink]]\nkind = "jsonl"\nid = "file"\npath = "events.jsonl"\nlabels = ["{BELL}"]'


class Served(NamedTuple):
    service: Service
    port: int
    folder: Path
    tokens: dict[str, str]

    def add(self, label: Any, role: str = "admin", **headers: str) -> Any:
        return send_json(self.port, "/api/v1/labels", {"label": label}, **self.as_(role), **headers)

    def remove(self, label: str, role: str = "admin", **headers: str) -> Any:
        return ask(self.port, f"/api/v1/labels/{quote(label, safe='')}", "DELETE", **self.as_(role), **headers)

    def page(self, query: str = "", role: str = "admin") -> str:
        return str(ask(self.port, f"/words{query}", **self.as_(role)).text)

    def as_(self, role: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[role]}"}

    @property
    def labels(self) -> list[str]:
        return [each["label"] for each in ask(self.port, "/api/v1/labels", **self.as_("view")).json]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A site that is not started; its bundle lacks two names, and a sink wants a third."""
    folder = tmp_path_factory.mktemp("site")
    path = renamed_site(folder, DOG, DRUM, more=SINK)
    with Service(read_site(path), file=path) as service:
        with service.store.write() as transaction:
            roles = people.Role.__args__  # type: ignore[attr-defined]
            tokens = {role: people.add_token(transaction, role, role, now_us=0) for role in roles}
        reloader = Reloader(service, path)
        server = Server(service, host="127.0.0.1", port=0, token=None, reloader=reloader)
        server.start()
        yield Served(service, server.port, folder, tokens)
        server.stop()
        reloader.stop()


def audited(served: Served) -> list[tuple[str, str, Any]]:
    return [(each.who, each.what, each.detail) for each in people.read_audit(served.service.store.read)]


def test_only_admins_change_names_and_only_from_here(served: Served) -> None:
    before = served.labels
    for role in ("view", "operate"):
        assert served.add(DOG, role).status == 403
        assert served.remove(before[0], role).status == 403
        page = served.page(f"?name={quote(DOG)}", role)
        assert 'data-api="labels' not in page
        assert "An admin adds names" in page
        assert str(served.folder) not in page
    assert served.add(DOG, Sec_Fetch_Site="cross-site").status == 403
    assert served.remove(before[0], Origin="https://evil.example").status == 403
    assert served.labels == before


def test_a_name_is_looked_at_added_and_removed(served: Served) -> None:
    page = served.page(f"?name={quote(DOG)}")
    assert f"What “{DOG}” would have found" in page
    assert f'data-preview="{DOG}"' in page
    assert DOG not in served.labels, "looking adds nothing"
    added = served.add(f" {DOG} ")
    assert (added.status, added.json) == (201, {"label": DOG, "day": 0, "week": 0})
    assert served.labels[-1] == DOG
    assert Bundle.open(served.folder / "bundle").vocabulary.names[-2] == DOG
    assert f">{DOG}</a>" in served.page()
    assert audited(served)[0] == ("token admin", "add name", {"name": DOG})
    assert served.add(DOG.upper()).status == 409
    assert "already has" in served.page(f"?name={quote(DOG.upper())}")
    assert served.remove(DOG).status == 204
    assert audited(served)[0] == ("token admin", "remove name", {"name": DOG})
    assert DOG not in served.labels
    assert served.remove(DOG).status == 404


def test_what_cannot_be_is_refused(served: Served) -> None:
    before = served.labels
    for label in ("", " ", "a\x00b", "a\nb", "\u202e", "word " * 150, "x" * 1001, 1, None, ["a"]):
        answer = served.add(label)
        assert answer.status == 422, label
        assert "\n" not in answer.json["title"]
    for label in ("other", "no such name", "%", "a/b"):
        assert served.remove(label).status == 404
    answer = served.remove(BELL)
    assert (answer.status, "the sink 'file' has it" in answer.json["title"]) == (409, True)
    assert send_json(served.port, "/api/v1/labels", {"name": "x"}, **served.as_("admin")).status == 422
    assert served.labels == before


def test_a_script_in_a_name_stays_text(served: Served) -> None:
    assert "<script>alert" not in served.page(f"?name={quote(SCRIPT)}")
    assert served.add(SCRIPT).status == 201
    assert SCRIPT in served.labels
    for path in ("/words", "/events", "/settings"):
        page = ask(served.port, path, **served.as_("admin"), Accept="text/html").text
        assert "<script>alert" not in page, path
        assert "&lt;script&gt;alert" in page, path
    assert served.remove(SCRIPT).status == 204


def test_a_folder_that_cannot_be_written_is_named(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ovavel.service.names.editor.os.access", lambda *_: False)
    for answer in (served.add(DRUM), served.remove(served.labels[0])):
        assert answer.status == 503
        assert "may not write to the bundle's folder" in answer.json["title"]


def test_what_is_on_disk_and_not_in_force_is_said(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    from ovavel.runtime.errors import OutputError

    def full(*_: object, **__: object) -> None:
        raise OutputError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("ovavel.service.watch.reload.add_camera", full)
        answer = served.add(DRUM)
    assert (answer.status, "not in force yet: the disk is full" in answer.json["title"]) == (503, True)
    assert DRUM not in served.labels
    checked = send_json(served.port, "/api/v1/config:check", {}, **served.as_("admin")).json
    assert (checked["text"], checked["changes"]["names_added"]) == (f"well-formed; names: +{DRUM}", [DRUM])
    assert send_json(served.port, "/api/v1/config:reload", {}, **served.as_("admin")).status == 200
    assert served.labels[-1] == DRUM
