"""MQTT topics of a site, and what the retained ones say."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass

import msgspec
from msgspec import Struct

from ovavel.service.config.sinks import Mqtt
from ovavel.service.config.site import Site

__all__ = ["CameraNow", "House", "Topics", "label_slugs", "state_topics"]

_LONGEST = 48
_MARK = 8


class CameraNow(Struct, frozen=True, kw_only=True):
    """A camera as it is at this moment."""

    id: str
    state: str
    """starting, watching, offline, off, ended or stopped"""
    why: str = ""
    """Why it is offline, without secrets."""
    enabled: bool = True
    """False: a person has switched it off."""
    snoozed_until_us: int | None = None
    """Until when nothing of it is reported; None: it is."""
    losses: dict[str, int] = {}
    """Cause → seconds of this hour and the one before that were not decided."""
    lacking: dict[str, dict[str, int]] = {}
    """Sense → cause → seconds of video or audio that windows lacked since the service started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """What a two-way sink shows and does. All of it is called from the thread of the sink."""

    cameras: Callable[[], Sequence[CameraNow]]
    """Every camera of the site."""
    happening: Callable[[], Set[tuple[str, str]]]
    """Camera and label of every event that is open."""
    enable: Callable[[str, bool], None]
    """Switch a camera on or off."""
    snooze: Callable[[str, float], None]
    """Report nothing of a camera for so many hours; 0 ends it."""


class Topics:
    """Names of the topics of one site. Names of cameras are plain already; labels become slugs."""

    def __init__(self, sink: Mqtt, site: Site, labels: Sequence[str]) -> None:
        self.root = f"{sink.prefix}/{site.name}"
        self.status, self.incident = f"{self.root}/status", f"{self.root}/incident"
        self.cameras = tuple(each.id for each in site.camera if each.id in (sink.cameras or (each.id,)))
        shown = [each for each in labels if each in (sink.labels or (each,))] if sink.when == "early" else []
        slugs = label_slugs(labels)  # of all: a label's topic does not change with what a sink leaves out
        self.labels = {each: slugs[each] for each in shown}
        self._discovery, self._site = sink.discovery, site.name

    def of(self, camera: str, *levels: str) -> str:
        """A topic of a camera."""
        return "/".join((self.root, "camera", camera, *levels))

    def discovery(self, camera: str) -> str | None:
        """Where Home Assistant looks for the camera; None: it is not announced."""
        return f"{self._discovery}/device/ovavel_{self._site}_{camera}/config" if self._discovery else None

    @property
    def home_assistant(self) -> str | None:
        """Where Home Assistant says that it has started."""
        return f"{self._discovery}/status" if self._discovery else None


def label_slugs(labels: Iterable[str]) -> dict[str, str]:
    """Name each label for use in topics: a-z, 0-9 and _, unlike every other, and the same whatever others there are.

    Only labels that would be named alike, or lose too much, carry a mark made from all of their characters.
    """
    plain = {label: _plain(label) for label in dict.fromkeys(labels)}
    shared = {slug for slug in plain.values() if list(plain.values()).count(slug) > 1}
    return {label: _marked(slug, label) if slug in shared or not slug else slug for label, slug in plain.items()}


def _plain(label: str) -> str:
    decomposed = unicodedata.normalize("NFKD", label).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "_", decomposed).strip("_")
    lost = sum(each.isalnum() for each in label if not unicodedata.normalize("NFKD", each).isascii())
    marked_alike = re.search(rf"(^|_)[0-9a-f]{{{_MARK}}}$", slug)
    return _marked(slug, label) if len(slug) > _LONGEST or marked_alike or (slug and lost > len(label) // 2) else slug


def _marked(slug: str, label: str) -> str:
    mark = hashlib.sha256(label.encode("utf-8", "surrogatepass")).hexdigest()[:_MARK]
    return f"{slug[:_LONGEST]}_{mark}".strip("_")


def state_topics(topics: Topics, cameras: Sequence[CameraNow], happening: Set[tuple[str, str]]) -> dict[str, bytes]:
    """Every retained topic of the cameras and what it says now."""
    found: dict[str, bytes] = {}
    for camera in cameras:
        if camera.id not in topics.cameras:
            continue
        found[topics.of(camera.id, "status")] = b"online" if camera.state == "watching" else b"offline"
        found[topics.of(camera.id, "health")] = msgspec.json.encode(camera)
        found[topics.of(camera.id, "enabled", "state")] = _on(camera.enabled)
        for label, slug in topics.labels.items():
            on = (camera.id, label) in happening and camera.snoozed_until_us is None
            found[topics.of(camera.id, "label", slug, "state")] = _on(on)
    return found


def _on(value: bool) -> bytes:
    return b"ON" if value else b"OFF"
