"""What a start finds of runs that did not end: their events are ended and their time is accounted for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ovavel.service.store.accounts import advance
from ovavel.service.store.cameras import close_run
from ovavel.service.store.database import Transaction, one_row, rows
from ovavel.service.store.events import EventNews, record
from ovavel.service.store.outbox import Subscriber

__all__ = ["DIED", "DOWN", "Recovered", "end_left", "end_run", "recover"]

DIED = "service died"
"""Why an event or a run ended whose process did not end it."""
DOWN = "service not running"
"""Cause of the gap in a camera's account until it is watched again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What was left open."""

    runs: int
    events: int


def recover(transaction: Transaction, *, now_us: int, sinks: Sequence[Subscriber]) -> Recovered:
    """End what dead runs left open, at the last second they committed, and account for the time since then.

    Call it before any run is opened. Doing it twice changes nothing.
    """
    runs = [run for (run,) in rows(transaction, "SELECT id FROM run WHERE ended_us IS NULL ORDER BY id")]
    ended = sum(end_run(transaction, run, cause=DIED, now_us=now_us, sinks=sinks) for run in runs)
    for (camera_id,) in rows(transaction, "SELECT id FROM camera WHERE removed_us IS NULL ORDER BY id"):
        advance(transaction, camera_id, to_us=now_us, outcome="gap", cause=DOWN)
    return Recovered(runs=len(runs), events=ended)


def end_run(transaction: Transaction, run_id: str, *, cause: str, now_us: int, sinks: Sequence[Subscriber]) -> int:
    """End a run that cannot end itself, and its events with it, at the last second it committed; returns how many."""
    (committed_us,) = one_row(transaction, "SELECT committed_us FROM run WHERE id = ?", (run_id,))
    open_events = rows(
        transaction,
        "SELECT session_event_id, label, start_us, end_us, peak_margin, peak_probability, id FROM event "
        "WHERE run_id = ? AND state = 'open' ORDER BY session_event_id",
        (run_id,),
    )
    for number, label, start_us, end_us, margin, probability, event_id in open_events:
        news = EventNews(
            kind="end",
            run_id=run_id,
            session_event_id=number,
            label=label,
            start_us=start_us,
            end_us=max(start_us, min(end_us, committed_us)),
            peak_margin=margin,
            peak_probability=probability,
            end_cause=cause,
        )
        record(transaction, news, event_id=event_id, now_us=now_us, sinks=sinks)
    close_run(transaction, run_id, ended_us=committed_us, cause=cause)
    return len(open_events)


def end_left(transaction: Transaction, camera: str, cause: str, *, now_us: int, sinks: Sequence[Subscriber]) -> None:
    """End the runs of a camera that cannot end themselves: as `end_run`, for those of a service that lives."""
    for (left,) in rows(transaction, "SELECT id FROM run WHERE camera_id = ? AND ended_us IS NULL", (camera,)):
        end_run(transaction, left, cause=cause, now_us=now_us, sinks=sinks)
