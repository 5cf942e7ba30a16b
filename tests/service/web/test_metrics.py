"""Figures for Prometheus."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.served import served
from support.service import news
from support.web import ask

from ovavel.service.evidence.deletion import delete_events
from ovavel.service.store import events

pytestmark = pytest.mark.timeout(300)


def test_a_count_of_events_does_not_fall_when_old_ones_are_deleted(tmp_path: Path) -> None:
    with served(tmp_path, users=False) as here:

        def counted() -> set[str]:
            lines = ask(here.port, "/metrics")[2].decode().splitlines()
            return {
                each.removeprefix("ovavel_events_total") for each in lines if each.startswith("ovavel_events_total{")
            }

        assert counted() == set(), "what an earlier service counted is not counted again"
        with here.service.store.write() as transaction:
            for number in (3, 4):
                events.record(transaction, news("start", number), event_id=f"e{number}", now_us=0, sinks=())
            events.record(transaction, news("end", 3), event_id="", now_us=0, sinks=())
        wanted = {'{label="dog barking",state="open"} 2.0', '{label="dog barking",state="ended"} 1.0'}
        assert counted() == wanted
        with here.service.store.write() as transaction:
            delete_events(transaction, ["e3"])
            events.revise(transaction, "e4", "pin", now_us=0, pinned=True)
        assert counted() == wanted
