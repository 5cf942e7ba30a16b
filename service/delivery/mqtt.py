"""An MQTT broker: news as messages, the state of the house as retained topics, and commands back."""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import re
import ssl
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec

from ovavel.runtime.errors import InputError, MissingExtraError
from ovavel.runtime.reporting.text import quoted
from ovavel.service.config.sinks import Mqtt
from ovavel.service.delivery.home_assistant import device
from ovavel.service.delivery.message import Message, Place
from ovavel.service.delivery.sender import IN_FLIGHT, Outcome, Unavailable, secret_of
from ovavel.service.delivery.topics import House, Topics, state_topics
from ovavel.service.store.events import EventBody

try:
    from paho.mqtt.client import Client, MQTTMessage, MQTTv311
    from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
except ImportError as error:
    raise MissingExtraError("paho-mqtt", "serve", need="MQTT") from error

__all__ = ["MqttSender"]

_log = logging.getLogger(__name__)

ANSWER_S = 10.0
"""How long a broker may take to accept a connection or to confirm messages."""
_CONNECT_S = 5.0
_KEEP_ALIVE_S = 30
_GOODBYE_S = 1.0
_WELL_S = 30.0
"""A connection that held for so long works; two services with one name throw each other out sooner."""
_LONGEST_SNOOZE_H = 168.0
_MOST_NEWS = 1000

ONLINE, OFFLINE = b"online", b"offline"


class _Publication(NamedTuple):
    topic: str
    payload: bytes
    retain: bool


