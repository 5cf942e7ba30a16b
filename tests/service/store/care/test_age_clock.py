"""By which time things are old, whatever the wall clock shows: a clock that was wrong removes nothing."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from support.service import run_facts

from ovavel.service.store import cameras
from ovavel.service.store.care.age_clock import AHEAD_US, STEADY_US, AgeClock
from ovavel.service.store.database import Database

DAY_US = 86_400_000_000
HOUR_US = DAY_US // 24
NOW_US = 20_000 * DAY_US
YEARS_US = 1500 * DAY_US


class Machine:
    """Two clocks; one of them can be set."""

    def __init__(self, last_us: int | None = NOW_US) -> None:
        self.true_us, self.set_us, self.clock = 0, 0, AgeClock(last_us)

    def look(self, after_us: int = 10_000_000) -> int:
        """How far the time by which things are old is ahead of the true one."""
        self.true_us += after_us
        now_us = NOW_US + self.true_us + self.set_us
        return self.clock.observe(now_us=now_us, monotonic_us=self.true_us) - NOW_US - self.true_us


def test_a_clock_set_years_ahead_ages_nothing_until_it_has_been_steady_for_a_day() -> None:
    machine = Machine()
    assert machine.look() == 0
    machine.set_us = YEARS_US
    for _ in range(23):
        assert machine.look(HOUR_US) == 0
    assert 0 < machine.clock.waits_s <= 2 * 3600
    machine.look(HOUR_US)
    assert machine.look(HOUR_US) == YEARS_US, "now it is believed"
    assert machine.clock.waits_s == 0


def test_a_clock_that_comes_back_was_never_believed_and_the_next_jump_waits_as_long() -> None:
    machine = Machine()
    machine.look()
    for _ in range(3):
        machine.set_us = YEARS_US
        assert machine.look() == machine.look(STEADY_US - HOUR_US) == 0
        machine.set_us = 0  # NTP
        assert machine.look() == 0
        assert machine.clock.waits_s == 0


def test_a_clock_that_jumps_about_is_not_steady() -> None:
    machine = Machine()
    machine.look()
    for years in range(1, 60):
        machine.set_us = YEARS_US * years
        assert machine.look(HOUR_US) == 0


def test_a_small_machine_whose_clock_is_set_after_the_boot_waits_for_nothing() -> None:
    machine = Machine()
    machine.set_us = -NOW_US
    machine.look()
    machine.look(HOUR_US)
    machine.set_us = HOUR_US  # it was off for an hour
    assert machine.look() == HOUR_US
    assert machine.clock.waits_s == 0
    new = Machine(None)
    new.set_us = -NOW_US
    new.look()
    new.set_us = 0
    assert new.look() == 0


def test_a_start_with_a_wrong_clock_is_noticed_and_again_at_the_next_one(store: Database) -> None:
    with store.write() as transaction:
        cameras.close_run(transaction, "run-1", ended_us=0, cause="stopped")
        cameras.open_run(transaction, run_facts("run-2", "gate", started_us=NOW_US))
    first = AgeClock.of(store, keep=True)
    assert first.observe(now_us=NOW_US + YEARS_US, monotonic_us=5) == NOW_US
    with store.write() as transaction:
        transaction.execute("UPDATE run SET committed_us = ?", (NOW_US + YEARS_US,))
    again = AgeClock.of(store, keep=False)
    assert again.observe(now_us=NOW_US + YEARS_US + HOUR_US, monotonic_us=7) == NOW_US, "runs were dated by it"
    assert again.waits_s == STEADY_US / 1e6


def test_a_file_that_cannot_be_read_or_written_is_none(store: Database) -> None:
    path: Path = store.folder / "clock.json"
    path.write_bytes(b"[]")
    assert AgeClock.of(store, keep=True).observe(now_us=NOW_US, monotonic_us=0) == NOW_US
    path.unlink()
    path.mkdir()
    assert AgeClock.of(store, keep=True).observe(now_us=NOW_US, monotonic_us=0) == NOW_US


@given(
    steps=st.lists(
        st.tuples(st.integers(1, 3 * DAY_US), st.sampled_from([0, 0, HOUR_US, YEARS_US, -YEARS_US, -NOW_US])),
        max_size=40,
    )
)
def test_it_is_never_far_ahead_before_a_steady_day(steps: list[tuple[int, int]]) -> None:
    machine = Machine()
    most_us, since_us = machine.look(), machine.true_us
    for after_us, set_us in steps:
        changed, machine.set_us = set_us != machine.set_us, set_us
        found_us = machine.look(after_us)
        since_us = machine.true_us if changed else since_us
        assert found_us <= most_us + AHEAD_US or machine.true_us - since_us >= STEADY_US
        most_us = max(most_us, found_us)
