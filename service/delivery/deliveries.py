"""All sinks of a site: opened, started, watched and drained."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future

from msgspec import Struct

from ovavel.runtime.errors import InputError, OvavelError
from ovavel.service.config.sinks import Apprise, Jsonl, Mqtt, Sink, Webhook
from ovavel.service.config.site import Site
from ovavel.service.delivery.message import Place
from ovavel.service.delivery.sender import Outcome, Sender
from ovavel.service.delivery.topics import CameraNow, House
from ovavel.service.delivery.worker import Worker
from ovavel.service.store import mutes
from ovavel.service.store.database import Database, rows

__all__ = ["Deliveries", "SinkState", "check_labels", "discard", "open_sender"]

_LEAVE_S = 1.0
"""How long a sender that was interrupted may take to say goodbye."""


class SinkState(Struct, frozen=True, kw_only=True):
    """A sink as the page shows it."""

    id: str
    kind: str
    state: str
    """working, failing or disabled"""
    why: str
    """Why it fails; empty where it does not."""
    pending: int
    oldest_us: int | None
    """When the oldest piece of news that waits was written."""
    results: dict[str, int]
    """delivered, failed, and "suppressed: CAUSE": how many since the service started."""


class Deliveries:
    """The workers of a site."""

    def __init__(
        self,
        site: Site,
        store: Database,
        *,
        labels: Sequence[str],
        cameras: Callable[[], Sequence[CameraNow]],
        enable: Callable[[str, bool], None],
        gone: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        """Resolve addresses and secrets; nothing is sent yet.

        Args:
            site: with its sinks.
            store: holds the outbox.
            labels: names that events can have.
            cameras: how every camera is now.
            enable: switches a camera on or off.
            gone: called with a sink and the reason when its receiver says that it is gone for good.

        Raises:
            OvavelError: an address, a secret or a label makes no sense, or a library is not installed.
        """
        self._store, self._gone = store, gone
        self._place = Place(site, tuple(labels))
        self._house = House(cameras=cameras, happening=self._happening, enable=enable, snooze=self.snooze)
        check_labels(site.sink, labels)
        self._workers = self.prepared(site.sink)

    def start(self) -> None:
        """Deliver from now on."""
        for worker in self._workers.values():
            worker.start()

    def prepared(self, sinks: Sequence[Sink]) -> dict[str, Worker]:
        """Workers for sinks, which do nothing yet.

        Raises:
            OvavelError: an address or a secret makes no sense, or a library is not installed.
        """
        made: dict[str, Worker] = {}
        try:
            for sink in sinks:
                sender = open_sender(sink, self._place, self._house)
                made[sink.id] = Worker(sink, sender, self._store, self._place, gone=self._gone)
        except OvavelError:
            discard(made)
            raise
        return made

    def change(
        self,
        site: Site,
        labels: Sequence[str],
        closed: Sequence[str],
        opened: Mapping[str, Worker],
        within_s: float,
    ) -> None:
        """Deliver as `site` says, of events with these `labels`.

        `closed` sinks end, `opened` ones, which are `prepared`, begin, the others continue. A sink that is another one
        than before begins where the one before it ended; both have the same id.
        """
        self._place.site, self._place.labels = site, tuple(labels)
        ending = [self._workers[each] for each in closed]
        _end(ending, within_s)
        there = {**self._workers, **opened}
        self._workers = {each.id: there[each.id] for each in site.sink}
        for worker in opened.values():
            worker.start()
        self.wake()

    def wake(self) -> None:
        """There may be something to send."""
        for worker in self._workers.values():
            worker.wake()

    def stop(self, within_s: float) -> None:
        """Send what is due, for so long; the rest stays in the outbox. May be called twice."""
        _end(self._workers.values(), within_s)

    def send_test(self, sink: str) -> Future[Outcome]:
        """Send a test message to a sink; the future has what became of it.

        Raises:
            LookupError: there is no such sink.
        """
        return self._workers[sink].test()

    def snooze(self, camera: str, hours: float, label: str | None = None) -> None:
        """Report nothing of a camera, or of one of its labels, for so long; 0 ends it.

        Raises:
            OutputError: the store cannot be written.
        """
        now_us = time.time_ns() // 1000
        with self._store.write() as transaction:
            if hours > 0:
                until_us = now_us + round(hours * 3.6e9)
                mutes.snooze(transaction, camera, label=label, until_us=until_us, now_us=now_us)
            else:
                mutes.end_snooze(transaction, camera, label=label, now_us=now_us)

    def _happening(self) -> set[tuple[str, str]]:
        query = "SELECT DISTINCT camera_id, label FROM event WHERE state = 'open'"
        return {(camera, label) for camera, label in rows(self._store.read, query)}

    @property
    def states(self) -> list[SinkState]:
        """How each sink is."""
        return [_state(worker) for worker in self._workers.values()]


def check_labels(sinks: Iterable[Sink], labels: Sequence[str]) -> None:
    """Check that events can have the labels that sinks want to hear of.

    Raises:
        InputError: there is no such label.
    """
    for sink in sinks:
        if unknown := set(sink.labels) - set(labels):
            raise InputError(
                f"sink {sink.id!r}: the bundle's vocabulary has no name {min(unknown)!r}; "
                "'ovavel vocab list' shows those it has"
            )


def discard(workers: Mapping[str, Worker]) -> None:
    """Close workers that were prepared and never started."""
    for worker in workers.values():
        worker.join(0.0)


def open_sender(sink: Sink, place: Place, house: House | None = None) -> Sender:
    """What brings messages to `sink`; without a `house`, beside a service that runs.

    Raises:
        OvavelError: its address or secret makes no sense, or a library is not installed.
    """
    match sink:
        case Jsonl():
            from ovavel.service.delivery.jsonl import JsonlSender

            return JsonlSender(sink)
        case Webhook():
            from ovavel.service.delivery.webhook import WebhookSender

            return WebhookSender(sink)
        case Mqtt():
            from ovavel.service.delivery.mqtt import MqttSender

            return MqttSender(sink, place, house)
        case Apprise():
            from ovavel.service.delivery.apprise import AppriseSender

            return AppriseSender(sink)


def _end(workers: Iterable[Worker], within_s: float) -> None:
    """Let each send what is due, for so long; the rest stays in the outbox."""
    ending = list(workers)
    for worker in ending:
        worker.stop()
    waiting = _wait(ending, within_s)
    for worker in waiting:
        worker.leave()
    _wait(waiting, _LEAVE_S)


def _wait(workers: Iterable[Worker], within_s: float) -> list[Worker]:
    """Wait for all of them together; returns those that have not ended."""
    end_s = time.monotonic() + within_s
    return [worker for worker in workers if not worker.join(max(0.0, end_s - time.monotonic()))]


def _state(worker: Worker) -> SinkState:
    backlog = worker.backlog
    return SinkState(
        id=worker.sink.id,
        kind=type(worker.sink).__name__.lower(),
        state="disabled" if worker.disabled else "failing" if worker.trouble else "working",
        why=worker.trouble,
        pending=backlog.pending,
        oldest_us=backlog.oldest_us,
        results=dict(worker.results),
    )
