"""Messages in plain words through Apprise, to a real receiver of its JSON notifications."""

from __future__ import annotations

import json

import pytest
from support.deliveries import Desk
from support.webhook_receiver import WebhookReceiver

from ovavel.runtime.errors import InputError
from ovavel.service.config.sinks import Apprise
from ovavel.service.store import outbox
from ovavel.service.store.database import Database

pytest.importorskip("apprise", reason="extra apprise")

from ovavel.service.delivery.apprise import AppriseSender


@pytest.fixture(scope="module", autouse=True)
def _its_thread() -> None:
    """With its first message Apprise starts a thread that looks up hosts, and keeps it."""
    from apprise import Apprise

    with WebhookReceiver() as receiver:
        apprise = Apprise()
        assert apprise.add(f"json://localhost:{receiver.port}/hook")
        assert apprise.notify("x")


def test_a_notification_is_a_sentence_and_one_that_fails_is_sent_again(store: Database) -> None:
    with WebhookReceiver() as receiver:
        sink = Apprise(id="phone", address=f"json://localhost:{receiver.port}/hook")
        desk = Desk(store, sink)
        desk.sender = AppriseSender(sink)  # type: ignore[assignment]
        desk.worker = desk.new_worker()
        desk.news("start", label="<b>dog</b> {now}\\n`id`")
        desk.news("end", label="<b>dog</b> {now}\\n`id`")
        receiver.answers.append(500)
        desk.worker.round()
        assert "apprise -vv" in desk.worker.trouble
        assert outbox.backlog(store.read, "phone").pending == 1
        desk.worker.round()
        assert outbox.backlog(store.read, "phone").pending == 0
        bodies = [json.loads(each.body) for each in receiver.received]
    assert [each["message"] for each in bodies] == [
        "Front gate: <b>dog</b> {now}\\n`id` from 2026-11-28 11:59:58 to 12:00:00"
    ] * 2
    assert bodies[0]["title"] == "ovavel"


def test_an_address_that_apprise_does_not_know_is_an_error_that_does_not_show_it() -> None:
    with pytest.raises(InputError, match="sink 'phone'") as refused:
        AppriseSender(Apprise(id="phone", address="nosuch://opensesame"))
    assert "opensesame" not in str(refused.value)
