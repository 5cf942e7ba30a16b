"""Turns at an encoder come in the order in which threads ask."""

from __future__ import annotations

import signal
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovavel.runtime.backends.turns import Turns

LONGEST_S = 60


def begin(turns: Turns, name: int, done: list[int]) -> threading.Thread:
    """Start a thread that takes a turn, and return once it waits for it."""

    def take() -> None:
        with turns:
            done.append(name)

    before = turns.waiting
    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    wait_for(turns, before + 1)
    return thread


def wait_for(turns: Turns, waiting: int) -> None:
    deadline_s = time.monotonic() + LONGEST_S
    while turns.waiting != waiting:
        assert time.monotonic() < deadline_s
        time.sleep(0)


@given(st.integers(1, 6))
def test_who_asked_first_goes_first_and_who_asks_again_goes_last(others: int) -> None:
    turns, done = Turns(), list[int]()
    with turns:
        threads = [begin(turns, name, done) for name in range(others)]
    with turns:  # asked again at once, as a camera with a queue does
        done.append(others)
    for thread in threads:
        thread.join(LONGEST_S)
    assert done == [*range(others), others]


def test_one_thread_holds_it_at_a_time() -> None:
    turns, inside, most, rounds = Turns(), 0, 0, 200

    def work() -> None:
        nonlocal inside, most
        for _ in range(rounds):
            with turns:
                inside += 1
                most = max(most, inside)
                time.sleep(0)  # lets others in, if the lock does
                inside -= 1

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONGEST_S)
    assert (inside, most, turns.waiting) == (0, 1, 0)


def test_an_error_inside_passes_the_turn_on() -> None:
    turns = Turns()
    with pytest.raises(ZeroDivisionError), turns:
        raise ZeroDivisionError
    with turns:
        pass


def test_who_is_interrupted_while_waiting_gives_up_the_turn() -> None:
    turns, done, held, release = Turns(), list[int](), threading.Event(), threading.Event()

    def hold() -> None:
        with turns:
            held.set()
            release.wait(LONGEST_S)

    def interrupt() -> None:
        wait_for(turns, 1)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    threads = [threading.Thread(target=each, daemon=True) for each in (hold, interrupt)]
    try:
        threads[0].start()
        assert held.wait(LONGEST_S)
        threads[1].start()
        with pytest.raises(KeyboardInterrupt), turns:
            done.append(0)
    finally:
        signal.signal(signal.SIGINT, before)
    assert turns.waiting == 0
    last = begin(turns, 1, done)
    release.set()
    for thread in (*threads, last):
        thread.join(LONGEST_S)
    assert done == [1]
