"""Every microsecond of a camera is in exactly one account."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.service import camera_facts

from ovavel.service.store import accounts, cameras
from ovavel.service.store.accounts import HOUR_US
from ovavel.service.store.care.invariants import violations
from ovavel.service.store.database import Database

STRETCHES = st.lists(
    st.tuples(
        st.integers(-5_000_000, 3 * HOUR_US),
        st.sampled_from(
            [
                ("final", ""),
                ("dropped", "encoder too slow"),
                ("gap", "stream lost"),
                ("gap", 'no "path"'),
                ("off", ""),
            ]
        ),
        st.integers(0, 3),
    ),
    max_size=12,
)


@settings(max_examples=30, deadline=None)
@given(start_us=st.integers(0, 3 * HOUR_US), stretches=STRETCHES)
def test_the_accounts_of_any_stretches_sum_to_the_time_that_passed(
    tmp_path_factory: pytest.TempPathFactory, start_us: int, stretches: list[tuple[int, tuple[str, str], int]]
) -> None:
    expected: Counter[tuple[str, str]] = Counter()
    windows: Counter[str] = Counter()
    with Database.open(tmp_path_factory.mktemp("store"), ballast_bytes=0) as store:
        with store.write() as transaction:
            cameras.add_camera(transaction, camera_facts("gate"), now_us=start_us)
            now_us = start_us
            for length_us, (outcome, cause), count in stretches:
                count = count if outcome in ("final", "dropped") else 0
                reached_us = accounts.advance(
                    transaction,
                    "gate",
                    to_us=now_us + length_us,
                    outcome=outcome,
                    cause=cause,
                    windows=count,  # type: ignore[arg-type]
                )
                assert reached_us == max(now_us, now_us + length_us)
                expected[outcome, cause] += reached_us - now_us
                windows[outcome] += count
                now_us = reached_us
            assert accounts.accounted_us(transaction, "gate") == now_us
        found = accounts.read_accounts(store.read, "gate", from_us=0, to_us=now_us + 1)
    assert sum(each.total_us for each in found) == now_us - start_us
    assert sum(each.final_us for each in found) == expected["final", ""]
    assert sum(each.off_us for each in found) == expected["off", ""]
    assert sum(each.dropped_us for each in found) == expected["dropped", "encoder too slow"]
    for cause in ("stream lost", 'no "path"'):
        assert sum(each.gap_us.get(cause, 0) for each in found) == expected["gap", cause]
    assert sum(each.final for each in found) == windows["final"]
    assert sum(each.seconds for each in found) == windows["final"] + windows["dropped"]
    assert all(each.total_us == HOUR_US for each in found[1:-1]), "a past hour has 3600 s"
    assert [each.hour_us for each in found] == sorted({each.hour_us for each in found})


def test_a_clock_that_is_set_back_adds_no_time_and_loses_no_window(store: Database) -> None:
    with store.write() as transaction:
        accounts.advance(transaction, "gate", to_us=10_000_000, outcome="final", windows=10)
        accounts.advance(transaction, "gate", to_us=4_000_000, outcome="final", windows=1)
    (account,) = accounts.read_accounts(store.read, "gate", from_us=0, to_us=HOUR_US)
    assert (account.total_us, account.final) == (10_000_000, 11)


@pytest.mark.parametrize(
    ("outcome", "cause", "windows"),
    [("final", "why", 0), ("gap", "", 0), ("gap", "lost", 1), ("off", "", 1)],
)
def test_a_stretch_that_makes_no_sense_is_refused(store: Database, outcome: str, cause: str, windows: int) -> None:
    with pytest.raises(ValueError, match=r"cause|windows"), store.write() as transaction:
        accounts.advance(transaction, "gate", to_us=1, outcome=outcome, cause=cause, windows=windows)  # type: ignore[arg-type]


def test_an_unknown_camera_has_no_account(tmp_path: Path, store: Database) -> None:
    with pytest.raises(ValueError, match="no camera 'other'"), store.write() as transaction:
        accounts.advance(transaction, "other", to_us=1, outcome="final")


def test_a_clock_that_is_set_for_the_first_time_begins_the_accounts(store: Database) -> None:
    """Not half a million hours, one by one."""
    set_us = accounts.CLOCKS_US + 90 * 60 * 1_000_000
    with store.write() as transaction:
        accounts.advance(transaction, "gate", to_us=30_000_000, outcome="final", windows=30)
        assert accounts.advance(transaction, "gate", to_us=set_us, outcome="gap", cause="clock step") == set_us
        accounts.advance(transaction, "gate", to_us=set_us + 5_000_000, outcome="final", windows=5)
    (found,) = [each for each in accounts.read_accounts(store.read, "gate", from_us=0, to_us=2**62) if each.total_us]
    assert (found.final, found.final_us, sum(found.gap_us.values())) == (5, 5_000_000, 0)
    assert violations(store.read) == []


def test_an_hour_has_no_account_before_anything_was_in_it(store: Database) -> None:
    with store.write() as transaction:
        cameras.add_camera(transaction, camera_facts("shed"), now_us=2 * HOUR_US)
        accounts.advance(transaction, "shed", to_us=3 * HOUR_US, outcome="gap", cause="starting")
        accounts.advance(transaction, "shed", to_us=3 * HOUR_US, outcome="gap", cause="camera offline")
    (account,) = accounts.read_accounts(store.read, "shed", from_us=0, to_us=1 << 62)
    assert account.gap_us == {"starting": HOUR_US}


DAY_US = 24 * HOUR_US
SET_US = 20_000 * DAY_US + 25 * 60_000_000
"""A clock that is set, at 25 past an hour."""


def watched(store: Database, until_us: int, outcome: accounts.Outcome = "final", cause: str = "") -> int:
    with store.write() as transaction:
        return accounts.advance(transaction, "yard", to_us=until_us, outcome=outcome, cause=cause)


@pytest.fixture
def yard(store: Database) -> Database:
    """A store with a camera that is known from a moment on at which the clock is set."""
    with store.write() as transaction:
        cameras.add_camera(transaction, camera_facts("yard"), now_us=SET_US)
    return store


def test_years_that_never_were_leave_the_accounts_when_the_clock_is_set_back(yard: Database) -> None:
    ahead_us, minute_us = 1000 * DAY_US, 60_000_000
    watched(yard, SET_US + minute_us)
    watched(yard, SET_US + ahead_us, "gap", "clock step")
    watched(yard, SET_US + ahead_us + 30 * minute_us)
    assert watched(yard, SET_US + 31 * minute_us) == SET_US + 31 * minute_us
    assert watched(yard, SET_US + 36 * minute_us) == SET_US + 36 * minute_us
    assert violations(yard.read) == []
    found = accounts.read_accounts(yard.read, "yard", from_us=0, to_us=2**62)
    assert [each.final_us // minute_us for each in found] == [1 + 4, 1], "what was watched before, and is since"
    assert [each.gap_us for each in found] == [{"clock step": 30 * minute_us}, {}]


def test_a_camera_that_was_added_in_such_a_year_is_known_from_now_on(yard: Database) -> None:
    with yard.write() as transaction:
        cameras.add_camera(transaction, camera_facts("shed"), now_us=SET_US + 1000 * DAY_US)
        accounts.advance(transaction, "shed", to_us=SET_US + 1000 * DAY_US + HOUR_US, outcome="final", windows=3600)
        assert accounts.advance(transaction, "shed", to_us=SET_US + HOUR_US, outcome="final") == SET_US + HOUR_US
    assert violations(yard.read) == []


def test_a_clock_that_is_wrongly_set_back_costs_nothing_that_was_watched(yard: Database) -> None:
    watched(yard, SET_US + 400 * DAY_US)
    for wrong_us in (SET_US + DAY_US, 0, SET_US - 900 * DAY_US):
        assert watched(yard, wrong_us) == SET_US + 400 * DAY_US
    found = accounts.read_accounts(yard.read, "yard", from_us=0, to_us=2**62)
    assert sum(each.final_us for each in found) == 400 * DAY_US
    assert watched(yard, SET_US + 401 * DAY_US) == SET_US + 401 * DAY_US
    assert violations(yard.read) == []


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from([0, 0, 3 * HOUR_US, 40 * DAY_US, -40 * DAY_US, -3 * HOUR_US]),
            st.integers(1, 5 * HOUR_US),
            st.sampled_from([("final", ""), ("dropped", "slow"), ("gap", "offline"), ("off", "")]),
        ),
        max_size=10,
    )
)
def test_whatever_the_clock_does_the_accounts_have_neither_holes_nor_time_twice(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, tuple[accounts.Outcome, str]]]
) -> None:
    with Database.open(tmp_path_factory.mktemp("store"), ballast_bytes=0) as store:
        now_us = SET_US
        with store.write() as transaction:
            cameras.add_camera(transaction, camera_facts("yard"), now_us=now_us)
        for step_us, length_us, (outcome, cause) in steps:
            now_us += step_us
            if step_us > 0:
                watched(store, now_us, "gap", "clock step")
            now_us += length_us
            watched(store, now_us, outcome, cause)
            assert violations(store.read) == []
