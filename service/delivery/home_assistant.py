"""How Home Assistant finds each camera as a device (MQTT device discovery)."""

from __future__ import annotations

from collections.abc import Set
from importlib.metadata import version
from typing import Any

from ovavel.service.config.sinks import Mqtt
from ovavel.service.delivery.message import Place
from ovavel.service.delivery.topics import Topics

__all__ = ["device"]


def device(sink: Mqtt, place: Place, topics: Topics, camera: str, past: Set[str] = frozenset()) -> dict[str, Any]:
    """The payload that announces a camera with its entities. Those of the labels with `past` slugs are removed."""
    site, name = place.site.name, place.name(camera)
    # Dots separate what names of sites and cameras cannot hold, so no two entities can be named alike.
    own = f"ovavel.{site}.{camera}"
    entity = f"{site}_{camera}".replace("-", "_")
    site_up = {"topic": topics.status}
    camera_up = {"topic": topics.of(camera, "status")}
    kinds = ["start", "end", "retract"] if sink.when == "early" else ["end"]
    components: dict[str, Any] = {
        "event": {
            "p": "event",
            "unique_id": f"{own}.event",
            "default_entity_id": f"event.{entity}",
            "name": "Event",
            "state_topic": topics.of(camera, "event"),
            "event_types": kinds,
            "icon": "mdi:motion-sensor",
        },
        "connectivity": {
            "p": "binary_sensor",
            "unique_id": f"{own}.connectivity",
            "default_entity_id": f"binary_sensor.{entity}_connectivity",
            "name": "Connectivity",
            "device_class": "connectivity",
            "entity_category": "diagnostic",
            "state_topic": topics.of(camera, "status"),
            "payload_on": "online",
            "payload_off": "offline",
            # It must not become unavailable with the camera: that is what it reports.
            "availability": [site_up],
            "json_attributes_topic": topics.of(camera, "health"),
        },
        "enabled": {
            "p": "switch",
            "unique_id": f"{own}.enabled",
            "default_entity_id": f"switch.{entity}_enabled",
            "name": "Enabled",
            "entity_category": "config",
            "state_topic": topics.of(camera, "enabled", "state"),
            "command_topic": topics.of(camera, "enabled", "set"),
            "availability": [site_up],
        },
    }
    for label, slug in topics.labels.items():
        components[f"label_{slug}"] = {
            "p": "binary_sensor",
            "unique_id": f"{own}.label.{slug}",
            "default_entity_id": f"binary_sensor.{entity}_{slug}",
            "name": label,
            "state_topic": topics.of(camera, "label", slug, "state"),
        }
    for slug in sorted(past):  # one that is merely left out stays
        components[f"label_{slug}"] = {"p": "binary_sensor"}
    return {
        "dev": {"identifiers": [own], "name": name, "manufacturer": "ovavel", "sw_version": version("ovavel")},
        "o": {"name": "ovavel", "sw_version": version("ovavel")},
        "availability": [site_up, camera_up],
        "availability_mode": "all",
        "qos": 1,
        "cmps": components,
    }
