"""Accounts: what became of every second of every camera, by UTC hour.

A camera's time is cut into stretches without holes: each begins where the one before it ended (`camera.accounted_us`).
So the accounts of a past hour sum to 3600 s, whatever went wrong in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ovavel.service.store.database import Transaction, one_row

__all__ = ["CLOCKS_US", "HOUR_US", "Account", "Outcome", "accounted_us", "advance", "read_accounts"]

HOUR_US = 3_600_000_000
CLOCKS_US = 1_577_836_800_000_000
"""The year 2020: what a clock shows before that, it was not set to."""

_DAYS_US = 86_400_000_000
_WATCHED = 0.1
"""Share of a time that may have been watched for it to count as one that never was."""

Outcome = Literal["final", "dropped", "gap", "off"]
"""How a stretch is accounted for: decided; its window dropped; no window at all; camera switched off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One hour of one camera. `final_us`, `dropped_us`, the gaps and `off_us` sum to 3600 s once the hour is over."""

    camera_id: str
    hour_us: int
    seconds: int
    """Windows that began in the hour."""
    final: int
    """Of these, those that were decided on."""
    final_us: int
    dropped: dict[str, int]
    """Cause → windows that were dropped."""
    dropped_us: int
    gap_us: dict[str, int]
    """Cause → time without windows."""
    off_us: int

    @property
    def total_us(self) -> int:
        """Time that is accounted for."""
        return self.final_us + self.dropped_us + sum(self.gap_us.values()) + self.off_us


def accounted_us(transaction: Transaction, camera_id: str) -> int:
    """Up to where the camera's time is accounted for."""
    found = transaction.execute("SELECT accounted_us FROM camera WHERE id = ?", (camera_id,)).fetchone()
    if found is None:
        raise ValueError(f"there is no camera {camera_id!r} in the store")
    return int(found[0])


def advance(
    transaction: Transaction, camera_id: str, *, to_us: int, outcome: Outcome, cause: str = "", windows: int = 0
) -> int:
    """Account for the camera's time from where its accounts ended to `to_us`; returns where they end now.

    A wall clock that was set back makes `to_us` lie in time that is accounted for already: nothing is added but the
    windows, which are counted in the hour the accounts have reached. Where it is set back by days in which next to
    nothing was watched, it had been far ahead: that time never was, and its accounts go. One that had not been set
    begins the accounts again when it is.

    Args:
        transaction: of the store.
        camera_id: the camera.
        to_us: end of the stretch.
        outcome: what became of all of it.
        cause: why, for "dropped" and "gap".
        windows: how many windows the stretch holds; they are counted where it begins.
    """
    if bool(cause) != (outcome in ("dropped", "gap")):
        raise ValueError(f"a cause belongs to dropped windows and gaps, and only there: {outcome!r}, cause {cause!r}")
    if windows and outcome not in ("final", "dropped"):
        raise ValueError(f"{outcome!r} holds no windows")
    start_us = accounted_us(transaction, camera_id)
    if start_us < CLOCKS_US <= to_us:
        start_us = _begin_again(transaction, camera_id, to_us)
    elif CLOCKS_US <= to_us < start_us - _DAYS_US:
        start_us = _take_back(transaction, camera_id, to_us, start_us)
    for hour_us, length_us in _hours(start_us, max(to_us, start_us)):
        if length_us or windows:  # an hour in which nothing was has no account yet
            _add(transaction, camera_id, hour_us, length_us, windows, outcome, cause)
        windows = 0
    if to_us > start_us:
        transaction.execute("UPDATE camera SET accounted_us = ? WHERE id = ?", (to_us, camera_id))
    return max(to_us, start_us)


def _begin_again(transaction: Transaction, camera_id: str, now_us: int) -> int:
    """Begin the camera's accounts at the moment when its clock was first set.

    Until then the clock showed 1970, or whatever the machine begins with: half a million hours that never were would
    have to be accounted for. What was counted in them goes with them; the events stay.
    """
    transaction.execute("DELETE FROM account WHERE camera_id = ?", (camera_id,))
    transaction.execute("UPDATE camera SET created_us = ?, accounted_us = ? WHERE id = ?", (now_us, now_us, camera_id))
    return now_us


