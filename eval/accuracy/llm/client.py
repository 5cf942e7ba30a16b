"""An OpenAI-compatible chat endpoint: one question, one answer, and everything that may go wrong between.

What passes by itself (a busy server, 5xx, a time-out, a lost connection, half an answer) is tried again with longer and
longer pauses. What does not (a wrong key, a redirect) ends the run. What is about this question alone (400, 413, 422)
is an answer too: a refusal.
"""

from __future__ import annotations

import asyncio
import os
import random
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit, urlunsplit

from ovavel.eval.accuracy.llm.reply import BadReplyError, Reply, error_text, read_reply
from ovavel.runtime.errors import EndpointError, InputError, MissingExtraError, OvavelError, UsageError
from ovavel.runtime.reporting.redaction import hide, redacted, remember, without_known_secrets, without_secrets
from ovavel.runtime.reporting.text import one_line
from ovavel.runtime.sources.access import address_of, check_scheme
from ovavel.runtime.system.files import not_regular
from ovavel.runtime.system.untrusted import brief

if TYPE_CHECKING:
    from types import TracebackType

    from httpx2 import AsyncClient, Response

__all__ = ["Client", "Endpoint", "NoAnswerError", "endpoint_url", "read_key"]

KEY_VARIABLE = "OVAVEL_LLM_KEY"
ATTEMPTS = 6
PROBE_ATTEMPTS = 3
LONGEST_WAIT_S = 600.0
"""What a server may ask for with Retry-After, and how long a question waits for a busy one in all."""
LARGEST_REPLY = 8 * 2**20
"""Bytes."""
_CONNECT_S = 15.0
_LONGEST_PAUSE_S = 60.0
_LONGEST_KEY = 8192
_REFUSED = frozenset({400, 413, 422})
"""Statuses that are about what was asked."""
_BUSY = frozenset({408, 409, 425, 429})


class NoAnswerError(OvavelError):
    """A question that got no answer, however often it was asked."""


class _TransientError(Exception):
    """What may pass by itself."""

    def __init__(self, cause: str, message: str, *, wait_s: float | None = None, busy: bool = False) -> None:
        super().__init__(message)
        self.cause = cause
        self.wait_s = wait_s
        self.busy = busy


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Which model is asked, where, and how."""

    url: str
    """See `endpoint_url`. It may hold secrets; `server` does not."""
    model: str
    key: str | None = field(default=None, repr=False)
    timeout_s: float = 120.0
    """For one answer, from its request to its end."""
    max_tokens: int = 1024

    @property
    def server(self) -> str:
        """The address, as it may be shown and stored."""
        return without_secrets(self.url)


def endpoint_url(text: str) -> str:
    """Return the address of the chat completions of the endpoint `text`, such as `http://localhost:8000/v1`.

    Raises:
        UsageError: it is no http or https address. InputError: it is in a file that cannot be read.
    """
    url = address_of(text)
    if "://" not in url or check_scheme(url) not in ("http", "https"):
        raise UsageError(
            f"--llm takes an http or https address such as http://localhost:8000/v1, not {redacted(url, url)}"
        )
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host:
        raise UsageError(f"--llm: {without_secrets(url)} has no valid host; give one such as http://localhost:8000/v1")
    path = parts.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path += "/chat/completions"
    full = urlunsplit(parts._replace(path=path, fragment=""))
    remember(full)
    return full


def read_key(path: Path | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the API key: the first line of the file `path`, or else the variable OVAVEL_LLM_KEY; None without one.

    No message ever shows it from now on.

    Raises:
        InputError: the file cannot be read, or what is there cannot be a key.
    """
    if path is None:
        where, key = f"the variable {KEY_VARIABLE}", environment.get(KEY_VARIABLE, "").strip()
        if not key:
            return None
    else:
        where = str(path)
        try:
            if why := not_regular(path):
                raise InputError(f"--key-file {path} {why}; give a file whose first line is the API key")
            with path.open("rb") as file:
                key = file.read(_LONGEST_KEY).decode().partition("\n")[0].strip()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise InputError(f"the API key in {path} cannot be read: {reason}; check the path") from None
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise InputError(f"{where} holds no API key: it has to be one word of printable ASCII on the first line")
    hide(key)
    return key


