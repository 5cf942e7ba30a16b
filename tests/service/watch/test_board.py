"""What windows lacked is summed up by sense and cause, for the page and for MQTT."""

from __future__ import annotations

from ovavel.service.capture.messages import Captured, Lost
from ovavel.service.watch.board import Board, coarse_s
from ovavel.service.watch.runs.camera_watch import Seen


def window(index: int, *gaps: Lost) -> Captured:
    return Captured(
        index=index,
        start_s=float(index),
        frame=None,
        sound=None,
        picture=None,
        gaps=gaps,
        notices=(),
        monotonic_us=0,
        utc_us=0,
    )


def test_what_windows_lacked_has_its_causes_and_whole_seconds() -> None:
    board, nothing = Board(), Seen(scores=(), names=())
    assert board.lacking("gate") == {}
    for index in range(3):
        gaps = (
            Lost(sense="audio", cause="stream lost", start_s=index, duration_s=0.9),
            Lost(sense="vision", cause="stream lost", start_s=index, duration_s=1.0),
            Lost(sense="vision", cause="late video", start_s=index, duration_s=0.1),
        )
        board.show("gate", window(index, *gaps), nothing)
    assert board.lacking("gate") == {"audio": {"stream lost": 3}, "vision": {"stream lost": 3}}
    board.forget("gate")
    assert board.lacking("gate") == {}


def test_what_goes_on_for_long_rarely_changes() -> None:
    assert [coarse_s(each) for each in (0.4, 59.4, 60.0, 119.9, 3700.0)] == [0, 59, 60, 60, 3660]
