"""What Home Assistant finds through a real broker when names change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.mosquitto import Broker, retained
from support.mqtt_desk import DISCOVERY, GATE, LABELS, MqttDesk

from ovavel.service.store.database import Database


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path) as broker:
        yield broker


def components(broker: Broker) -> dict[str, Any]:
    """What is announced of labels."""
    announced = json.loads(retained(broker.port, DISCOVERY)[DISCOVERY])["cmps"]
    return {name: each for name, each in announced.items() if name.startswith("label_")}


def test_names_that_come_and_go_have_their_sensors_made_and_removed(store: Database, broker: Broker) -> None:
    with MqttDesk(store, broker.port) as desk:
        desk.round()
        assert components(broker).keys() == {"label_dog_barking", "label_sirene", "label_siren"}
        desk.place.labels = ("siren", "car")
        desk.round()
        found = components(broker)
        removed = {"p": "binary_sensor"}  # and nothing else: that is how Home Assistant removes one
        assert {name for name, each in found.items() if each == removed} == {"label_dog_barking", "label_sirene"}
        assert found["label_car"]["name"] == "car"
        states = {f"{GATE}/label/{slug}/state": b"OFF" for slug in ("siren", "car")}
        assert retained(broker.port, f"{GATE}/label/+/state") == states, "nothing is left of the others"
        desk.place.labels = LABELS
        desk.round()
        assert components(broker)["label_dog_barking"]["name"] == "dog barking", "it is back"
        desk.mqtt.close()
        desk.place.labels = LABELS[1:]
        desk.restart()  # names that went while no service ran
        desk.until(lambda: components(broker).get("label_dog_barking") == removed)
        assert f"{GATE}/label/dog_barking/state" not in retained(broker.port, f"{GATE}/label/+/state")
