"""A session's seconds are filed under the seconds of UTC in which they begin."""

from __future__ import annotations

import errno
import time
from contextlib import closing, nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from support.archives import DAY, archive_clip, unit
from support.demo_copies import BUNDLE

from ovavel.runtime.archive.layout import ContextSecond, model_of
from ovavel.runtime.archive.reader import Archive
from ovavel.runtime.archive.sink import ArchiveSink, LiveArchiveSink
from ovavel.runtime.archive.writer import ArchiveWriter, DayFiles
from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.commands.options import ArchiveOptions, LiveArchiveOptions
from ovavel.runtime.errors import OutputError
from ovavel.runtime.sources.access import Access
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


def update(index: int, vector: np.ndarray) -> Update:
    return Update(
        window=Window(index=index, start_s=float(index), frame=None, waveform=None, captured_s=5.0),
        segment=Segment(index=index, start_s=float(index), vision=vector, audio=vector),
        scores=(),
        events=(),
        latency_ms=None,
    )


@pytest.mark.parametrize("live", [False, True])
def test_a_live_source_follows_the_machine_where_its_clock_strays(tmp_path: Path, live: bool) -> None:
    bundle, start, said = Bundle.open(BUNDLE), datetime.fromtimestamp(DAY, UTC), list[str]()
    vector = unit(np.ones(64))
    with closing(open_backend(bundle, graphs=("head",))) as backend, patch.object(time, "time") as now:
        writer = ArchiveWriter(tmp_path, "yard", model_of(bundle))
        sink = (
            LiveArchiveSink(writer, backend, lag=0, report=said.append)
            if live
            else ArchiveSink(writer, backend, lag=0, start=start + timedelta(milliseconds=900))
        )
        for index, off in enumerate([0, 0, 1.5, 1.5, 7, 7]):  # the source lost seven seconds that it does not know of
            now.return_value = DAY + index + 1 + off
            with patch.object(time, "monotonic", return_value=5.0):
                sink.write(update(index, vector))
        sink.close()
    (day,) = Archive(tmp_path).days()
    with day.open() as files:
        rows = [each.utc_s - DAY for each in files.seconds(0, 100)]
    assert rows == ([0, 1, 2, 3, 11, 12] if live else [0, 1, 2, 3, 4, 5])
    assert said == []


@pytest.mark.parametrize("audio", ["int8", "int8-any-pooled"])
def test_what_is_archived_is_of_the_model_that_runs(tmp_path: Path, audio: str) -> None:
    bundle, vector = Bundle.open(BUNDLE), unit(np.ones(64))
    with closing(open_backend(bundle, graphs=("head",))) as head:
        info = replace(head.info, precision={"vision": "int8", "audio": audio, "head": "fp32"})
        backend: Any = SimpleNamespace(info=info, head=head.head, encoders=head.encoders)
        live = LiveArchiveOptions(archive=tmp_path / "live", archive_camera="yard").writer(bundle, backend)
        recorded = ArchiveOptions(archive=tmp_path / "recorded", start="2026-11-29")
        sink = recorded.sink(Path("yard.mp4"), bundle, backend, 0, Access())
        assert live
        assert sink
        with closing(sink):
            sink.write(update(0, vector))
    (day,) = Archive(tmp_path / "recorded").days()
    assert day.model == live.model == model_of(bundle, pooled=audio.endswith("pooled"))


def test_a_live_archive_that_cannot_be_written_for_a_while_is_reported_and_counted(tmp_path: Path) -> None:
    bundle, vector, said = Bundle.open(BUNDLE), unit(np.ones(64)), list[str]()
    with closing(open_backend(bundle, graphs=("head",))) as backend:
        writer = ArchiveWriter(tmp_path, "yard", model_of(bundle), every=2)
        sink = LiveArchiveSink(writer, backend, lag=0, report=said.append)
        for index in range(8):
            full = index in (2, 3, 4, 5)
            with patch.object(DayFiles, "_put", side_effect=OSError(errno.ENOSPC, "full")) if full else nullcontext():
                sink.write(update(index, vector))
        assert [each.partition(":")[0] for each in said] == [
            "the archive is not written",
            "the archive is written again; it lacks 4 seconds",
        ]
        with pytest.raises(OutputError, match="4 seconds could not be written"):
            sink.close()
    assert writer.written == 4


def test_a_live_archive_that_another_holds_is_refused_at_once(tmp_path: Path) -> None:
    bundle, vector, said = Bundle.open(BUNDLE), unit(np.ones(64)), list[str]()
    now_s = int(time.time())
    with (
        closing(open_backend(bundle, graphs=("head",))) as backend,
        ArchiveWriter(tmp_path, "yard", model_of(bundle)) as other,
    ):
        other.write(ContextSecond(utc_s=now_s, vision=vector, audio=vector))
        sink = LiveArchiveSink(ArchiveWriter(tmp_path, "yard", model_of(bundle)), backend, lag=0, report=said.append)
        clocks = patch.object(time, "time", return_value=now_s + 1.0), patch.object(time, "monotonic", return_value=5.0)
        with clocks[0], clocks[1], pytest.raises(OutputError, match="another"):
            sink.write(update(0, vector))
        with pytest.raises(OutputError, match="1 seconds"):
            sink.close()
    assert said == []
