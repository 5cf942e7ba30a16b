"""Those that hear of events from a service under faults: a file, a webhook and a broker. None may miss a last word."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from ovavel.service.store.database import Transaction, rows
from support.faulty_link import FaultyLink
from support.mosquitto import Broker
from support.webhook_receiver import WebhookReceiver

__all__ = ["HOOK", "Receivers"]

HOOK = "hook"
_SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
_DEATH_S = 0.3
"""The relay to the broker has cut every connection by then."""


class Receivers:
    """Three receivers, and the lines of a site file that name them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.file = folder / "news.jsonl"
        self.webhook = WebhookReceiver()
        self.lines = [
            *("[[sink]]", 'kind = "jsonl"', 'id = "file"', 'when = "early"', f'path = "{self.file}"'),
            *("[[sink]]", 'kind = "webhook"', f'id = "{HOOK}"', 'when = "early"', "timeout_s = 2"),
            *(f'address = "{self.webhook.url}"', f'secret = "{_SECRET}"'),
        ]
        self.broker: Broker | None = None
        self._heard: list[dict[str, Any]] = []
        self._named = set[tuple[str, str, str]]()
        self._subscribed = threading.Event()
        if shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"):
            self.broker = Broker(folder)
            self.broker.start()
            self.link = FaultyLink(self.broker.port, seed=seed)
            self.lines += ["[[sink]]", 'kind = "mqtt"', 'id = "broker"']
            self.lines += [f'address = "mqtt://127.0.0.1:{self.link.port}"']
            self._listen(self.broker.port)

    def _listen(self, port: int) -> None:
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.reconnect_delay_set(1, 1)
        # Quality 0: the broker passes on before it confirms, and keeps nothing that would be lost with it.
        topics = [("ovavel/+/camera/+/event", 0), ("ovavel/+/camera/+/health", 0)]
        self._client.on_connect = lambda *_: self._client.subscribe(topics)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda _client, _data, message: self._hear(message.topic, message.payload)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._subscribed.wait(60), "the broker does not answer"

    def _hear(self, topic: str, payload: bytes) -> None:
        if topic.endswith("/event"):
            self._heard.append(json.loads(payload))
        elif payload:  # an empty one removes it
            health = json.loads(payload)
            for where, causes in (("losses", health["losses"]), *health["lacking"].items()):
                self._named.update((health["id"], where, cause) for cause in causes)

    @property
    def named(self) -> set[tuple[str, str, str]] | None:
        """Camera, "losses" or a sense, and cause of each loss that the broker heard of; None: there is no broker."""
        return self._named if self.broker else None

    def restart_broker(self, away_s: float) -> None:
        """Kill the broker, which keeps nothing, and start it again; the listener is there before the service is."""
        assert self.broker
        self.link.fault = "refused"
        time.sleep(_DEATH_S)
        self.broker.stop()
        time.sleep(away_s)
        self._subscribed.clear()
        self.broker.start()
        assert self._subscribed.wait(60), "the broker does not answer"
        self.link.fault = None

    def close(self) -> None:
        """End them."""
        self.webhook.__exit__()
        if self.broker:
            self._client.loop_stop()
            self.broker.stop()
            self.link.close()

    @property
    def got(self) -> dict[str, list[dict[str, Any]]]:
        """Sink → what arrived there about events, in the order of arrival."""
        posted = [json.loads(each.body) for each in list(self.webhook.received)]
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        written = []
        for line in lines:
            with contextlib.suppress(ValueError):  # torn by a kill or a full disk, and written again after it
                written.append(json.loads(line))
        found = {
            HOOK: [each["data"] for each in posted if each["type"].startswith("event.")],
            "file": [each for each in written if str(each["type"]).startswith("event.")],
        }
        return found | ({"broker": list(self._heard)} if self.broker else {})

    def wrong(self, store: Transaction) -> list[str]:
        """What does not hold once nothing is pending: who missed the last word on an event, or got news in disorder."""
        found: list[str] = []
        for sink, news in self.got.items():
            revisions = defaultdict(list)
            for each in news:
                revisions[each["id"]].append(each["revision"])
            found += [
                f"{sink} got the revisions of {event} as {numbers}"
                for event, numbers in revisions.items()
                if numbers != sorted(numbers)
            ]
            found += [
                f"{sink} missed the {kind} of {event}, revision {revision}, and got {revisions[event]}"
                for event, revision, kind in _owed(store, sink)
                if revisions[event][-1:] != [revision]
            ]
        return found


def _owed(store: Transaction, sink: str) -> Iterable[tuple[str, int, str]]:
    """The last revision of each event that the sink wanted, but for those that it can have refused (410)."""
    query = (
        "SELECT log.event_id, log.revision, log.kind FROM event_log AS log JOIN event ON event.id = log.event_id "
        "AND event.revision = log.revision LEFT JOIN outbox ON outbox.sink = ? AND outbox.event_id = log.event_id "
        "AND outbox.revision = log.revision WHERE log.kind = 'end' AND coalesce(outbox.state, 'none') <> 'failed' "
        "OR log.kind = 'retract' AND outbox.state = 'delivered'"
    )
    return rows(store, query, (sink,))
