"""A broker of our own on the loopback interface, and somebody who listens to all of it."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from support.needed import program_path


class Broker:
    """Forgets everything when it stops. `lines` are added to its configuration."""

    def __init__(self, folder: Path, *lines: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._command = [program_path("mosquitto"), "-c", str(folder / "mosquitto.conf")]
        user = "user root" if not lines else ""
        config = [f"listener {self.port} 127.0.0.1", "persistence false", "log_type none", user, *lines]
        if not any(line.startswith("allow_anonymous") for line in lines):
            config.append("allow_anonymous true")
        (folder / "mosquitto.conf").write_text("\n".join(config) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end_s = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert self._process.poll() is None, "mosquitto ended"
                assert time.monotonic() < end_s, "mosquitto does not answer"
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Listener:
    """Keeps every message, and what is retained now."""

    def __init__(self, port: int, *, topic: str = "#", **login: str) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self.retained: dict[str, bytes] = {}
        self._topic, self._change, self._subscribed = topic, threading.Condition(), threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2)
        if login:
            self._client.username_pw_set(login["user"], login["password"])
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.connect("127.0.0.1", port)
        self._client.subscribe(topic, 1)
        self._client.loop_start()
        assert self._subscribed.wait(60)

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        with self._change:
            self.messages.append((message.topic, message.payload))
            self._change.notify_all()

    def publish(self, topic: str, payload: str, *, retain: bool = False) -> None:
        info = self._client.publish(topic, payload, 1, retain)
        info.wait_for_publish(60)
        assert info.is_published()

    def until(self, condition: Callable[[], object]) -> None:
        with self._change:
            assert self._change.wait_for(lambda: bool(condition()), 60), self.messages

    def got(self, topic: str) -> list[bytes]:
        """Payloads of a topic, oldest first."""
        return [payload for each, payload in list(self.messages) if each == topic]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def retained(port: int, topic: str = "#", **login: str) -> dict[str, bytes]:
    """What a broker hands to whoever comes now."""
    with Listener(port, topic=topic, **login) as listener:
        end = "end-of-retained"
        listener._client.subscribe(end)
        listener.publish(end, "x")  # the broker has sent what is retained before it confirms a later message
        listener.until(lambda: listener.got(end))
        return {topic: payload for topic, payload in listener.messages if topic != end}
