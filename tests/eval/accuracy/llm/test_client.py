"""One question to an endpoint, with each fault that one may have; no pause is waited for."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from support import chat_endpoint as chat
from support.chat_endpoint import ChatEndpoint, Fault

from ovavel.eval.accuracy.llm.client import ATTEMPTS, Client, Endpoint, NoAnswerError, endpoint_url, read_key
from ovavel.eval.accuracy.llm.reply import Reply
from ovavel.runtime.errors import EndpointError, InputError, MissingExtraError, OvavelError, UsageError
from ovavel.runtime.reporting import redaction

CONTENT = [{"type": "text", "text": "hello"}]
SCHEMA = {"type": "object"}
KEY = 'sk-very"secret/1234567'


class Asked:
    """Asks the same question again and again, and notes the pauses."""

    def __init__(self, server: ChatEndpoint, *, key: str | None = None, timeout_s: float = 30, times: int = 1) -> None:
        self.pauses: list[float] = []
        self.replies: list[Reply] = []
        self.error: OvavelError | None = None
        self.endpoint = Endpoint(url=endpoint_url(server.url), model="toy", key=key, timeout_s=timeout_s)
        asyncio.run(self._ask(times))

    async def _ask(self, times: int) -> None:
        async def pause(pause_s: float) -> None:
            self.pauses.append(pause_s)

        async with Client(self.endpoint, pause=pause, jitter=lambda: 1.0) as client:
            try:
                for _ in range(times):
                    self.replies.append(await client.ask(CONTENT, SCHEMA))
            except (EndpointError, NoAnswerError) as error:
                self.error = error
            self.failures, self.no_schema = dict(client.failures), client.no_schema


def hello(body: chat.Body) -> str:
    return "hello yourself"


def test_a_question_and_its_answer() -> None:
    with ChatEndpoint(hello) as server:
        asked = Asked(server, key=KEY)
    (reply,) = asked.replies
    assert (reply.text, reply.status, reply.model, reply.finish) == ("hello yourself", 200, "toy", "stop")
    assert (reply.prompt_tokens, reply.completion_tokens) == (1000, 50)
    assert reply.seconds > 0
    assert server.paths == ["/v1/chat/completions"]
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    (body,) = server.bodies
    assert (body["model"], body["temperature"], body["stream"]) == ("toy", 0, False)
    assert body["response_format"]["json_schema"]["schema"] == SCHEMA
    assert not asked.pauses


PASSING: dict[str, tuple[Fault, str]] = {
    "500": (chat.status(500), "HTTP 500"),
    "503": (chat.status(503), "HTTP 503"),
    "truncated JSON": (chat.raw(b'{"choices": [{"mess'), "broken JSON"),
    "cut in the middle": (chat.cut, "connection lost or refused"),
    "reset": (chat.reset, "connection lost or refused"),
    "huge": (chat.huge, "answer too large"),
    "a page": (chat.raw(b"<html>welcome</html>", "text/html"), "not JSON"),
    "a list": (chat.raw(b"[]"), "not an answer"),
    "deep": (chat.raw(b"[" * 100_000), "broken JSON"),
    "no choices": (chat.says("x", choices=[]), "no choices"),
    "choices of another kind": (chat.says("x", choices=[3]), "no choices"),
    "no message": (chat.says("x", choices=[{"finish_reason": "stop"}]), "no message"),
    "an error with 200": (chat.raw(b'{"error": {"message": "overloaded"}}'), "an error in place of an answer"),
    "a stream that ends early": (chat.events(complete=False), "broken stream"),
}


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_tried_again_and_counted(fault: str) -> None:
    wrong, cause = PASSING[fault]
    with ChatEndpoint(hello, [wrong, wrong]) as server:
        asked = Asked(server)
    assert [reply.text for reply in asked.replies] == ["hello yourself"]
    assert asked.failures == {cause: 2}
    assert asked.pauses == [1.0, 2.0]
    assert len(server.bodies) == 3


@pytest.mark.parametrize("fault", [chat.hang_in_body, chat.trickle])
def test_an_answer_that_never_ends_is_given_up(fault: Fault) -> None:
    with ChatEndpoint(hello, [fault]) as server:
        asked = Asked(server, timeout_s=3)
    assert asked.replies[0].text == "hello yourself"
    assert asked.failures["time-out"] >= 1


def test_a_server_that_never_answers_is_given_up() -> None:
    with ChatEndpoint(hello, always=chat.status(502, "gone")) as server:
        asked = Asked(server)
    assert isinstance(asked.error, NoAnswerError)
    assert "HTTP 502: gone" in str(asked.error)
    assert len(server.bodies) == ATTEMPTS
    assert asked.pauses == [1.0, 2.0, 4.0, 8.0, 16.0]


def test_retry_after_is_kept_and_does_not_count_as_an_attempt() -> None:
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    busy = [chat.status(429, Retry_After="7")] * ATTEMPTS
    with ChatEndpoint(
        hello, [*busy, chat.status(503, Retry_After=when), chat.status(429, Retry_After="soon")]
    ) as server:
        asked = Asked(server)
    assert asked.replies[0].text == "hello yourself"
    assert asked.pauses[:ATTEMPTS] == [7.0] * ATTEMPTS
    assert 0 < asked.pauses[ATTEMPTS] <= 100
    assert asked.pauses[-1] == 1.0
    assert asked.failures == {"HTTP 429": ATTEMPTS + 1, "HTTP 503": 1}


@pytest.mark.parametrize("busy", [chat.status(429, Retry_After="3600"), chat.status(429, "insufficient_quota")])
def test_a_long_wait_or_an_empty_account_ends_the_run(busy: Fault) -> None:
    with ChatEndpoint(hello, [busy]) as server:
        asked = Asked(server)
    assert isinstance(asked.error, EndpointError)
    assert not asked.pauses


def test_a_server_that_stays_busy_is_given_up() -> None:
    with ChatEndpoint(hello, always=chat.status(429, Retry_After="100")) as server:
        asked = Asked(server)
    assert isinstance(asked.error, NoAnswerError)
    assert sum(asked.pauses) <= 600


FINAL: dict[str, tuple[Fault, str]] = {
    "401": (chat.status(401, f"wrong key {KEY}"), "--key-file"),
    "403": (chat.status(403), "may do"),
    "404": (chat.status(404, "no such model"), "no such model"),
    "405": (chat.status(405), "/v1"),
    "redirect": (
        chat.status(307, Location="https://user:pass@elsewhere.example/v1?k=s"),
        "redirects to https://elsewhere",
    ),
}


@pytest.mark.parametrize("fault", FINAL)
def test_what_does_not_pass_ends_the_run(fault: str, tmp_path: Path) -> None:
    wrong, said = FINAL[fault]
    (tmp_path / "key").write_text(f"{KEY}\n")
    with ChatEndpoint(hello, [wrong]) as server:
        asked = Asked(server, key=read_key(tmp_path / "key"))
    assert isinstance(asked.error, EndpointError)
    assert said in str(asked.error)
    assert KEY not in str(asked.error)
    assert "pass" not in str(asked.error).replace("passed", "")
    assert len(server.bodies) == 1


@pytest.mark.parametrize("code", [400, 413, 422])
def test_a_refusal_is_an_answer(code: int) -> None:
    with ChatEndpoint(hello, [chat.status(code, "too long")] * 2) as server:
        asked = Asked(server, times=2)
    assert [(reply.status, reply.text) for reply in asked.replies] == [(code, "too long"), (200, "hello yourself")]
    assert asked.no_schema is None


def test_a_server_without_json_schema_is_asked_without_it_from_then_on() -> None:
    with ChatEndpoint(hello, always=chat.refuses_schema) as server:
        asked = Asked(server, times=3)
    assert [reply.with_schema for reply in asked.replies] == [False] * 3
    assert ["response_format" in body for body in server.bodies] == [True, False, False, False]
    assert asked.no_schema == "HTTP 400: response_format is not supported"
    assert asked.failures == {"JSON schema refused: HTTP 400": 1}


def test_a_stream_that_nobody_asked_for_is_put_together() -> None:
    with ChatEndpoint(hello, [chat.events()]) as server:
        (reply,) = Asked(server).replies
    assert (reply.text, reply.finish, reply.prompt_tokens, reply.streamed) == ("hello yourself", "stop", 7, True)


@pytest.mark.parametrize(
    ("content", "text"), [(None, ""), ([{"type": "text", "text": "a"}, {"text": "b"}, 3], "ab"), (3, "")]
)
def test_content_in_other_forms(content: object, text: str) -> None:
    with ChatEndpoint(hello, [chat.says(content, usage={"prompt_tokens": "many", "completion_tokens": -1})]) as server:
        (reply,) = Asked(server).replies
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens) == (text, None, None)


def test_a_key_that_a_server_repeats_is_not_in_the_answer(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    with ChatEndpoint(lambda body: f"you sent {KEY}", [chat.says("x", model=KEY)]) as server:
        asked = Asked(server, key=read_key(tmp_path / "key"), times=2)
    assert [reply.model for reply in asked.replies] == ["***", "toy"]
    assert asked.replies[1].text == "you sent ***"
    assert KEY not in repr(asked.endpoint)


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = ChatEndpoint(hello)
        server.__exit__()
        server.url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        asked = Asked(server)
    assert isinstance(asked.error, NoAnswerError)
    assert asked.failures == {"connection lost or refused": ATTEMPTS}


def test_a_certificate_that_nobody_signed_is_refused_at_once(tmp_path: Path) -> None:
    made = "req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -days 2 -keyout key.pem -out cert.pem"
    try:
        subprocess.run(["openssl", *made.split()], cwd=tmp_path, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"openssl makes no certificate here: {error}")
    with ChatEndpoint(hello) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
        server.server.socket = context.wrap_socket(server.server.socket, server_side=True)
        server.url = f"https://127.0.0.1:{server.port}/v1"
        asked = Asked(server)
    assert isinstance(asked.error, EndpointError)
    assert "certificate" in str(asked.error)
    assert not server.bodies


def test_many_questions_at_once() -> None:
    together = threading.Barrier(5, timeout=60)

    def brain(body: chat.Body) -> str:
        together.wait()
        return "x"

    async def ask(url: str) -> list[Reply]:
        async with Client(Endpoint(url=endpoint_url(url), model="toy")) as client:
            return list(await asyncio.gather(*(client.ask(CONTENT, SCHEMA) for _ in range(5))))

    with ChatEndpoint(brain) as server:
        assert len(asyncio.run(ask(server.url))) == 5


@pytest.mark.parametrize(
    ("given", "full"),
    [
        ("http://host:8000/v1", "http://host:8000/v1/chat/completions"),
        ("http://host/v1/", "http://host/v1/chat/completions"),
        ("https://host/v1/chat/completions", "https://host/v1/chat/completions"),
        ("https://host/a?api-version=2#x", "https://host/a/chat/completions?api-version=2"),
        ("HTTPS://[::1]:8000", "https://[::1]:8000/chat/completions"),
    ],
)
def test_addresses(given: str, full: str) -> None:
    assert endpoint_url(given) == full


@pytest.mark.parametrize(
    "wrong", ["localhost:8000", "ftp://host/v1", "http:///v1", "http://h:99999999/v1", "rtsp://h/x", "http://a b/"]
)
def test_what_is_no_address(wrong: str) -> None:
    with pytest.raises(UsageError):
        endpoint_url(wrong)


def test_an_address_from_a_file_or_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "url").write_text("https://host/v1?token=abcdefgh\n")
    monkeypatch.setenv("WHERE_IT_IS", "https://me:password@host/v1")
    for given, secret in ((f"@{tmp_path / 'url'}", "abcdefgh"), ("env:WHERE_IT_IS", "password")):
        endpoint = Endpoint(url=endpoint_url(given), model="toy")
        assert secret not in endpoint.server
        assert secret not in redaction.redacted(f"cannot open {endpoint.url}: {secret}")
    with pytest.raises(UsageError, match="login"):
        Client(Endpoint(url=endpoint_url("env:WHERE_IT_IS"), model="toy", key="k"))


def test_keys(tmp_path: Path) -> None:
    file = tmp_path / "key"
    assert read_key(None, {}) is None
    assert read_key(None, {"OVAVEL_LLM_KEY": " abc-1 \n"}) == "abc-1"
    file.write_text("abc-2\nmore\n")
    assert read_key(file, {"OVAVEL_LLM_KEY": "abc-1"}) == "abc-2"
    for wrong in (b"", b"\n", b"two words", b"tab\there", "schlüssel".encode(), b"\xff\xfe", b"\0key"):
        file.write_bytes(wrong)
        with pytest.raises(InputError) as found:
            read_key(file)
        assert "words" not in str(found.value)
        assert "here" not in str(found.value).replace("there", "")
    with pytest.raises(InputError, match="No such file"):
        read_key(tmp_path / "gone")
    with pytest.raises(InputError, match="folder"):
        read_key(tmp_path)


def test_without_the_extra_its_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "httpx2", None)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[llm\]"):
        Client(Endpoint(url="http://host/v1", model="toy"))


@pytest.mark.parametrize("asks", [json.dumps, repr])
def test_a_hidden_key_is_found_in_other_spellings(asks: Callable[[str], str]) -> None:
    redaction.hide(KEY)
    assert "secret" not in redaction.redacted(f"it was {asks(KEY)}, no")
