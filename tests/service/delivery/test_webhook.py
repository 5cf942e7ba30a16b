"""Webhooks against a real receiver with each of its faults, and the reference implementation of the standard."""

from __future__ import annotations

import base64
import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from support.deliveries import SECOND_US, Desk
from support.service import news, site, until
from support.webhook_receiver import WebhookReceiver

from ovavel.runtime.errors import InputError, UsageError
from ovavel.runtime.reporting.redaction import redacted
from ovavel.service.config.sinks import Webhook
from ovavel.service.config.site import Camera
from ovavel.service.delivery.deliveries import Deliveries
from ovavel.service.delivery.webhook import WebhookSender, signature
from ovavel.service.store import events
from ovavel.service.store.database import Database, rows

DeskOf = Callable[..., Desk]

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as receiver:
        yield receiver


@pytest.fixture
def desk_of(store: Database) -> Iterator[DeskOf]:
    """Makes a desk whose sender posts to an address; they are closed in the end."""
    with ExitStack() as opened:

        def make(url: str, **changes: Any) -> Desk:
            sink = Webhook(id="hook", **{"address": url, "secret": SECRET, "when": "early", "timeout_s": 60, **changes})
            desk = Desk(store, sink)
            desk.sender = opened.enter_context(closing(WebhookSender(sink)))  # type: ignore[assignment]
            desk.worker = desk.new_worker()
            return desk

        yield make


def deliver(desk: Desk, rounds: int = 1) -> str:
    """Deliver, and return why it failed."""
    for _ in range(rounds):
        desk.worker.round()
    return desk.worker.trouble


def states(store: Database) -> list[Any]:
    return [state for (state,) in rows(store.read, "SELECT state FROM outbox ORDER BY id")]


def test_the_reference_implementation_verifies_each_message(
    store: Database, desk_of: DeskOf, receiver: WebhookReceiver
) -> None:
    standard = pytest.importorskip("standardwebhooks", reason="the oracle of Standard Webhooks")
    desk = desk_of(receiver.url)
    desk.news("start", label="cap d'Agde – bruit “sourd”")
    deliver(desk)
    desk.news("end", label="cap d'Agde – bruit “sourd”")
    deliver(desk)
    for got, kind in zip(receiver.received, ("start", "end"), strict=True):
        data = standard.Webhook(SECRET).verify(got.body, got.headers)
        assert data["type"] == f"event.{kind}"
        assert data["timestamp"] == "2026-11-28T12:00:00.000Z"
        assert data["data"]["label"] == "cap d'Agde – bruit “sourd”"
        with pytest.raises(standard.WebhookVerificationError):
            standard.Webhook(SECRET).verify(got.body + b" ", got.headers)
    assert [each.headers["webhook-id"] for each in receiver.received] == ["e1.1", "e1.2"]
    assert states(store) == ["delivered"] * 2


