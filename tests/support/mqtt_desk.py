"""A desk whose sender talks to a broker, and the topics of its one camera."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ovavel.service.config.sinks import Mqtt
from ovavel.service.config.site import Camera
from ovavel.service.delivery.message import Place
from ovavel.service.delivery.mqtt import MqttSender
from ovavel.service.delivery.topics import CameraNow, House
from ovavel.service.store.database import Database, rows
from support.deliveries import Desk
from support.service import site, until

LABELS = ("dog barking", "Sirène + #/", "siren")
ROOT = "ovavel/site"
GATE = f"{ROOT}/camera/gate"
DISCOVERY = "homeassistant/device/ovavel_site_gate/config"


class MqttDesk(Desk):
    """A desk whose sender talks to a broker; what it is asked to do is kept."""

    def __init__(self, store: Database, port: int, *, cameras: tuple[str, ...] = ("gate",), **changes: Any) -> None:
        address = changes.pop("address", f"mqtt://127.0.0.1:{port}")
        super().__init__(store, Mqtt(id="house", address=address, **changes))
        self.now = {each: CameraNow(id=each, state="watching") for each in cameras}
        self.place = Place(
            site(store.folder, *(Camera(id=each, source="x", name=f"<b>{each}</b>") for each in cameras)), LABELS
        )
        self.asked: list[tuple[str, Any]] = []
        self.restart()

    def restart(self) -> None:
        house = House(
            cameras=lambda: list(self.now.values()),
            happening=self._happening,
            enable=lambda camera, on: self.asked.append((camera, on)),
            snooze=lambda camera, hours: self.asked.append((camera, hours)),
        )
        self.sender = self.mqtt = MqttSender(self.sink, self.place, house)  # type: ignore[assignment, arg-type]
        self.worker = self.new_worker()

    def _happening(self) -> set[tuple[str, str]]:
        return set(rows(self.store.read, "SELECT camera_id, label FROM event WHERE state = 'open'"))

    def round(self) -> None:
        self.worker.round()

    def until(self, condition: Callable[[], object]) -> None:
        """Go on until it holds."""
        until(lambda: (self.worker.round(), condition())[1])

    def __enter__(self) -> MqttDesk:
        return self

    def __exit__(self, *_: object) -> None:
        self.mqtt.close()  # type: ignore[attr-defined]