class Client:
    """Asks an endpoint. An asynchronous context manager."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Between attempts, wait with `pause`; `jitter` returns numbers in [0, 1) that keep questions apart.

        Raises:
            MissingExtraError: the HTTP client is not installed.
            UsageError: the address holds a login, and there is a key as well.
        """
        try:
            import httpx2
        except ImportError as error:
            raise MissingExtraError("httpx2", "llm", need="--llm") from error
        if endpoint.key and urlsplit(endpoint.url).username:
            raise UsageError(f"{endpoint.server} was given with a login, and there is an API key too; give one of them")
        self.endpoint = endpoint
        self.failures: Counter[str] = Counter()
        """Failed attempts by cause."""
        self.no_schema: str | None = None
        """Why answers are not asked for by a JSON schema; None: they are."""
        self._pause, self._jitter = pause, jitter
        headers = {"Accept": "application/json", "User-Agent": "ovavel"}
        if endpoint.key:
            headers["Authorization"] = f"Bearer {endpoint.key}"
        self._http: AsyncClient = httpx2.AsyncClient(
            headers=headers,
            timeout=httpx2.Timeout(endpoint.timeout_s, connect=min(_CONNECT_S, endpoint.timeout_s), pool=None),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=30),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def ask(self, content: list[dict[str, Any]], schema: dict[str, Any], *, attempts: int = ATTEMPTS) -> Reply:
        """Send one message and return the answer, or the refusal.

        Where the server refuses the JSON schema and answers without it, it is left out from then on; see `no_schema`.

        Raises:
            EndpointError: no question will be answered: a wrong key, model or address.
            NoAnswerError: this one was not, in so many attempts.
        """
        with_schema = self.no_schema is None
        reply = await self._ask(content, schema if with_schema else None, attempts)
        if not with_schema or reply.status == 200:
            return reply
        again = await self._ask(content, None, attempts)
        if again.status != 200:
            return reply
        self.failures[f"JSON schema refused: HTTP {reply.status}"] += 1
        self.no_schema = self.no_schema or f"HTTP {reply.status}: {reply.text}"
        return again

    async def _ask(self, content: list[dict[str, Any]], schema: dict[str, Any] | None, attempts: int) -> Reply:
        body = self._body(content, schema)
        failed, waited_s = 0, 0.0
        while True:
            try:
                return await self._once(body, schema is not None)
            except _TransientError as error:
                failure = error
            self.failures[failure.cause] += 1
            if not failure.busy:  # a server that asks to wait is one that works
                failed += 1
            pause_s = failure.wait_s
            if pause_s is None:
                pause_s = min(_LONGEST_PAUSE_S, 2.0 ** max(failed - 1, 0)) * (0.5 + self._jitter() / 2)
            elif pause_s > LONGEST_WAIT_S:
                raise EndpointError(
                    f"{self.endpoint.server} asks to wait {pause_s:.0f} s ({failure}); run the same command again "
                    "later: it continues"
                )
            if failed >= attempts or waited_s + pause_s > LONGEST_WAIT_S:
                raise NoAnswerError(f"{self.endpoint.server}: {failure}")
            waited_s += pause_s
            await self._pause(pause_s)

    def _body(self, content: list[dict[str, Any]], schema: dict[str, Any] | None) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.endpoint.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": self.endpoint.max_tokens,
            "stream": False,
        }
        if schema is not None:
            asked = {"name": "seconds", "strict": True, "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": asked}
        return body

    async def _once(self, body: dict[str, Any], with_schema: bool) -> Reply:
        import httpx2

        started_s = time.monotonic()
        try:
            async with (
                asyncio.timeout(self.endpoint.timeout_s),
                self._http.stream("POST", self.endpoint.url, json=body) as response,
            ):
                data = await _read(response)
        except TimeoutError:
            raise _TransientError("time-out", f"no answer within {self.endpoint.timeout_s:.0f} s") from None
        except httpx2.TimeoutException:
            raise _TransientError("time-out", "it cannot be reached, or stopped in the middle of an answer") from None
        except (
            httpx2.InvalidURL,
            httpx2.UnsupportedProtocol,
            httpx2.LocalProtocolError,
            httpx2.TooManyRedirects,
        ) as error:
            raise EndpointError(f"{self.endpoint.server} cannot be asked: {self._shown(error)}") from None
        except httpx2.RequestError as error:
            if _untrusted(error):
                raise EndpointError(
                    f"the certificate of {self.endpoint.server} cannot be verified: {self._shown(error)}; check the "
                    "address, or name the file of its authority with the variable SSL_CERT_FILE"
                ) from None
            reason = self._shown(error) or type(error).__name__
            raise _TransientError("connection lost or refused", f"the connection failed: {reason}") from None
        return self._judge(response, data, time.monotonic() - started_s, with_schema)

    def _judge(self, response: Response, data: bytes, seconds: float, with_schema: bool) -> Reply:
        """Return the answer or the refusal in a response, or raise what else it is."""
        status, server = response.status_code, self.endpoint.server
        if status == 200:
            try:
                reply = read_reply(data, response.headers.get("content-type", ""), seconds, with_schema)
                # a server may repeat what it was sent, and answers are stored
                model = without_known_secrets(reply.model) if reply.model else None
                return replace(reply, text=without_known_secrets(reply.text), model=model)
            except BadReplyError as error:
                raise _TransientError(error.cause, self._shown(error)) from None
        said = self._shown(error_text(data))
        message = f"HTTP {status}{f': {said}' if said else ''}"
        if status in _REFUSED:
            return Reply(status=status, text=said, seconds=seconds, with_schema=with_schema)
        if 300 <= status < 400:
            target = without_secrets(response.headers.get("location", "nowhere"))
            raise EndpointError(f"{server} redirects to {self._shown(target)}; give that address if you trust it")
        if status in _BUSY and "insufficient_quota" not in data[:4096].decode("utf-8", "replace"):
            raise _TransientError(f"HTTP {status}", message, wait_s=_retry_after(response.headers), busy=True)
        if status >= 500:
            raise _TransientError(f"HTTP {status}", message, wait_s=_retry_after(response.headers))
        advice = {
            401: f"check the API key (--key-file, or the variable {KEY_VARIABLE})",
            403: "check what the API key may do",
            404: "check the address, which often ends in /v1, and the name of the model",
            405: "check the address, which often ends in /v1",
        }.get(status, "see what its maker says of it")
        raise EndpointError(f"{server} answers {message}; {advice}")

    def _shown(self, text: object) -> str:
        """What a server or a library says, without this endpoint's secrets."""
        return brief(ValueError(redacted(str(text), self.endpoint.url)))


async def _read(response: Response) -> bytes:
    """The body, of no more than `LARGEST_REPLY`."""
    data = bytearray()
    async for piece in response.aiter_bytes():
        data += piece
        if len(data) > LARGEST_REPLY:
            raise _TransientError("answer too large", f"its answer has more than {LARGEST_REPLY} bytes")
    return bytes(data)


def _untrusted(error: BaseException) -> bool:
    """Whether a certificate could not be verified."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        cause = cause.__cause__ or cause.__context__
    return "CERTIFICATE_VERIFY_FAILED" in str(error)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, as Retry-After says; None where it says nothing of use."""
    text = one_line(headers.get("retry-after", ""))[:100]
    if text.replace(".", "", 1).isdecimal():
        return float(text)
    try:
        until = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())