def test_the_signature_is_that_of_the_standard_s_own_example() -> None:
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    assert signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == (
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
def test_a_busy_receiver_is_asked_again(
    store: Database, desk_of: DeskOf, receiver: WebhookReceiver, status: int
) -> None:
    receiver.answers.append(status)
    desk = desk_of(receiver.url)
    desk.news("start")
    assert str(status) in deliver(desk)
    assert states(store) == ["pending"]
    assert deliver(desk) == ""
    assert states(store) == ["delivered"]
    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"], "so that a receiver can drop what it has"
    assert first.body == second.body


@pytest.mark.parametrize("how", ["seconds", "date"])
def test_retry_after_is_honoured(store: Database, desk_of: DeskOf, receiver: WebhookReceiver, how: str) -> None:
    until = format_datetime(datetime.now(UTC) + timedelta(seconds=1200), usegmt=True)
    receiver.answers.append((429, {"Retry-After": "1200" if how == "seconds" else until}))
    desk = desk_of(receiver.url)
    desk.news("start")
    deliver(desk, rounds=5)
    assert len(receiver.received) == 1
    ((next_us,),) = rows(store.read, "SELECT next_us FROM outbox")
    assert 600 < (next_us - desk.now_us) / SECOND_US <= 1200


@pytest.mark.parametrize("nonsense", ["", "soon", "-5", "1e9", "٣", "Wed, 99 Feb 2026 00:00:00 GMT"])
def test_a_retry_after_without_sense_counts_as_none(
    store: Database, desk_of: DeskOf, receiver: WebhookReceiver, nonsense: str
) -> None:
    receiver.answers.append((503, {"Retry-After": nonsense.encode().decode("latin-1")}))
    desk = desk_of(receiver.url)
    desk.news("start")
    deliver(desk, rounds=2)
    assert states(store) == ["delivered"]


def test_gone_disables_it(store: Database, desk_of: DeskOf, receiver: WebhookReceiver) -> None:
    receiver.forever = 410
    desk = desk_of(receiver.url)
    desk.news("start")
    assert "410" in deliver(desk)
    desk.news("end")
    deliver(desk, rounds=3)
    assert len(receiver.received) == 1
    assert desk.worker.disabled
    assert states(store) == ["failed"] * 2


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(store: Database, desk_of: DeskOf, receiver: WebhookReceiver, status: int) -> None:
    receiver.answers.append((status, {"Location": f"http://127.0.0.1:{receiver.port}/elsewhere"}))
    desk = desk_of(receiver.url)
    desk.news("start")
    assert "redirects are not followed" in deliver(desk)
    assert {each.path for each in receiver.received} == {"/hook"}
    assert states(store) == ["pending"]


def test_a_silent_receiver_is_given_up_after_its_time(
    store: Database, desk_of: DeskOf, receiver: WebhookReceiver
) -> None:
    receiver.answers.append("silence")
    desk = desk_of(receiver.url, timeout_s=0.2)
    desk.news("start")
    assert deliver(desk) == "no answer within 0.2 s"
    assert states(store) == ["pending"]


def test_a_receiver_that_hangs_in_the_body_has_said_all_that_counts(
    store: Database, desk_of: DeskOf, receiver: WebhookReceiver
) -> None:
    receiver.answers.append("hang")
    desk = desk_of(receiver.url)
    desk.news("start")
    assert deliver(desk) == ""
    assert states(store) == ["delivered"]


def test_a_receiver_that_hangs_up_is_asked_again(store: Database, desk_of: DeskOf, receiver: WebhookReceiver) -> None:
    receiver.answers.append("drop")
    desk = desk_of(receiver.url)
    desk.news("start")
    assert deliver(desk)
    assert deliver(desk) == ""
    assert states(store) == ["delivered"]


def test_a_receiver_that_is_not_there_loses_nothing(desk_of: DeskOf, receiver: WebhookReceiver) -> None:
    with WebhookReceiver() as gone:
        port = gone.port
    desk = desk_of(f"http://127.0.0.1:{port}/hook")
    desk.news("start")
    assert deliver(desk)
    desk.news("end")
    assert deliver(desk)
    with WebhookReceiver(port=port) as back:
        deliver(desk, rounds=3)
        assert [each.headers["webhook-id"] for each in back.received] == ["e1.1", "e1.2"]


def test_tls_is_verified(store: Database, desk_of: DeskOf, tmp_path: Path) -> None:
    trustme = pytest.importorskip("trustme", reason="makes certificates")
    authority, other = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(served)
    untrusted = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other.issue_cert("localhost").configure_cert(untrusted)
    wrong_name = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("elsewhere.example").configure_cert(wrong_name)
    for context in (untrusted, wrong_name):
        with WebhookReceiver(context) as receiver:
            desk = desk_of(receiver.url, ca_file=str(tmp_path / "ca.pem"))
            desk.news("start", len(states(store)) + 1)
            assert "certificate verify failed" in deliver(desk)
            assert receiver.received == []
    with WebhookReceiver(served) as receiver:
        desk = desk_of(receiver.url, ca_file=str(tmp_path / "ca.pem"))
        deliver(desk, rounds=3)
        assert states(store) == ["delivered"] * 2


def test_the_end_of_a_service_waits_for_no_receiver_that_is_silent(store: Database, receiver: WebhookReceiver) -> None:
    receiver.forever = "silence"
    sinks = tuple(
        Webhook(id=f"hook{number}", address=receiver.url, secret=SECRET, when="early", timeout_s=60)
        for number in range(4)
    )
    with store.write() as transaction:
        facts = news("start", start_us=0, end_us=1)
        events.record(transaction, facts, event_id="e1", now_us=time.time_ns() // 1000, sinks=sinks)
    house = site(store.folder, Camera(id="gate", source="x"), sink=sinks)
    deliveries = Deliveries(house, store, labels=(), cameras=lambda: (), enable=lambda *_: None)
    deliveries.start()
    until(lambda: len(receiver.received) == 4)
    deliveries.stop(0.0)
    assert not [each for each in threading.enumerate() if each.name.startswith("ovavel-sink-hook")]
    assert states(store) == ["pending"] * 4


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"address": "ftp://receiver/hook"}, "http://"),
        ({"address": "http://"}, "http://"),
        ({"address": "http://receiver:99999/"}, "http://"),
        ({"address": "http://[::1/"}, "http://"),
        ({"secret": "whsec_short"}, "24 to 64 bytes"),
        ({"secret": "whsec_" + "A" * 200}, "24 to 64 bytes"),
        ({"ca_file": "/none.pem"}, "/none.pem"),
        ({"address": "@/none.txt"}, "/none.txt"),
    ],
)
def test_what_makes_no_sense_is_an_error_at_the_start(change: dict[str, str], says: str) -> None:
    values: dict[str, Any] = {"address": "http://receiver/hook", "secret": SECRET, **change}
    with pytest.raises(InputError) as refused:
        WebhookSender(Webhook(id="hook", **values))
    assert says in str(refused.value)
    with pytest.raises(UsageError, match="OVAVEL_NONE"):
        WebhookSender(Webhook(id="hook", address="http://receiver/", secret="env:OVAVEL_NONE"))


