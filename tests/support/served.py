"""A site whose camera is never started, with three users, two events and their files, on a port of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ovavel.service.config.site import Camera
from ovavel.service.store import assets, cameras, events, people
from ovavel.service.store.assets import MediaFile
from ovavel.service.watch.service import Service
from ovavel.service.web.access.passwords import hashed
from ovavel.service.web.server import Server
from support.service import CLIP, news, run_facts, site
from support.web import cookie_of, log_in

PASSWORD = "correct horse battery"
USERS: dict[str, people.Role] = {"anna": "admin", "otto": "operate", "vera": "view"}
CLIP_BYTES = bytes(range(256)) * 40


class Served(NamedTuple):
    service: Service
    server: Server
    sessions: dict[str, dict[str, str]]

    @property
    def port(self) -> int:
        return self.server.port

    def headers(self, name: str | None) -> dict[str, str]:
        """Those of a session of this user, the same each time; none for None."""
        if name is None:
            return {}
        if name not in self.sessions:
            self.sessions[name] = {"Cookie": cookie_of(log_in(self.port, name, PASSWORD))}
        return self.sessions[name]


@contextmanager
def served(folder: Path, *, name: str = "Front gate", users: bool = True, **changes: Any) -> Iterator[Served]:
    """Events are "e1", with a clip of 10 240 bytes, and "e2"."""
    with Service(site(folder, Camera(id="one", name=name, source=CLIP), **changes)) as service:
        path = assets.path_of("one", "2026-11-29", "e1", "clip")
        (service.store.folder / path).parent.mkdir(parents=True)
        (service.store.folder / path).write_bytes(CLIP_BYTES)
        with service.store.write() as transaction:
            for user, role in USERS.items() if users else ():
                people.set_user(transaction, user, role, hashed(PASSWORD), now_us=0)
            cameras.open_run(transaction, run_facts("run-1", "one"))
            for number in (1, 2):
                event = news("start", number, label="=cmd|'/c calc'!A1 <script>\u202e\n")
                events.record(transaction, event, event_id=f"e{number}", now_us=0, sinks=())
            assets.expect(transaction, "e1", ("clip",))
            file = MediaFile(
                path=path, bytes=len(CLIP_BYTES), sha256="0" * 64, start_us=0, end_us=1, has_audio=True, codec="h264"
            )
            assets.ready(transaction, "e1", "clip", file)
        server = Server(service, host="127.0.0.1", port=0, token=None)
        server.start()
        try:
            yield Served(service, server, {})
        finally:
            server.stop()