def _take_back(transaction: Transaction, camera_id: str, to_us: int, end_us: int) -> int:
    """Let the camera's accounts end at `to_us` again, unless it was watched after that; returns where they end."""
    hour_us = to_us - to_us % HOUR_US
    accounts = read_accounts(transaction, camera_id, from_us=hour_us, to_us=end_us + 1)
    if sum(each.final_us + each.dropped_us for each in accounts) > (end_us - to_us) * _WATCHED:
        return end_us
    transaction.execute("DELETE FROM account WHERE camera_id = ? AND hour_us > ?", (camera_id, hour_us))
    (created_us,) = one_row(transaction, "SELECT created_us FROM camera WHERE id = ?", (camera_id,))
    for first in accounts[:1] if accounts and accounts[0].hour_us == hour_us else ():
        surplus_us = first.total_us - max(0, to_us - max(created_us, hour_us))
        gap_us, left = dict(first.gap_us), [first.off_us, first.dropped_us, first.final_us]
        for cause in sorted(gap_us, key=lambda each: -first.gap_us[each]):
            taken_us = min(surplus_us, gap_us[cause])
            gap_us[cause], surplus_us = gap_us[cause] - taken_us, surplus_us - taken_us
        for place, us in enumerate(left):
            left[place] -= min(surplus_us, us)
            surplus_us -= min(surplus_us, us)
        transaction.execute(
            "UPDATE account SET gap_us = ?, off_us = ?, dropped_us = ?, final_us = ? "
            "WHERE camera_id = ? AND hour_us = ?",
            (json.dumps({cause: us for cause, us in gap_us.items() if us}), *left, camera_id, hour_us),
        )
    transaction.execute(
        "UPDATE camera SET accounted_us = ?, created_us = ? WHERE id = ?", (to_us, min(created_us, to_us), camera_id)
    )
    return to_us


def _hours(start_us: int, end_us: int) -> Iterator[tuple[int, int]]:
    """Cut a stretch at full hours: (hour, length) pairs; an empty stretch is one pair of length 0."""
    while True:
        hour_us = start_us - start_us % HOUR_US
        stop_us = min(end_us, hour_us + HOUR_US)
        yield hour_us, stop_us - start_us
        if stop_us >= end_us:
            return
        start_us = stop_us


def _add(
    transaction: Transaction, camera_id: str, hour_us: int, length_us: int, windows: int, outcome: Outcome, cause: str
) -> None:
    key = (camera_id, hour_us)
    transaction.execute("INSERT INTO account (camera_id, hour_us) VALUES (?, ?) ON CONFLICT DO NOTHING", key)
    match outcome:
        case "final":
            transaction.execute(
                "UPDATE account SET seconds = seconds + ?, final = final + ?, final_us = final_us + ? "
                "WHERE camera_id = ? AND hour_us = ?",
                (windows, windows, length_us, *key),
            )
        case "dropped":
            transaction.execute(
                "UPDATE account SET seconds = seconds + ?, dropped_us = dropped_us + ?, dropped = ? "
                "WHERE camera_id = ? AND hour_us = ?",
                (windows, length_us, _raised(transaction, "dropped", key, cause, windows), *key),
            )
        case "gap":
            transaction.execute(
                "UPDATE account SET gap_us = ? WHERE camera_id = ? AND hour_us = ?",
                (_raised(transaction, "gap_us", key, cause, length_us), *key),
            )
        case "off":
            transaction.execute(
                "UPDATE account SET off_us = off_us + ? WHERE camera_id = ? AND hour_us = ?", (length_us, *key)
            )


def _raised(transaction: Transaction, column: str, key: tuple[str, int], cause: str, by: int) -> str:
    """JSON of a column that counts by cause, with `by` more for one of them."""
    query = f"SELECT {column} FROM account WHERE camera_id = ? AND hour_us = ?"  # noqa: S608 - a fixed name
    (found,) = one_row(transaction, query, key)
    counts: dict[str, int] = json.loads(found)
    counts[cause] = counts.get(cause, 0) + by
    return json.dumps(counts)


def read_accounts(connection: Transaction, camera_id: str, *, from_us: int, to_us: int = 1 << 62) -> list[Account]:
    """The accounts of the hours that begin in [from_us, to_us), oldest first.

    A clock that was ahead has left accounts of hours to come, and what is lost now is counted in the last of them.
    """
    rows = connection.execute(
        "SELECT camera_id, hour_us, seconds, final, final_us, dropped, dropped_us, gap_us, off_us FROM account "
        "WHERE camera_id = ? AND hour_us >= ? AND hour_us < ? ORDER BY hour_us",
        (camera_id, from_us, to_us),
    )
    return [
        Account(
            camera_id=camera,
            hour_us=hour_us,
            seconds=seconds,
            final=final,
            final_us=final_us,
            dropped=json.loads(dropped),
            dropped_us=dropped_us,
            gap_us=json.loads(gap_us),
            off_us=off_us,
        )
        for camera, hour_us, seconds, final, final_us, dropped, dropped_us, gap_us, off_us in rows
    ]