def test_secrets_come_from_files_and_variables_and_no_message_shows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "address").write_text("http://user:opensesame@receiver/hook?token=alsohidden\n")
    monkeypatch.setenv("OVAVEL_SECRET", SECRET)
    WebhookSender(Webhook(id="hook", address=f"@{tmp_path / 'address'}", secret="env:OVAVEL_SECRET")).close()
    shown = redacted(f"it failed: {SECRET} at http://user:opensesame@receiver/hook?token=alsohidden")
    assert not any(secret in shown for secret in (SECRET, "opensesame", "alsohidden"))


def test_text_in_a_message_is_json_and_not_a_header(desk_of: DeskOf, receiver: WebhookReceiver) -> None:
    desk = desk_of(receiver.url)
    label = "a\r\nX-Evil: 1\0\u202e</script>" + "x" * 255
    desk.news("start", label=label)
    deliver(desk)
    (got,) = receiver.received
    assert "x-evil" not in got.headers
    assert json.loads(got.body)["data"]["label"] == label


def test_the_receiver_of_the_documentation_verifies_what_is_sent(desk_of: DeskOf, receiver: WebhookReceiver) -> None:
    page = (Path(__file__).parents[3] / "docs" / "service" / "deliveries.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    desk = desk_of(receiver.url)
    desk.news("start")
    deliver(desk)
    (got,) = receiver.received
    assert names["verified"](SECRET, got.headers, got.body)
    assert not names["verified"](SECRET, got.headers, got.body + b" ")
    assert not names["verified"](SECRET, {**got.headers, "webhook-timestamp": "1614265330"}, got.body)
