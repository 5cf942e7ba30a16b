"""MQTT through a real broker: topics, retained state, commands, outages, and how Home Assistant finds a camera."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.mosquitto import Broker, Listener, retained
from support.mqtt_desk import DISCOVERY, GATE, LABELS, ROOT, MqttDesk
from support.needed import program_path
from support.service import until

from ovavel.runtime.errors import InputError
from ovavel.service.delivery.topics import CameraNow, label_slugs
from ovavel.service.store.database import Database


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path) as broker:
        yield broker


def test_the_house_is_seen_and_each_event_is_reported(store: Database, broker: Broker) -> None:
    with Listener(broker.port) as listener, MqttDesk(store, broker.port) as desk:
        desk.round()
        assert retained(broker.port, f"{ROOT}/#") == {
            f"{ROOT}/status": b"online",
            f"{GATE}/status": b"online",
            f"{GATE}/health": b'{"id":"gate","state":"watching","why":"","enabled":true,"snoozed_until_us":null,'
            b'"losses":{},"lacking":{}}',
            f"{GATE}/enabled/state": b"ON",
            **{f"{GATE}/label/{slug}/state": b"OFF" for slug in ("dog_barking", "sirene", "siren")},
        }
        desk.news("start")
        desk.news("start", 2)
        desk.round()
        assert retained(broker.port, f"{GATE}/label/dog_barking/state") == {f"{GATE}/label/dog_barking/state": b"ON"}
        desk.news("end")
        desk.round()
        assert retained(broker.port, f"{GATE}/label/dog_barking/state") == {f"{GATE}/label/dog_barking/state": b"ON"}
        desk.news("retract", 2)
        desk.round()
        desk.round()
        assert retained(broker.port, f"{GATE}/label/dog_barking/state") == {f"{GATE}/label/dog_barking/state": b"OFF"}
        assert retained(broker.port, f"{GATE}/event") == {}
        listener.until(lambda: len(listener.got(f"{GATE}/event")) == 4)
        news = [json.loads(each) for each in listener.got(f"{GATE}/event")]
        assert [(each["id"], each["revision"], each["event_type"]) for each in news] == [
            ("e1", 1, "start"),
            ("e2", 1, "start"),
            ("e1", 2, "end"),
            ("e2", 2, "retract"),
        ]
        assert "late" not in news[0]


def test_incidents_have_a_topic_of_the_site(store: Database, broker: Broker) -> None:
    with Listener(broker.port) as listener, MqttDesk(store, broker.port) as desk:
        desk.incident("camera down")
        desk.round()
        listener.until(lambda: listener.got(f"{ROOT}/incident"))
        (incident,) = map(json.loads, listener.got(f"{ROOT}/incident"))
        assert (incident["incident"], incident["camera"], incident["kind"]) == ("camera down", "gate", "begin")


def test_after_an_outage_there_is_one_late_end_for_an_event_and_no_old_start(store: Database, broker: Broker) -> None:
    with MqttDesk(store, broker.port) as desk:
        desk.round()
        broker.stop()
        desk.news("start")
        desk.news("update")
        desk.news("end")
        desk.news("start", 2)
        desk.until(lambda: desk.worker.trouble)
        desk.later(120)
        broker.start()  # it has forgotten everything
        with Listener(broker.port) as listener:
            desk.until(lambda: listener.got(f"{GATE}/event"))
            (end,) = map(json.loads, listener.got(f"{GATE}/event"))
            assert (end["id"], end["event_type"], end["late"]) == ("e1", "end", True)
            desk.round()
            known = retained(broker.port)
            assert known[f"{ROOT}/status"] == known[f"{GATE}/status"] == b"online"
            assert known[f"{GATE}/label/dog_barking/state"] == b"ON", "the second event is still open"
            assert DISCOVERY in known


def test_home_assistant_is_told_again_when_it_starts(store: Database, broker: Broker) -> None:
    with Listener(broker.port) as listener, MqttDesk(store, broker.port) as desk:
        desk.round()
        desk.round()
        listener.until(lambda: listener.got(DISCOVERY) and listener.got(f"{GATE}/status"))
        assert len(listener.got(DISCOVERY)) == 1, "once is enough until then"
        listener.publish("homeassistant/status", "online")
        desk.until(lambda: len(listener.got(DISCOVERY)) == 2)
        listener.until(lambda: len(listener.got(f"{GATE}/status")) == 2)


def test_home_assistant_finds_a_device_whose_topics_exist(store: Database, broker: Broker) -> None:
    with MqttDesk(store, broker.port) as desk:
        desk.round()
        known = retained(broker.port)
    device = json.loads(known[DISCOVERY])
    assert device["dev"]["name"] == "<b>gate</b>"
    assert device["o"]["name"] == "ovavel"
    assert [each["topic"] for each in device["availability"]] == [f"{ROOT}/status", f"{GATE}/status"]
    assert device["availability_mode"] == "all"
    components = device["cmps"]
    assert len({each["unique_id"] for each in components.values()}) == len(components)
    by_kind = {
        kind: [each for each in components.values() if each["p"] == kind]
        for kind in ("event", "binary_sensor", "switch")
    }
    assert by_kind["event"][0]["event_types"] == ["start", "end", "retract"]
    assert {each["name"] for each in by_kind["binary_sensor"]} == {"Connectivity", *LABELS}
    assert by_kind["switch"][0]["command_topic"] == f"{GATE}/enabled/set"
    for each in components.values():
        assert re.fullmatch(r"(event|binary_sensor|switch)\.[a-z0-9_]+", each["default_entity_id"])
        assert each["p"] == "event" or each["state_topic"] in known
        assert "object_id" not in each


def test_final_has_no_states_of_labels(store: Database, broker: Broker) -> None:
    with Listener(broker.port) as listener, MqttDesk(store, broker.port, when="final", discovery="ha") as desk:
        for kind in ("start", "end"):
            desk.news(kind)
        desk.round()
        listener.until(lambda: listener.got(f"{GATE}/event"))
        assert not any("/label/" in topic for topic, _ in listener.messages)
        (device,) = listener.got("ha/device/ovavel_site_gate/config")
        assert json.loads(device)["cmps"]["event"]["event_types"] == ["end"]


def test_what_an_earlier_service_left_is_removed(store: Database, broker: Broker) -> None:
    left = {
        f"{ROOT}/camera/shed/status": "online",
        f"{ROOT}/camera/shed/enabled/state": "ON",
        f"{ROOT}/camera/shed/label/cat/state": "ON",
        "homeassistant/device/ovavel_site_shed/config": "{}",
        f"{GATE}/label/no_longer_known/state": "ON",
    }
    others = {"ovavel/elsewhere/camera/shed/status": "online", "homeassistant/device/ovavel_sites_shed/config": "{}"}
    with Listener(broker.port) as listener:
        for topic, payload in {**left, **others}.items():
            listener.publish(topic, payload, retain=True)
    with MqttDesk(store, broker.port) as desk:
        desk.until(lambda: not left.keys() & retained(broker.port).keys())
        assert others.keys() <= retained(broker.port).keys()


def test_commands_are_done_and_nonsense_is_not(store: Database, broker: Broker) -> None:
    with Listener(broker.port) as listener:
        listener.publish(f"{GATE}/enabled/set", "OFF", retain=True)
        with MqttDesk(store, broker.port) as desk:
            desk.round()
            for topic, payload in (
                ("enabled/set", "maybe"),
                ("enabled/set", ""),
                ("snooze/set", "-1"),
                ("snooze/set", "nan"),
                ("snooze/set", "1e9"),
                ("snooze/set", "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")),
                ("enabled/set", "off"),
                ("snooze/set", "4"),
                ("snooze/set", "OFF"),
            ):
                listener.publish(f"{GATE}/{topic}", payload)
            listener.publish(f"{ROOT}/camera/none/enabled/set", "ON")
            listener.publish(f"{GATE}/enabled/set", "ON")
            desk.until(lambda: len(desk.asked) >= 4)
            assert desk.asked == [("gate", False), ("gate", 4.0), ("gate", 0.0), ("gate", True)]


def test_a_camera_that_is_off_or_snoozed_shows_it(store: Database, broker: Broker) -> None:
    with MqttDesk(store, broker.port) as desk:
        desk.news("start")
        desk.now["gate"] = CameraNow(id="gate", state="off", enabled=False, snoozed_until_us=5, losses={"slow": 3})
        desk.round()
        known = retained(broker.port, f"{GATE}/#")
    assert known[f"{GATE}/status"] == b"offline"
    assert known[f"{GATE}/enabled/state"] == b"OFF"
    assert known[f"{GATE}/label/dog_barking/state"] == b"OFF"
    assert json.loads(known[f"{GATE}/health"])["losses"] == {"slow": 3}


def test_the_last_will_and_the_goodbye_say_offline(store: Database, broker: Broker) -> None:
    with Listener(broker.port) as listener:
        desk = MqttDesk(store, broker.port)
        desk.round()
        client = desk.mqtt._client  # type: ignore[attr-defined]
        client.socket().shutdown(2)  # as a cable that is cut
        listener.until(lambda: listener.got(f"{ROOT}/status") == [b"online", b"offline"])
        desk.until(lambda: listener.got(f"{ROOT}/status")[-1] == b"online")
        desk.news("start")
        desk.round()
        desk.news("end")
        desk.now["gate"] = CameraNow(id="gate", state="stopped")
        desk.mqtt.close()  # type: ignore[attr-defined]
        known = retained(broker.port, f"{ROOT}/#")
        assert known[f"{ROOT}/status"] == known[f"{GATE}/status"] == b"offline"
        assert known[f"{GATE}/label/dog_barking/state"] == b"OFF", "nothing stays ON that nobody will end"


def test_a_second_service_of_the_same_name_does_not_make_it_connect_without_pause(
    store: Database, broker: Broker
) -> None:
    failures: list[int] = []

    def pause(count: int) -> float:
        failures.append(count)
        return 0.0

    with MqttDesk(store, broker.port) as desk, MqttDesk(store, broker.port) as other:
        desk.worker = desk.new_worker(pause=pause)
        for _ in range(3):
            desk.until(lambda: desk.mqtt._connected == "")  # type: ignore[attr-defined]
            other.until(lambda: other.mqtt._connected == "")  # type: ignore[attr-defined]
            until(lambda: desk.mqtt._connected)  # type: ignore[attr-defined]
            desk.worker.round()
        assert failures == [1, 2, 3], "each loss counts as one more failure in a row"
        assert "connection was lost" in desk.worker.trouble


def test_a_password_is_needed_where_the_broker_wants_one(store: Database, tmp_path: Path) -> None:
    subprocess.run(
        [program_path("mosquitto_passwd", "mosquitto"), "-b", "-c", str(tmp_path / "users"), "ann", "open:se/same@"],
        check=True,
    )
    lines = ("allow_anonymous false", f"password_file {tmp_path / 'users'}", "user root")
    with Broker(tmp_path, *lines) as broker:
        for login in ("", "ann:wrong@"):
            with MqttDesk(store, broker.port, address=f"mqtt://{login}127.0.0.1:{broker.port}") as desk:
                desk.news("start", 1 + bool(login))
                desk.round()
                assert "refuses the connection" in desk.worker.trouble
                assert "wrong" not in desk.worker.trouble
        address = f"mqtt://ann:open%3Ase%2Fsame%40@127.0.0.1:{broker.port}"
        with MqttDesk(store, broker.port, address=address) as desk:
            assert desk.worker.round()
            assert not desk.worker.trouble


def test_tls_is_verified(store: Database, tmp_path: Path) -> None:
    trustme = pytest.importorskip("trustme", reason="makes certificates")
    authority, other = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    other.cert_pem.write_to_path(str(tmp_path / "other.pem"))
    served = authority.issue_cert("localhost")
    served.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    served.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    lines = (f"certfile {tmp_path / 'cert.pem'}", f"keyfile {tmp_path / 'key.pem'}", "user root")
    with Broker(tmp_path, *lines) as broker:
        address = f"mqtts://localhost:{broker.port}"
        with MqttDesk(store, broker.port, address=address, ca_file=str(tmp_path / "other.pem")) as desk:
            desk.news("start")
            desk.round()
            assert "certificate verify failed" in desk.worker.trouble
        with MqttDesk(store, broker.port, address=address, ca_file=str(tmp_path / "ca.pem")) as desk:
            assert desk.worker.round()
            assert not desk.worker.trouble
    assert ssl.HAS_TLSv1_2


@pytest.mark.parametrize(
    "address", ["http://broker", "mqtt://", "mqtt://broker:0", "mqtt://broker:99999", "mqtt://broker/topic", "broker"]
)
def test_an_address_that_is_none_of_a_broker_is_an_error_at_the_start(store: Database, address: str) -> None:
    with pytest.raises(InputError, match="sink 'house'"):
        MqttDesk(store, 1, address=address)


@given(st.lists(st.text(max_size=80), unique=True, max_size=30))
def test_labels_become_levels_of_topics_that_are_unlike(labels: list[str]) -> None:
    slugs = label_slugs(labels)
    assert list(slugs) == labels
    assert len(set(slugs.values())) == len(labels)
    assert all(re.fullmatch(r"[a-z0-9_]{1,64}", each) for each in slugs.values())


@given(st.lists(st.sampled_from(["a b", "a+b", "a/b", "A#B", "ä b", "", "+", "#", "犬", "猫", "x"]), unique=True))
def test_labels_that_would_be_named_alike_are_marked_and_others_keep_theirs(labels: list[str]) -> None:
    slugs = label_slugs(labels)
    assert len(set(slugs.values())) == len(labels)
    assert slugs.get("x", "x") == "x"
