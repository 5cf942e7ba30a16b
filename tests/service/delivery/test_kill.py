"""kill -9 between sending and marking, and at every other failpoint on the way: nothing final is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import msgspec
import pytest
from support.webhook_receiver import WebhookReceiver

from ovavel.service.config.sinks import Webhook
from ovavel.service.failpoints import VARIABLE
from ovavel.service.store import outbox
from ovavel.service.store.database import Database, rows

ROOT = Path(__file__).parents[3]
SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

SERVICE = """
import sys, time
from pathlib import Path
import msgspec
sys.path.insert(0, "tests")
from support.service import camera_facts, news, run_facts, site
from ovavel.service.config.site import Camera
from ovavel.service.config.sinks import Webhook
from ovavel.service.delivery.deliveries import Deliveries
from ovavel.service.store import cameras, events
from ovavel.service.store.care import recovery
from ovavel.service.store.database import Database
folder, run = Path(sys.argv[1]), sys.argv[2]
sink = msgspec.json.decode(sys.argv[3], type=Webhook)
now_us = time.time_ns() // 1000
with Database.open(folder, ballast_bytes=0) as store:
    with store.write() as transaction:
        recovery.recover(transaction, now_us=now_us, sinks=(sink,))
        cameras.add_camera(transaction, camera_facts("gate"), now_us=now_us)
        cameras.open_run(transaction, run_facts(run, "gate", started_us=now_us))
    deliveries = Deliveries(site(folder, Camera(id="gate", source="x"), sink=(sink,)), store, labels=(),
                            cameras=lambda: (), enable=lambda *_: None)
    deliveries.start()
    for number in range(1, 9):
        for kind in ("start", "update", "retract" if number == 4 else "end"):
            with store.write() as transaction:
                events.record(transaction, news(kind, number, run=run, start_us=now_us, end_us=now_us + number),
                              event_id=f"{run}-{number}", now_us=time.time_ns() // 1000, sinks=(sink,))
        deliveries.wake()
    while any(each.pending for each in deliveries.states):
        time.sleep(0.02)
    deliveries.stop(30)
"""


def serve(folder: Path, run: str, sink: Webhook, failpoint: str = "") -> int:
    environment = {**os.environ, VARIABLE: failpoint}
    command = [sys.executable, "-c", SERVICE, str(folder), run, msgspec.json.encode(sink).decode()]
    return subprocess.run(command, env=environment, cwd=ROOT, timeout=100).returncode


@pytest.mark.parametrize(
    ("failpoint", "when"),
    [
        ("delivery.sent", "final"),
        ("delivery.sent:3", "early"),
        ("delivery.marked:2", "early"),
        ("store.before-commit:9", "early"),
        ("store.after-commit:12", "final"),
    ],
)
def test_kill_9_loses_no_final_event_and_every_receiver_sees_the_last_revision(
    tmp_path: Path, failpoint: str, when: str
) -> None:
    with WebhookReceiver() as receiver:
        sink = Webhook(id="hook", address=receiver.url, secret=SECRET, when=when, system=False)  # type: ignore[arg-type]
        assert serve(tmp_path, "one", sink, failpoint) == -signal.SIGKILL
        assert serve(tmp_path, "two", sink) == 0
        got = defaultdict(list)
        for each in receiver.received:
            data = msgspec.json.decode(each.body)["data"]
            got[data["id"]].append((data["revision"], data["kind"]))
    with Database.open(tmp_path, ballast_bytes=0) as store:
        assert outbox.backlog(store.read, "hook").pending == 0
        last = rows(store.read, "SELECT event_id, max(revision), kind FROM event_log GROUP BY event_id")
        assert len(last) >= 8
        for event, revision, kind in last:
            if kind == "retract" and when == "final":
                assert event not in got
                continue
            assert kind in ("end", "retract"), "recovery ends what was open"
            assert got[event][-1] == (revision, kind)
            assert [each for each, _ in got[event]] == sorted(each for each, _ in got[event]), "in order"
