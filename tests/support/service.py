"""Facts of cameras, runs and events for tests of the service, and a site on the demo's clip."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ovavel.service.config.site import Camera, Site
from ovavel.service.store.cameras import CameraFacts, RunFacts
from ovavel.service.store.database import Database, rows
from ovavel.service.store.events import EventNews

DEMO = Path(__file__).parents[2] / "eval" / "demo" / "assets"
CLIP = str(DEMO / "clip.mp4")


class Everything:
    """A sink that hears of all that happens."""

    def __init__(self, name: str) -> None:
        self.id = name

    def wants(self, kind: str, camera: str, label: str) -> bool:
        return True

    def wants_incident(self, camera: str | None) -> bool:
        return True


def camera_facts(camera_id: str, **changes: Any) -> CameraFacts:
    facts = {"name": camera_id.title(), "tz": "UTC", "source_redacted": "rtsp://camera/stream", "config_sha": "0" * 64}
    return CameraFacts(id=camera_id, **{**facts, **changes})


def run_facts(run_id: str, camera_id: str, *, started_us: int = 0) -> RunFacts:
    return RunFacts(
        id=run_id,
        camera_id=camera_id,
        boot_id="boot",
        started_us=started_us,
        bundle_sha="0" * 64,
        engine="{}",
        vocabulary_version="1",
    )


def news(kind: str, number: int = 1, *, run: str = "run-1", label: str = "dog barking", **changes: Any) -> EventNews:
    facts: dict[str, Any] = {"start_us": 1_000_000, "end_us": 2_000_000, "peak_margin": 0.5}
    return EventNews(kind=kind, run_id=run, session_event_id=number, label=label, **{**facts, **changes})  # type: ignore[arg-type]


def site(folder: Path, *cameras: Camera, **changes: Any) -> Site:
    settings = {"bundle": str(DEMO / "bundle"), "threads": 1, **changes}
    return Site(data=str(folder / "data"), camera=cameras, **settings)


def until(condition: Callable[[], object], within_s: float = 90.0) -> None:
    """Wait for what another process does."""
    end_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end_s, "it did not happen"
        time.sleep(0.05)


def check_assets(store: Database) -> None:
    """Every asset that is ready has its file as it was, no other files are there, and nothing is left pending."""
    ready = rows(store.read, "SELECT path, bytes FROM asset WHERE path IS NOT NULL")
    for path, size in ready:
        assert (store.folder / path).stat().st_size == size
    found = {str(each.relative_to(store.folder)) for each in store.folder.glob("media/**/*") if each.is_file()}
    assert found == {path for path, _ in ready}
    assert not rows(store.read, "SELECT 1 FROM asset WHERE state = 'pending'")
