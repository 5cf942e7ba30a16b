"""A chat endpoint on loopback that looks at stills and listens to sound itself, with every fault that one may have."""

from __future__ import annotations

import base64
import io
import json
import re
import socket
import struct
import threading
import wave
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PROBE = "a beeping tone"
"""A class of the probe alone."""

Body: TypeAlias = dict[str, Any]
Brain: TypeAlias = Callable[[Body], str]
"""Returns the answer to a request."""
Fault: TypeAlias = Callable[["Handler", Body], None]
"""Answers a request in the place of the brain."""


class ChatEndpoint:
    """Answers POST /v1/chat/completions with what `brain` says; the first `faults` happen to the first questions.

    Questions of the probe are answered without a fault, unless `at_probe`.
    """

    def __init__(
        self,
        brain: Brain | None = None,
        faults: Iterable[Fault] = (),
        *,
        at_probe: bool = False,
        always: Fault | None = None,
    ) -> None:
        self.brain = brain or SeesAndHears()
        self.faults = deque(faults)
        self.always = always
        self.at_probe = at_probe
        self.bodies: list[Body] = []
        """Everything that was asked, in the order of arrival."""
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.stopped = threading.Event()
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"endpoint": self}))
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self) -> ChatEndpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.server.shutdown()
        self.server.server_close()

    @property
    def questions(self) -> list[Body]:
        """What was asked beside the probe."""
        return [body for body in self.bodies if not is_probe(body)]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    endpoint: ChatEndpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        endpoint = self.endpoint
        with endpoint.lock:
            endpoint.bodies.append(body)
            endpoint.headers.append(dict(self.headers))
            endpoint.paths.append(self.path)
            fault = endpoint.always
            if endpoint.faults and (endpoint.at_probe or not is_probe(body)):
                fault = endpoint.faults.popleft()
        with suppress(OSError):  # whoever asked has gone
            if fault:
                fault(self, body)
            else:
                self.answer(endpoint.brain(body))

    def answer(self, text: str, **more: Any) -> None:
        self.send(200, json.dumps(completion(text) | more).encode())

    def send(self, status: int, data: bytes, content_type: str = "application/json", **headers: str) -> None:
        self.begin(status, content_type, Content_Length=len(data), **headers)
        self.wfile.write(data)

    def begin(self, status: int = 200, content_type: str = "application/json", **headers: object) -> None:
        """Send the head of an answer."""
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


def completion(text: Any, model: str = "toy") -> Body:
    return {
        "id": "1",
        "object": "chat.completion",
        "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050},
    }


def is_probe(body: Body) -> bool:
    return PROBE in words(body)


def parts(body: Body) -> list[Body]:
    found: list[Body] = body["messages"][0]["content"]
    return found


def words(body: Body) -> str:
    return str(parts(body)[0]["text"])


def classes(body: Body) -> list[str]:
    """Names in the order of their numbers."""
    listed = words(body).partition("Classes:\n")[2].partition("\n\n")[0]
    return [line.partition(": ")[2] for line in listed.splitlines()]


def stills(body: Body) -> list[NDArray[np.uint8]]:
    """What follows each "second k", decoded."""
    found = []
    for before, part in zip(parts(body), parts(body)[1:], strict=False):
        if part["type"] == "image_url":
            kind, _, data = part["image_url"]["url"].partition(",")
            assert kind == "data:image/jpeg;base64"
            assert before["text"] == f"second {len(found)}"
            image = Image.open(io.BytesIO(base64.b64decode(data)))
            assert image.format == "JPEG"
            found.append(np.asarray(image))
    return found


def sound(body: Body) -> NDArray[np.float64] | None:
    """Samples of the sound in [-1, 1], 16 kHz."""
    for part in parts(body):
        if part["type"] == "input_audio":
            assert part["input_audio"]["format"] == "wav"
            with wave.open(io.BytesIO(base64.b64decode(part["input_audio"]["data"]))) as file:
                assert file.getparams()[:4] == (1, 2, 16_000, 160_000)
                return np.frombuffer(file.readframes(160_000), "<i2") / 32768
    return None


