"""What differs between two configurations, and what of one is shown: never a secret."""

from __future__ import annotations

import json

from msgspec.structs import replace

from ovavel.service.config.compare import changes, shown
from ovavel.service.config.sinks import Webhook
from ovavel.service.config.site import Camera, Site

HOOK = Webhook(id="hook", address="https://example.org/T0/SECRET-PATH", secret="whsec_SECRET")
GATE = Camera(id="gate", source="rtsp://user:SECRET@camera.local/stream")
SITE = Site(bundle="b", data="d", camera=(GATE, Camera(id="yard", source="@yard.txt")), sink=(HOOK,))


def test_changes_are_named_by_field_and_id_and_hold_no_value() -> None:
    assert changes(SITE, SITE) == []
    hall = Camera(id="hall", source="x.mp4")
    moved = replace(GATE, source="rtsp://user:OTHER@camera.local/stream", lag=3)
    new = replace(SITE, tz="Europe/Berlin", camera=(moved, hall), sink=())
    assert changes(SITE, new) == [
        "tz changed",
        "camera hall added",
        "camera yard removed",
        "camera gate changed: source, lag",
        "sink hook removed",
    ]


def test_no_secret_is_shown() -> None:
    found = shown(SITE)
    assert "SECRET" not in json.dumps(found)
    assert found["camera"][0]["source"] == "rtsp://camera.local/stream"
    assert found["camera"][1]["source"] == "@yard.txt", "where it is read from is no secret"
    assert (found["sink"][0]["address"], found["sink"][0]["secret"]) == ("***", "***")
