"""Webhooks as Standard Webhooks has them: signed, retried by the worker, never redirected."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import ssl
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import msgspec

from ovavel.runtime.errors import InputError, MissingExtraError
from ovavel.service.config.sinks import Webhook
from ovavel.service.delivery.message import Message
from ovavel.service.delivery.sender import IN_FLIGHT, Outcome, secret_of

try:
    import httpx2
except ImportError as error:
    raise MissingExtraError("httpx2", "serve", need="Webhooks") from error

__all__ = ["WebhookSender", "signature"]

_BUSY = frozenset({408, 425, 429})
_GONE, _SERVER_ERROR = 410, 500
_SHORTEST, _LONGEST = 24, 64


class WebhookSender:
    """Posts messages to one address, several at a time. No more of an answer is read than its head."""

    def __init__(self, sink: Webhook) -> None:
        """Resolve address and secret.

        Raises:
            InputError: the address is no http or https URL, the secret is none, or certificates cannot be read.
        """
        self._url, self._key = _url(sink), _key(sink)
        self._timeout_s = sink.timeout_s
        self._client = httpx2.AsyncClient(
            verify=_tls(sink),
            timeout=httpx2.Timeout(sink.timeout_s, pool=None),
            limits=httpx2.Limits(max_connections=IN_FLIGHT),
            headers={"User-Agent": "ovavel", "Content-Type": "application/json"},
            follow_redirects=False,
        )
        self._runner = asyncio.Runner()
        self._sending: asyncio.Task[list[Outcome]] | None = None

    def prepare(self) -> bool:
        """Connections are made as needed."""
        return False

    def send(self, messages: Sequence[Message]) -> list[Outcome]:
        """Post each."""
        try:
            return self._runner.run(self._post_all(messages))
        except asyncio.CancelledError:
            return [Outcome(result="unavailable", why="interrupted")] * len(messages)

    def interrupt(self) -> None:
        """Cancel what is on its way."""
        if sending := self._sending:
            self._runner.get_loop().call_soon_threadsafe(sending.cancel)

    def close(self) -> None:
        """Close the connections."""
        self._runner.run(self._client.aclose())
        self._runner.close()

    async def _post_all(self, messages: Sequence[Message]) -> list[Outcome]:
        self._sending = asyncio.current_task()
        try:
            return list(await asyncio.gather(*map(self._post, messages)))
        finally:
            self._sending = None

    async def _post(self, message: Message) -> Outcome:
        body = msgspec.json.encode({"type": message.type, "timestamp": message.created, "data": message.data})
        at_s = int(time.time())
        headers = {
            "webhook-id": message.id,
            "webhook-timestamp": str(at_s),
            "webhook-signature": signature(self._key, message.id, at_s, body),
        }
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.stream("POST", self._url, content=body, headers=headers) as answer,
            ):
                return _outcome(answer)
        except (TimeoutError, httpx2.TimeoutException):
            return Outcome(result="unavailable", why=f"no answer within {self._timeout_s:g} s")
        except (httpx2.HTTPError, OSError) as error:
            return Outcome(result="unavailable", why=str(error) or type(error).__name__)


def signature(key: bytes, id_: str, at_s: int, body: bytes) -> str:
    """The header `webhook-signature`."""
    digest = hmac.digest(key, f"{id_}.{at_s}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"


def _outcome(answer: httpx2.Response) -> Outcome:
    status, why = answer.status_code, f"the receiver answered {answer.status_code} {answer.reason_phrase}"
    if answer.is_success:
        return Outcome(result="delivered")
    if status == _GONE:
        return Outcome(result="gone", why=why)
    if status >= _SERVER_ERROR or status in _BUSY:
        return Outcome(result="unavailable", why=why, wait_s=_retry_after_s(answer.headers.get("retry-after", "")))
    if answer.is_redirect:
        why += "; redirects are not followed"
    return Outcome(result="refused", why=why)


def _retry_after_s(text: str) -> float:
    """Seconds, or until a date; 0 where it makes no sense."""
    if text.strip().isascii() and text.strip().isdecimal():
        return float(text)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _url(sink: Webhook) -> str:
    url = secret_of(sink.address)
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        httpx2.URL(url)
    except (ValueError, httpx2.InvalidURL):
        good = False
    if not good:
        raise InputError(f"the address of sink {sink.id!r} must be http://… or https://… with a host")
    return url


def _key(sink: Webhook) -> bytes:
    try:
        key = base64.b64decode(secret_of(sink.secret).removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not _SHORTEST <= len(key) <= _LONGEST:
        raise InputError(
            f"the secret of sink {sink.id!r} must be whsec_ and base64 of {_SHORTEST} to {_LONGEST} bytes; make one: "
            'echo "whsec_$(openssl rand -base64 32)"'
        )
    return key


def _tls(sink: Webhook) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=sink.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise InputError(f"the certificates {sink.ca_file} of sink {sink.id!r} cannot be read: {error}") from error
