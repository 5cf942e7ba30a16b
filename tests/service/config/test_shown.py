"""What of a configuration is shown: never a secret."""

from __future__ import annotations

import json

from ovavel.service.config.shown import shown
from ovavel.service.config.sinks import Webhook
from ovavel.service.config.site import Camera, Site

HOOK = Webhook(id="hook", address="https://example.org/T0/SECRET-PATH", secret="whsec_SECRET")
GATE = Camera(id="gate", source="rtsp://user:SECRET@camera.local/stream")
SITE = Site(bundle="b", data="d", camera=(GATE, Camera(id="yard", source="@yard.txt")), sink=(HOOK,))


def test_no_secret_is_shown() -> None:
    found = shown(SITE)
    assert "SECRET" not in json.dumps(found)
    assert found["camera"][0]["source"] == "rtsp://camera.local/stream"
    assert found["camera"][1]["source"] == "@yard.txt", "where it is read from is no secret"
    assert (found["sink"][0]["address"], found["sink"][0]["secret"]) == ("***", "***")
