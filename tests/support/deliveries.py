"""A sender that keeps what it got, and a worker around it whose clock stands still."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ovavel.service.config.sinks import Jsonl, Sink
from ovavel.service.config.site import Camera
from ovavel.service.delivery.message import Message, Place
from ovavel.service.delivery.sender import Outcome, Unavailable
from ovavel.service.delivery.worker import Worker
from ovavel.service.store import events, incidents
from ovavel.service.store.database import Database
from support.service import news, site

SECOND_US = 1_000_000
NOON_US = 1_795_867_200 * SECOND_US
"""2026-11-28 12:00 UTC."""
DELIVERED = Outcome(result="delivered")


class KeptSender:
    """Takes every message but where `answer` says otherwise."""

    def __init__(self) -> None:
        self.got: list[Message] = []
        self.answer: Callable[[Message], Outcome] = lambda _: DELIVERED
        self.away = ""
        self.batches: list[int] = []

    def prepare(self) -> bool:
        if self.away:
            raise Unavailable(self.away)
        return False

    def send(self, messages: Sequence[Message]) -> list[Outcome]:
        self.batches.append(len(messages))
        outcomes = [self.answer(each) for each in messages]
        self.got += [each for each, outcome in zip(messages, outcomes, strict=True) if outcome == DELIVERED]
        return outcomes

    def interrupt(self) -> None: ...

    def close(self) -> None: ...

    @property
    def ids(self) -> list[str]:
        return [each.id for each in self.got]


class Desk:
    """A store, a sink and its worker, driven by hand."""

    def __init__(self, store: Database, sink: Sink | None = None, *, tz: str = "UTC") -> None:
        self.store, self.now_us = store, NOON_US
        self.sink: Sink = sink or Jsonl(id="log", path="unused", when="early")
        self.sender = KeptSender()
        self.place = Place(site(store.folder, Camera(id="gate", source="x", name="Front gate", tz=tz)))
        self.gone: list[tuple[str, str]] = []
        self.worker = self.new_worker()

    def new_worker(self, **options: Any) -> Worker:
        return Worker(
            self.sink,
            self.sender,
            self.store,
            self.place,
            gone=lambda *what: self.gone.append(what),
            clock=lambda: self.now_us,
            **{"pause": lambda _: 0.0, **options},
        )

    def news(self, kind: str, number: int = 1, *, label: str = "dog barking") -> None:
        facts = {"start_us": self.now_us - 2 * SECOND_US, "end_us": self.now_us}
        with self.store.write() as transaction:
            events.record(
                transaction,
                news(kind, number, label=label, **facts),
                event_id=f"e{number}",
                now_us=self.now_us,
                sinks=(self.sink,),
            )

    def incident(self, name: str, *, over: bool = False, camera: str | None = "gate") -> None:
        act = incidents.end_incident if over else incidents.begin_incident
        with self.store.write() as transaction:
            act(transaction, name, now_us=self.now_us, sinks=(self.sink,), camera=camera)

    def drain(self, worker: Worker | None = None) -> list[str]:
        """Deliver until nothing is due; returns the ids of what arrived."""
        before = len(self.sender.got)
        while (worker or self.worker).round():
            pass
        return self.sender.ids[before:]

    def later(self, seconds: float) -> None:
        self.now_us += round(seconds * SECOND_US)
