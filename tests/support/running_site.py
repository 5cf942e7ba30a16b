"""A service that runs a site file, and what its store says of a camera; what holds in every store holds at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ovavel.service.config.read import read_site
from ovavel.service.store import accounts
from ovavel.service.store.care.invariants import violations
from ovavel.service.store.database import Database, rows
from ovavel.service.watch.reload import Reloader
from ovavel.service.watch.service import Service
from support.service import check_assets


@contextmanager
def running(path: Path) -> Iterator[tuple[Service, Reloader]]:
    with Service(read_site(path)) as service:
        reloader = Reloader(service, path)
        service.start()
        try:
            yield service, reloader
        finally:
            reloader.stop()
    with Database.open(path.parent / "data", ballast_bytes=0) as store:
        assert violations(store.read) == []
        assert not rows(store.read, "SELECT 1 FROM run WHERE ended_us IS NULL")
        check_assets(store)


def runs(service: Service, camera: str) -> list[Any]:
    return rows(
        service.store.read, "SELECT id, end_cause FROM run WHERE camera_id = ? ORDER BY started_us, id", (camera,)
    )


def decided(service: Service, camera: str) -> int:
    return sum(each.final for each in accounts.read_accounts(service.store.read, camera, from_us=0, to_us=2**62))


def open_events(service: Service, camera: str) -> list[Any]:
    return rows(service.store.read, "SELECT id FROM event WHERE camera_id = ? AND state = 'open'", (camera,))