class MqttSender:
    """Keeps one connection. The outbox is the truth: nothing waits in the client while the broker is away."""

    def __init__(self, sink: Mqtt, place: Place, house: House | None) -> None:
        """Resolve the address.

        Args:
            sink: of the site.
            place: names of the cameras, and those that events can have.
            house: what retained topics show and commands do; None: only send messages, beside a service that runs.

        Raises:
            InputError: the address is none of a broker, or certificates cannot be read.
        """
        self._sink, self._place, self._house = sink, place, house
        self._topics = Topics(sink, place.site, place.labels)
        self._past: set[str] = set()  # slugs of labels that Home Assistant may still have entities of
        self._address = _address(sink)
        self._tls = _tls(sink) if self._address.scheme == "mqtts" else None
        self._client: Client | None = None
        self._change = threading.Condition()
        self._connected: str | None = None  # None: not yet; "": it is; else why it is not
        self._confirmed: set[int] = set()
        self._interrupted, self._since_s = False, 0.0
        self._shown: dict[str, bytes] = {}  # what the broker has confirmed on this connection
        self._news: queue.Queue[MQTTMessage] = queue.Queue(_MOST_NEWS)

    def prepare(self) -> bool:
        """Connect where it is needed, do what was asked, and make retained topics say what is.

        Raises:
            Unavailable: the broker cannot be reached, refuses, or closed the connection.
        """
        if self._client is None:
            self._connect()
        elif self._connected != "":
            raise self._lost()  # and another time, for whoever closes connections at once will do so again
        if self._house is None:
            return False
        self._read_news(self._house)
        if not self._show(self._house, ONLINE):
            raise self._lost()
        return time.monotonic() - self._since_s >= _WELL_S

    def send(self, messages: Sequence[Message]) -> list[Outcome]:
        """Publish each and wait for the broker to confirm it."""
        done = self._publish([_Publication(self._topic(each), _payload(each), False) for each in messages])
        why = "" if all(done) else str(self._lost())
        return [Outcome(result="delivered") if each else Outcome(result="unavailable", why=why) for each in done]

    def interrupt(self) -> None:
        """Wait for nothing any more."""
        with self._change:
            self._interrupted = True
            self._change.notify_all()

    def close(self) -> None:
        """Say that the site is offline, as the last will would, and disconnect."""
        if self._client is None:
            return
        if self._house and self._connected == "":
            self._show(self._house, OFFLINE, within_s=_GOODBYE_S)
        self._disconnect()

    def _topic(self, message: Message) -> str:
        if isinstance(message.body, EventBody):
            return self._topics.of(message.body.camera, "event")
        return self._topics.incident

    def _show(self, house: House, status: bytes, *, within_s: float = ANSWER_S) -> bool:
        """Make retained topics say what is; whether the broker has confirmed all of it."""
        wanted = self._wanted(house, status)
        changed = [_Publication(topic, says, True) for topic, says in wanted.items() if self._shown.get(topic) != says]
        return all(self._publish(changed, within_s=within_s))

    def _wanted(self, house: House, status: bytes) -> dict[str, bytes]:
        cameras = house.cameras()
        before = self._topics
        self._topics = Topics(self._sink, self._place.site, self._place.labels)  # cameras and names come and go
        now = set(self._topics.labels.values())
        self._past = (self._past | set(before.labels.values())) - now
        wanted = dict.fromkeys(self._shown, b"")  # what is not wanted any more is removed
        for camera in self._topics.cameras:
            if topic := self._topics.discovery(camera):
                wanted[topic] = msgspec.json.encode(device(self._sink, self._place, self._topics, camera, self._past))
        wanted |= state_topics(self._topics, cameras, house.happening())
        wanted[self._topics.status] = status
        return wanted

    def _read_news(self, house: House) -> None:
        while True:
            try:
                message = self._news.get_nowait()
            except queue.Empty:
                return
            self._read(house, message)

    def _read(self, house: House, message: MQTTMessage) -> None:
        topic, payload = message.topic, bytes(message.payload)
        if topic == self._topics.home_assistant:
            if payload == ONLINE:
                self._shown.clear()  # it has started, and may have missed what is retained
            return
        _, _, rest = topic.partition(f"{self._topics.root}/camera/")
        camera, *levels = rest.split("/")
        if levels[-1:] != ["set"]:
            if message.retain and payload:
                self._retained(topic, camera)
        elif message.retain:  # would be done again at each connection
            _log.warning("a retained command on %s is ignored", topic)
        elif camera in self._topics.cameras:
            self._do(house, camera, levels, payload.decode("utf-8", "replace").strip())

    def _retained(self, topic: str, camera: str) -> None:
        """An earlier service left this; `_wanted` removes it unless it is still so."""
        self._shown.setdefault(topic, b"?")
        if labelled := re.fullmatch(r"label/([^/]+)/state", topic.removeprefix(f"{self._topics.of(camera)}/")):
            self._past |= {labelled[1]} - set(self._topics.labels.values())
        discovery = self._topics.discovery(camera)
        if camera not in self._topics.cameras and discovery:
            self._shown.setdefault(discovery, b"?")

    def _do(self, house: House, camera: str, levels: Sequence[str], asked: str) -> None:
        if levels[0] == "enabled" and asked.upper() in ("ON", "OFF"):
            house.enable(camera, asked.upper() == "ON")
            return
        hours = 0.0 if asked.upper() == "OFF" else _number(asked)
        if levels[0] == "snooze" and 0 <= hours <= _LONGEST_SNOOZE_H:
            house.snooze(camera, hours)
            return
        _log.warning("%s/set takes %s, not %s", levels[0], _TAKES.get(levels[0], "nothing"), quoted(asked))

    def _connect(self) -> None:
        self._disconnect()
        where, house = self._address, self._house
        name = f"ovavel-{self._place.site.name}-{self._sink.id}" + ("" if house else "-test")
        client = Client(CallbackAPIVersion.VERSION2, name, protocol=MQTTv311, reconnect_on_failure=False)
        client.connect_timeout = _CONNECT_S
        client.max_inflight_messages_set(IN_FLIGHT)
        if where.username is not None:
            client.username_pw_set(unquote(where.username), unquote(where.password or ""))
        if self._tls:
            client.tls_set_context(self._tls)
        if house:
            client.will_set(self._topics.status, OFFLINE, qos=1, retain=True)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_publish, client.on_message = self._on_publish, self._on_message
        self._connected, self._client = None, client
        self._confirmed.clear()
        self._shown.clear()
        self._since_s = time.monotonic()
        try:
            client.connect(str(where.hostname), where.port or (8883 if self._tls else 1883), _KEEP_ALIVE_S)
        except (OSError, ValueError) as error:
            self._client = None
            raise Unavailable(f"the broker {where.hostname} cannot be reached: {error}") from error
        client.loop_start()
        with self._change:
            self._change.wait_for(lambda: self._connected is not None or self._interrupted, ANSWER_S)
        if self._connected != "":
            raise self._lost()
        if house:
            self._subscribe(client)

    def _subscribe(self, client: Client) -> None:
        levels = ("status", "health", "enabled/+", "label/+/state", "snooze/set")
        topics = [self._topics.of("+", each) for each in levels]
        if home_assistant := self._topics.home_assistant:
            topics.append(home_assistant)
        client.subscribe([(each, 1) for each in topics])

    def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        with contextlib.suppress(Exception):
            client.disconnect()
            client.loop_stop()

    def _lost(self) -> Unavailable:
        """The connection is of no use any more, and why."""
        why = self._connected or "it did not answer"
        self._disconnect()
        return Unavailable(f"the broker {self._address.hostname}: {why}")

    def _publish(self, publications: Sequence[_Publication], *, within_s: float = ANSWER_S) -> list[bool]:
        """Publish, and return which were confirmed in time."""
        client, sent = self._client, list[int]()
        for each in publications if client else ():
            assert client
            info = client.publish(each.topic, each.payload, qos=1, retain=each.retain)
            if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
                break
            sent.append(info.mid)
        end_s = time.monotonic() + within_s
        with self._change:
            self._change.wait_for(
                lambda: self._confirmed.issuperset(sent) or self._connected != "" or self._interrupted,
                max(0.0, end_s - time.monotonic()),
            )
            done = [mid in self._confirmed for mid in sent]
            self._confirmed.difference_update(sent)
        done += [False] * (len(publications) - len(done))
        for each, confirmed in zip(publications, done, strict=True):
            if each.retain and confirmed:
                if each.payload:
                    self._shown[each.topic] = each.payload
                else:
                    self._shown.pop(each.topic, None)
        return done

    # Called by the client's own thread.

    def _on_connect(self, client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if client is self._client:
            with self._change:
                self._connected = f"it refuses the connection: {reason}" if reason.is_failure else ""
                self._change.notify_all()

    def _on_disconnect(self, client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if client is self._client:
            with self._change:
                self._connected = self._connected or f"the connection was lost: {reason}"
                self._change.notify_all()

    def _on_publish(self, client: Client, _data: Any, mid: int, _reason: Any, _properties: Any) -> None:
        if client is self._client:
            with self._change:
                self._confirmed.add(mid)
                self._change.notify_all()

    def _on_message(self, client: Client, _data: Any, message: MQTTMessage) -> None:
        if client is self._client:
            with contextlib.suppress(queue.Full):  # a flood of commands: the rest of it is dropped
                self._news.put_nowait(message)


_TAKES = {"enabled": "ON or OFF", "snooze": f"hours from 0 to {_LONGEST_SNOOZE_H:g}"}


def _payload(message: Message) -> bytes:
    return msgspec.json.encode({"event_type": message.body.kind, **message.data})


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _address(sink: Mqtt) -> Any:
    parts = urlsplit(secret_of(sink.address))
    with contextlib.suppress(ValueError):
        if parts.scheme in ("mqtt", "mqtts") and parts.hostname and parts.port != 0 and parts.path in ("", "/"):
            return parts
    raise InputError(
        f"the address of sink {sink.id!r} must be mqtt://host or mqtts://host, with a port if it is unusual"
    )


def _tls(sink: Mqtt) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=sink.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise InputError(f"the certificates {sink.ca_file} of sink {sink.id!r} cannot be read: {error}") from error
