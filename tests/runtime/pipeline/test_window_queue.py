from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from ovavel.runtime.pipeline.window_queue import WindowQueue
from ovavel.runtime.types import GapCause, Notice, Window


def window(index: int) -> Window:
    return Window(
        index=index,
        start_s=float(index),
        frame=np.zeros((2, 2, 3), np.uint8),
        waveform=np.zeros((1, 16000), np.float32),
        captured_s=0.0,
        notices=(Notice(time_s=float(index), message=str(index)),),
    )


def test_live_the_newest_windows_win_and_every_second_still_comes_out() -> None:
    queue = WindowQueue(2, live=True)
    dropped = [len(queue.put(window(i))) for i in range(5)]
    queue.close()
    taken = queue.take(10)
    assert dropped == [0, 0, 1, 1, 1]
    assert [w.index for w in taken] == [0, 1, 2, 3, 4]
    assert [w.frame is None for w in taken] == [True, True, True, False, False]
    assert [{gap.cause for gap in w.gaps} for w in taken] == [{GapCause.ENCODER_TOO_SLOW}] * 3 + [set()] * 2
    assert [w.dropped for w in taken] == [GapCause.ENCODER_TOO_SLOW] * 3 + [None] * 2
    assert [notice.message for w in taken for notice in w.notices] == ["0", "1", "2", "3", "4"]
    assert queue.take(1) == []


def test_for_files_the_capture_waits_and_nothing_is_dropped() -> None:
    queue, done = WindowQueue(2, live=False), threading.Semaphore(0)

    def put() -> None:
        for i in range(20):
            assert queue.put(window(i)) == []
            done.release()
        queue.close()

    thread = threading.Thread(target=put)
    thread.start()
    assert done.acquire(timeout=60)
    assert done.acquire(timeout=60)
    assert not done.acquire(timeout=0.05), "the third one waits"
    taken = []
    while windows := queue.take(1):
        taken += windows
    thread.join()
    assert [w.index for w in taken] == list(range(20))
    assert all(w.frame is not None for w in taken)


@pytest.mark.parametrize("live", [True, False])
def test_closing_frees_whoever_waits(live: bool) -> None:
    queue = WindowQueue(1, live=live)
    taking = threading.Thread(target=queue.take, args=(1,))
    taking.start()
    queue.close()
    taking.join(timeout=60)
    assert not taking.is_alive()
    refused = window(0)
    assert queue.put(refused) == [refused]
    assert queue.take(1) == []


def test_an_empty_window_pushes_nothing_out() -> None:
    queue = WindowQueue(1, live=True)
    queue.put(window(0))
    assert queue.put(replace(window(1), frame=None, waveform=None)) == []
    assert queue.take(1)[0].frame is not None


def test_windows_that_the_source_held_up_have_room() -> None:
    queue = WindowQueue(2, live=True)
    assert [len(queue.put(window(i), late=i < 5)) for i in range(8)] == [0] * 8
    assert [len(queue.put(window(i))) for i in range(8, 31)] == [0] * 22 + [1], "and that has its bounds"
