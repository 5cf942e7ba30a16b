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
