"""One sink at work: what is due is judged, sent, and marked, in a thread that nothing else waits for."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import msgspec

from ovavel.runtime.errors import OvavelError
from ovavel.runtime.reporting.redaction import redacted
from ovavel.runtime.reporting.text import one_line
from ovavel.runtime.session_info import new_id
from ovavel.service.config.sinks import Sink
from ovavel.service.delivery.message import Message, Place, message_of, test_message
from ovavel.service.delivery.rules import one_at_a_time, suppression
from ovavel.service.delivery.sender import IN_FLIGHT, Outcome, Sender, Unavailable, pause_s
from ovavel.service.failpoints import reach
from ovavel.service.store import mutes, outbox
from ovavel.service.store.database import Database, Transaction
from ovavel.service.store.outbox import Backlog, Delivery, Earlier

__all__ = ["GIVE_UP_ATTEMPTS", "GIVE_UP_US", "LONGEST_WAIT_S", "Worker"]

GIVE_UP_US = 3 * 86_400_000_000
"""A receiver that answers, and refuses a message for so long, will never take it."""
GIVE_UP_ATTEMPTS = 72
"""Nor before it was tried so often: a wall clock that was set years ahead is no patience."""
LONGEST_WAIT_S = 3600.0
"""A receiver that asks for more (Retry-After) is asked again after this."""
_TICK_S = 1.0
_STEP_US = 500_000

Clock = Callable[[], int]


def _wall_us() -> int:
    return time.time_ns() // 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mark:
    """What is to be written of one delivery."""

    delivery: Delivery
    state: str
    why: str
    next_us: int = 0

    def write(self, transaction: Transaction, now_us: int) -> None:
        match self.state:
            case "delivered":
                outbox.delivered(transaction, self.delivery, now_us=now_us)
            case "suppressed":
                outbox.suppressed(transaction, self.delivery, now_us=now_us, cause=self.why)
            case "failed":
                outbox.failed(transaction, self.delivery, now_us=now_us, error=self.why)
            case _:
                outbox.retry(transaction, self.delivery, next_us=self.next_us, error=self.why)


class _Read:
    """What the rules ask, from the store."""

    def __init__(self, connection: Transaction, sink: str) -> None:
        self._connection, self._sink = connection, sink

    def earlier(self, delivery: Delivery) -> Sequence[Earlier]:
        return outbox.earlier(self._connection, delivery)

    def last_delivered_us(self, key: str) -> tuple[int, int] | None:
        return outbox.last_delivered_us(self._connection, self._sink, key)

    def is_snoozed(self, camera: str, label: str, at_us: int) -> bool:
        return mutes.is_snoozed(self._connection, camera, label, at_us=at_us)


class Worker:
    """Delivers to one sink, at least once, an event's revisions in their order."""

    def __init__(
        self,
        sink: Sink,
        sender: Sender,
        store: Database,
        place: Place,
        *,
        gone: Callable[[str, str], None] = lambda *_: None,
        clock: Clock = _wall_us,
        pause: Callable[[int], float] = pause_s,
    ) -> None:
        """Deliver once started.

        Args:
            sink: what its rules are.
            sender: brings the messages there.
            store: holds the outbox.
            place: names and zones of the cameras.
            gone: called with the sink's name and the reason when the receiver says that it is gone for good.
            clock: microseconds of UTC.
            pause: seconds to wait after so many failures in a row.
        """
        self.sink, self.results = sink, Counter[str]()
        """`results`: how many were delivered, failed, and suppressed by which cause, since the service started."""
        self.trouble = ""
        """Why the last attempt failed; empty where it did not."""
        self.disabled = False
        """Whether the receiver said that it is gone: nothing is sent until the next start."""
        self._sender, self._store, self._place, self._gone = sender, store, place, gone
        self._clock, self._pause = clock, pause
        self._failures, self._resume_s = 0, 0.0
        self._unwritten: list[_Mark] = []
        self._tests: queue.SimpleQueue[Future[Outcome]] = queue.SimpleQueue()
        self._woken, self._stopping, self._left = threading.Event(), threading.Event(), threading.Event()
        self._offset_us: int | None = None
        self._thread = threading.Thread(target=self._run, name=f"ovavel-sink-{sink.id}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """There may be something to send."""
        self._woken.set()

    def test(self) -> Future[Outcome]:
        """Send a test message as soon as possible."""
        asked: Future[Outcome] = Future()
        self._tests.put(asked)
        self.wake()
        return asked

    def stop(self) -> None:
        """Send what is due, then end. What cannot be sent now stays in the outbox."""
        self._stopping.set()
        self.wake()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end after `stop`; whether it came."""
        if self._thread.ident is None:
            self._sender.close()
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def leave(self) -> None:
        """Wait for no receiver any more; nothing is written from then on."""
        self._left.set()
        self._sender.interrupt()

    @property
    def backlog(self) -> Backlog:
        """What waits."""
        return outbox.backlog(self._store.read, self.sink.id)

    def _run(self) -> None:
        while not self._left.is_set():
            more = False
            try:
                more = self.round()
            except OvavelError as error:  # the store cannot be read or written now
                self.trouble = one_line(redacted(str(error)))
            except Exception as error:  # noqa: BLE001 - a sink that fails in an unforeseen way stops nothing else
                self._failed(f"{type(error).__name__}: {error}")
            if self._stopping.is_set() and not more:
                break
            if not more:
                self._woken.wait(_TICK_S)
                self._woken.clear()
        with contextlib.suppress(Exception):
            self._sender.close()

    def round(self) -> bool:
        """Deliver what is due, `IN_FLIGHT` at most; whether more may be due at once."""
        self._write()
        now_s = time.monotonic()
        self._watch_clock(now_s)
        tests = self._asked()
        if self.disabled:
            _answer(tests, Outcome(result="gone", why=self.trouble))
            return self._give_up()
        if now_s < self._resume_s and not tests:
            return False
        try:
            if self._sender.prepare():
                self._failures, self.trouble = 0, ""
        except Unavailable as error:
            self._failed(str(error))
            _answer(tests, Outcome(result="unavailable", why=self.trouble))
            return False
        self._send_tests(tests)
        return self._deliver() if now_s >= self._resume_s else False

    def _deliver(self) -> bool:
        now_us, read = self._clock(), self._store.read
        limit = 1 if self._failures else IN_FLIGHT  # one is enough to see whether the receiver is back
        found = outbox.due(read, self.sink.id, now_us=now_us, limit=limit)
        if not found:
            if not self._failures:
                self.trouble = ""
            return False
        history, keys, messages = _Read(read, self.sink.id), set[str](), list[Message]()
        for delivery in found:
            if one_at_a_time(self.sink):
                if delivery.key in keys:
                    continue
                keys.add(delivery.key)
            try:
                message = message_of(delivery, self._place, now_us=now_us)
            except msgspec.MsgspecError as error:  # of another version of ovavel, or a damaged store
                self._unwritten.append(_Mark(delivery=delivery, state="failed", why=f"it cannot be read: {error}"))
                continue
            zone = self._place.zone(message.body.camera)
            cause = suppression(self.sink, delivery, message.body, zone, history, now_us=now_us)
            if cause is None:
                messages.append(message)
            else:
                self._unwritten.append(_Mark(delivery=delivery, state="suppressed", why=cause))
        if messages:
            outcomes = self._sender.send(messages)
            reach("delivery.sent")
            self._take(messages, outcomes)
        ended = any(mark.state != "retry" for mark in self._unwritten)
        self._write()
        reach("delivery.marked")
        return ended

    def _take(self, messages: Sequence[Message], outcomes: Sequence[Outcome]) -> None:
        now_us = self._clock()
        for message, outcome in zip(messages, outcomes, strict=True):
            delivery, why = message.delivery, one_line(redacted(outcome.why))
            state = {"delivered": "delivered", "gone": "failed"}.get(outcome.result, "retry")
            waited = now_us - delivery.created_us > GIVE_UP_US and delivery.attempts >= GIVE_UP_ATTEMPTS
            if outcome.result == "refused" and waited:
                state = "failed"
            wait_s = max(self._pause(delivery.attempts + 1), min(outcome.wait_s, LONGEST_WAIT_S))
            self._unwritten.append(_Mark(delivery=delivery, state=state, why=why, next_us=now_us + round(wait_s * 1e6)))
        results = [each.result for each in outcomes]
        if "gone" in results:
            self.disabled = True
            self.trouble = one_line(redacted(outcomes[results.index("gone")].why))
            self._gone(self.sink.id, self.trouble)
        elif "unavailable" in results:
            worst = max((each for each in outcomes if each.result == "unavailable"), key=lambda each: each.wait_s)
            self._failed(worst.why, worst.wait_s)
        else:
            self._failures = 0
            self.trouble = next((one_line(redacted(each.why)) for each in outcomes if each.why), "")

    def _failed(self, why: str, wait_s: float = 0.0) -> None:
        self._failures += 1
        self.trouble = one_line(redacted(why))
        self._resume_s = time.monotonic() + max(self._pause(self._failures), min(wait_s, LONGEST_WAIT_S))

    def _write(self) -> None:
        """Write what became of what was sent. Where that fails it is kept, and nothing else is sent before."""
        if not self._unwritten or self._left.is_set():
            return
        now_us = self._clock()
        with self._store.write() as transaction:
            for mark in self._unwritten:
                mark.write(transaction, now_us)
        for mark in self._unwritten:
            if mark.state != "retry":
                self.results[f"suppressed: {mark.why}" if mark.state == "suppressed" else mark.state] += 1
        self._unwritten.clear()

    def _asked(self) -> list[Future[Outcome]]:
        found = []
        with contextlib.suppress(queue.Empty):
            while True:
                asked = self._tests.get_nowait()
                if asked.set_running_or_notify_cancel():  # whoever asked may have left
                    found.append(asked)
        return found

    def _give_up(self) -> bool:
        """Of a receiver that is gone: what is for it fails, and is counted."""
        found = outbox.due(self._store.read, self.sink.id, now_us=2**62, limit=500)
        self._unwritten += [_Mark(delivery=each, state="failed", why=self.trouble) for each in found]
        self._write()
        return bool(found)

    def _send_tests(self, tests: Sequence[Future[Outcome]]) -> None:
        for asked in tests:
            message = test_message(self.sink.id, self._place, id_=new_id(), now_us=self._clock())
            try:
                (outcome,) = self._sender.send([message])
            except Exception as error:
                _answer([asked], Outcome(result="unavailable", why=f"{type(error).__name__}: {error}"))
                raise
            _answer([asked], outcome)

    def _watch_clock(self, now_s: float) -> None:
        """A wall clock that was set back would let what waits wait for as long as that again."""
        now_us = self._clock()
        offset_us = now_us - round(now_s * 1e6)
        if self._offset_us is None or offset_us < self._offset_us - _STEP_US:  # at the start it is not known
            with self._store.write() as transaction:
                outbox.due_now(transaction, self.sink.id, now_us=now_us)
        self._offset_us = offset_us


def _answer(tests: Sequence[Future[Outcome]], outcome: Outcome) -> None:
    for asked in tests:
        asked.set_result(outcome)
