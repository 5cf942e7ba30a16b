"""Requests to a server of the service, as programs and browsers send them."""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from typing import Any, NamedTuple
from urllib.parse import urlencode


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


def ask(port: int, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
    """Headers with `_` for `-`."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())


def send_json(port: int, path: str, value: Any, method: str = "POST", **headers: str) -> Answer:
    return ask(port, path, method, json.dumps(value).encode(), Content_Type="application/json", **headers)


def log_in(port: int, name: str, password: str, path: str = "/login", **headers: str) -> Answer:
    form = urlencode({"name": name, "password": password, "next": headers.pop("next", "")}).encode()
    return ask(port, path, "POST", form, Content_Type="application/x-www-form-urlencoded", **headers)


def cookie_of(answer: Answer) -> str:
    """The cookie of a log-in, as a browser sends it back."""
    return answer.headers["set-cookie"].partition(";")[0]