class SeesAndHears:
    """Names what it sees by the mean colour of a still and what it hears by the loudest frequency of a second."""

    def __init__(
        self,
        colours: dict[str, tuple[int, int, int]] | None = None,
        tones_hz: dict[str, float] | None = None,
        *,
        deaf: bool = False,
        blind: bool = False,
    ) -> None:
        self.colours, self.tones_hz = colours or {}, tones_hz or {}
        self.deaf, self.blind = deaf, blind

    @classmethod
    def of_bench(cls, names: Iterable[str], **senses: bool) -> SeesAndHears:
        """Knows the classes that `make_bench` writes, whose sorted names are `names`."""
        return cls(
            {name: ((37 * i) % 256, (91 * i + 60) % 256, (153 * i + 120) % 256) for i, name in enumerate(names)},
            {name: 200.0 + 150 * i for i, name in enumerate(names)},
            **senses,
        )

    def __call__(self, body: Body) -> str:
        names = classes(body)
        said = {}
        if '"seen"' in words(body):
            seen = [] if self.blind else [self.look(each) for each in stills(body)]
            said["seen"] = [names.index(name) if name in names else -1 for name in seen or ["a red square"] * 10]
        if '"heard"' in words(body):
            samples = None if self.deaf else sound(body)
            heard = [] if samples is None else [self.listen(each) for each in samples.reshape(10, -1)]
            said["heard"] = [names.index(name) if name in names else -1 for name in heard or ["a beeping tone"] * 10]
        return json.dumps(said)

    def look(self, still: NDArray[np.uint8]) -> str:
        mean = still.reshape(-1, 3).mean(axis=0)
        red, _, blue = still.reshape(-1, 3).astype(int).T
        if (np.abs(mean - mean.mean()) < 3).all():
            return ""  # grey, or black
        if still.max() > 250 and (still > 250).all(axis=2).mean() > 0.3:  # on white paper
            return "a red square" if ((red - blue) > 100).any() else "a blue circle"
        near = {name: float(np.abs(mean - colour).sum()) for name, colour in self.colours.items()}
        return min(near, key=near.__getitem__) if near and min(near.values()) < 30 else ""

    def listen(self, second: NDArray[np.float64]) -> str:
        power = np.abs(np.fft.rfft(second)) ** 2
        if power.sum() < 1:
            return ""
        loudest = float(power.argmax())
        if power.max() < 0.05 * power.sum():
            return "hissing noise"
        if abs(loudest - 1000) < 5 and (np.abs(second) < 0.01).mean() > 0.4:  # on and off
            return "a beeping tone"
        near = {name: abs(loudest - hz) for name, hz in self.tones_hz.items()}
        return min(near, key=near.__getitem__) if near and min(near.values()) < 20 else ""


# Faults


def status(code: int, message: str = "no", **headers: str) -> Fault:
    def answer(handler: Handler, body: Body) -> None:
        handler.send(code, json.dumps({"error": {"message": message}}).encode(), **headers)

    return answer


def raw(data: bytes, content_type: str = "application/json") -> Fault:
    return lambda handler, body: handler.send(200, data, content_type)


def says(text: Any, **more: Any) -> Fault:
    return lambda handler, body: handler.answer(text, **more)


def hang_in_body(handler: Handler, body: Body) -> None:
    """Begin an answer and never end it."""
    handler.begin(Content_Length=1000)
    handler.wfile.write(b'{"choices": [')
    handler.wfile.flush()
    handler.endpoint.stopped.wait()
    handler.close_connection = True


def trickle(handler: Handler, body: Body) -> None:
    """Send a byte again and again: no single read takes long."""
    handler.begin(Content_Length=100_000_000)
    while not handler.endpoint.stopped.wait(0.02):
        handler.wfile.write(b" ")
    handler.close_connection = True


def cut(handler: Handler, body: Body) -> None:
    """Close the connection in the middle of an answer."""
    data = json.dumps(completion("x")).encode()
    handler.begin(Content_Length=len(data))
    handler.wfile.write(data[: len(data) // 2])
    handler.close_connection = True


def reset(handler: Handler, body: Body) -> None:
    """Reset the connection, as a server does that is killed."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


def huge(handler: Handler, body: Body) -> None:
    """Send an answer without end."""
    handler.begin(Connection="close")
    handler.close_connection = True
    while not handler.endpoint.stopped.is_set():
        handler.wfile.write(b" " * 2**20)


def events(*, complete: bool = True) -> Fault:
    """Stream the answer although nobody asked for it."""

    def answer(handler: Handler, body: Body) -> None:
        text = handler.endpoint.brain(body)
        pieces = re.findall(r".{1,7}", text)
        sent = [{"model": "toy", "choices": [{"delta": {"role": "assistant", "content": None}}]}]
        sent += [{"model": "toy", "choices": [{"delta": {"content": piece}}]} for piece in pieces]
        if complete:
            sent.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
            sent.append({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})
        lines = [f"data: {json.dumps(each)}\n\n" for each in sent] + (["data: [DONE]\n\n"] if complete else [])
        handler.send(200, (": ping\n\n" + "".join(lines)).encode(), "text/event-stream; charset=utf-8")

    return answer


def refuses_schema(handler: Handler, body: Body) -> None:
    """Take no response_format, as older servers do."""
    if "response_format" in body:
        status(400, "response_format is not supported")(handler, body)
    else:
        handler.answer(handler.endpoint.brain(body))
