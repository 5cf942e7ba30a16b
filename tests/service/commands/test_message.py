"""`ovavel serve --test-message`: says whether a sink can be reached, without a store or a bundle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.mosquitto import Broker, Listener
from support.webhook_receiver import WebhookReceiver

from ovavel.runtime.cli import main

SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


def site_file(folder: Path, *lines: str) -> str:
    path = folder / "site.toml"
    head = (
        'bundle = "none"',
        'data = "none"',
        "[[camera]]",
        'id = "gate"',
        'source = "none.mp4"',
        "[[sink]]",
        'id = "x"',
    )
    path.write_text("\n".join((*head, *lines)))
    return str(path)


def test_a_file_and_a_sink_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = site_file(tmp_path, 'kind = "jsonl"', 'path = "log.jsonl"')
    assert main(["serve", path, "--test-message", "x"]) == 0
    assert "'x' was delivered" in capsys.readouterr().out
    assert json.loads((tmp_path / "log.jsonl").read_text())["incident"] == "test message"
    assert main(["serve", path, "--test-message", "y"]) == 2
    assert "it has x" in capsys.readouterr().err


def test_a_webhook_that_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with WebhookReceiver() as receiver:
        path = site_file(tmp_path, 'kind = "webhook"', f'address = "{receiver.url}"', f'secret = "{SECRET}"')
        receiver.answers.append(403)
        assert main(["serve", path, "--test-message", "x"]) == 1
        assert "answered 403" in capsys.readouterr().err
        assert main(["serve", path, "--test-message", "x"]) == 0


def test_a_broker_that_is_away_and_one_beside_a_service(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broker = Broker(tmp_path)
    path = site_file(tmp_path, 'kind = "mqtt"', f'address = "mqtt://127.0.0.1:{broker.port}"')
    assert main(["serve", path, "--test-message", "x"]) == 1
    assert "cannot be reached" in capsys.readouterr().err
    with broker, Listener(broker.port) as listener:
        assert main(["serve", path, "--test-message", "x"]) == 0
        listener.until(lambda: listener.got("ovavel/site/incident"))
        assert [topic for topic, _ in listener.messages] == ["ovavel/site/incident"], "and no state of the house"
