"""A session's seconds are filed under the seconds of UTC in which they begin."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from support.archives import DAY, archive_clip, unit
from support.demo_copies import BUNDLE

from ovavel.runtime.archive.layout import model_of
from ovavel.runtime.archive.reader import Archive
from ovavel.runtime.archive.sink import ArchiveSink
from ovavel.runtime.archive.writer import ArchiveWriter
from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.types import Segment, Update, Window


def test_the_stored_similarities_are_those_that_were_decided_on(tmp_path: Path) -> None:
    """Within what 8 bits lose."""
    live, _ = archive_clip(tmp_path, DAY + 10)
    texts = Bundle.open(BUNDLE).vocabulary.embeddings
    (day,) = Archive(tmp_path).days()
    with day.open() as files:
        seconds = list(files.seconds(0, 100))
    assert [each.utc_s for each in seconds] == list(live) == list(range(DAY + 10, DAY + 50))
    for each in seconds:
        score = live[each.utc_s]
        assert each.audio is not None
        assert each.vision is not None
        assert np.abs(texts.audio @ each.audio - score.audio_similarity).max() < 0.005
        assert np.abs(texts.vision @ each.vision - score.vision_similarity).max() < 0.005


@pytest.mark.parametrize("live", [False, True])
def test_a_live_source_follows_the_machine_where_its_clock_strays(tmp_path: Path, live: bool) -> None:
    bundle, start = Bundle.open(BUNDLE), datetime.fromtimestamp(DAY, UTC)
    vector = unit(np.ones(64))
    with closing(open_backend(bundle, graphs=("head",))) as backend, patch.object(time, "time") as now:
        writer = ArchiveWriter(tmp_path, "yard", model_of(bundle))
        sink = ArchiveSink(writer, backend, lag=0, start=start + timedelta(milliseconds=900), live=live)
        for index, off in enumerate([0, 0, 1.5, 1.5, 7, 7]):  # the source lost seven seconds that it does not know of
            now.return_value = DAY + index + 1 + off
            with patch.object(time, "monotonic", return_value=5.0):
                sink.write(
                    Update(
                        window=Window(index=index, start_s=float(index), frame=None, waveform=None, captured_s=5.0),
                        segment=Segment(index=index, start_s=float(index), vision=vector, audio=vector),
                        scores=(),
                        events=(),
                        latency_ms=None,
                    )
                )
        sink.close()
    (day,) = Archive(tmp_path).days()
    with day.open() as files:
        rows = [each.utc_s - DAY for each in files.seconds(0, 100)]
    assert rows == ([0, 1, 2, 3, 11, 12] if live else [0, 1, 2, 3, 4, 5])
