"""What files and other programs rely on."""

from dataclasses import replace

import numpy as np

from ovavel.runtime.types import DropCause, GapCause, Segment, SkipCause

GAPS = """
camera lost, microphone lost, microphone overflow, stream lost, process not running, no video, no audio, damaged video,
damaged audio, timestamp jump, truncated, no frame, no sound yet, no such channel, late video, late sound, lost samples,
invalid samples, invalid time, clock drift, end of media, encoder too slow, reader too slow
"""
DROPS = "before the start, overlapping samples, not needed, backend failed, not looked at, stopped"


def listed(text: str) -> list[str]:
    return text.replace("\n", " ").strip().split(", ")


def test_causes_are_written_to_files_in_these_words() -> None:
    assert [str(cause) for cause in GapCause] == listed(GAPS)
    assert [str(cause) for cause in DropCause] == listed(DROPS)


def test_a_cause_means_one_thing() -> None:
    assert not {str(cause) for cause in GapCause} & {str(cause) for cause in DropCause}


def test_a_segment_that_was_not_looked_at_lacks_nothing() -> None:
    prepared = np.zeros(4, np.float32)
    waiting = Segment(index=0, start_s=0.0, vision=None, audio=prepared, frame=prepared)
    assert waiting.missing == ()
    assert replace(waiting, frame=None).missing == ("vision",)
    assert SkipCause.SOUND == "background sound"
