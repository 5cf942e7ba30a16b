"""A real bundle, a real backend and real files, from the first chunk to the last event."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.media_factory import make_clip
from support.runtime.scripted import assert_every_start_ends, changing_sound, final_scores, play_as_decided, textured

from ovavel.runtime.backends import Backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.pipeline.localizer import Localizer, deciding_head
from ovavel.runtime.results.recording import localize_recording
from ovavel.runtime.run import drive
from ovavel.runtime.session import Session
from ovavel.runtime.sinks.jsonl import JsonlSink
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.types import (
    Chunk,
    Frame,
    Samples,
    Segment,
    Sense,
)


def test_every_second_of_a_file_is_decided_on_once_and_every_start_ends(
    bundle: Bundle, backend: Backend, clip: Path
) -> None:
    with Session(bundle, clip, backend=backend) as session:
        updates = list(session.updates())
    assert [s.index for s in final_scores(updates)] == list(range(11))
    assert [u.window.index for u in updates[:-1] if u.window] == list(range(11))
    assert [u.segment.index for u in updates[:-1] if u.segment] == list(range(11))
    assert all(u.segment.vision is not None and u.segment.audio is not None for u in updates if u.segment)
    assert updates[-1].window is updates[-1].segment is None
    assert session.stats.windows == 11
    assert session.stats.dropped == {}
    events = [event for update in updates for event in update.events]
    assert any(event.state == "start" for event in events)
    assert_every_start_ends(events)


def test_the_first_ten_seconds_score_as_the_offline_clip_bit_for_bit(
    bundle: Bundle, backend: Backend, clip: Path
) -> None:
    from ovavel.runtime.pipeline.assembler import WindowAssembler
    from ovavel.runtime.pipeline.encoder import Encoder

    source = MediaSource(str(clip))
    assembler = WindowAssembler(source.senses, live=False)
    windows = [w for chunk in source.chunks() for w in assembler.push(chunk)] + assembler.flush()
    segments: list[Segment] = [Encoder(backend).encode([w])[0] for w in windows[:10]]
    head = deciding_head(backend.head, bundle.manifest.fusion.decides)
    offline = Localizer(head, bundle.vocabulary).score(segments)
    with Session(bundle, clip, backend=backend, lag=9) as session:
        streamed = [u.scores for u in session.updates()][9]
    for one, other in zip(streamed, offline, strict=True):
        assert one.label == other.label
        np.testing.assert_array_equal(one.scores, other.scores)
        np.testing.assert_array_equal(one.audio_similarity, other.audio_similarity)


def test_live_replay_and_offline_give_the_same_events(bundle: Bundle, backend: Backend, clip: Path) -> None:
    offline = localize_recording(bundle, MediaSource(str(clip)), backend=backend)
    source = MediaSource(str(clip), realtime=True)
    with Session(bundle, source, backend=backend) as session:
        assert session.info.live
        play_as_decided(source, session)
        live = [event for event in session.events() if event.state == "end"]
    assert session.stats.dropped == {}
    assert tuple(sorted(live, key=lambda e: (e.start_s, e.id))) == offline.events


def test_two_runs_write_the_same_jsonl_but_for_the_wall_clock(
    bundle: Bundle, backend: Backend, clip: Path, tmp_path: Path
) -> None:
    runs = []
    for name in ("one", "two"):
        with Session(bundle, clip, backend=backend) as session:
            drive(session, [JsonlSink(tmp_path / name)])
        records = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        assert [r["type"] for r in (records[0], records[-1])] == ["session", "summary"]
        for record in records:
            record.pop("wall_time", None)
            record.pop("latency_ms", None)
            record.pop("started_at", None)
        runs.append(records)
    assert runs[0] == runs[1]
    assert len([r for r in runs[0] if r["type"] == "segment"]) == 11


def test_the_library_example_of_the_readme(bundle: Bundle, clip: Path) -> None:
    with Session(bundle, clip, device="cpu") as session:
        assert [event.state for event in session.events()].count("start") > 0


@pytest.mark.parametrize("broken", ["hole", "late sound"])
def test_a_recording_with_flaws_replays_live_as_offline(
    bundle: Bundle, backend: Backend, tmp_path: Path, broken: str
) -> None:
    """What is right for a microphone (impatience, a tolerant clock) must not be done to a recording played live."""
    stamps = {"hole": lambda t: t + 0.08 * (t > 2), "late sound": lambda t: t}[broken]
    path = make_clip(
        tmp_path / "clip.mkv",
        duration_s=5,
        picture=textured,
        waveform=changing_sound(5),
        audio_codec="pcm_f32le",
        audio_format="flt",
        audio_stamps=stamps,
    )
    runs = []
    for realtime in (False, True):
        media = MediaSource(str(path), realtime=realtime)
        source = LateSound(media) if broken == "late sound" else media
        with Session(bundle, source, backend=backend) as session:
            play_as_decided(media, session)
            runs.append(list(session.updates()))
    for one, other in zip(*runs, strict=True):
        assert (one.window is None) == (other.window is None)
        if one.window and other.window:
            assert one.window.gaps == other.window.gaps
            np.testing.assert_array_equal(one.window.frame, other.window.frame)
            np.testing.assert_array_equal(one.window.waveform, other.window.waveform)
        assert one.events == other.events


class LateSound:
    """The chunks of a recording whose sound is stored three seconds behind its picture."""

    def __init__(self, source: MediaSource) -> None:
        self._source = source
        self.name, self.senses, self.duration_s = source.name, source.senses, source.duration_s
        self.live, self.recorded = source.live, source.recorded
        self.close = source.close

    def chunks(self) -> Iterator[Chunk]:
        waiting: list[Samples] = []
        for chunk in self._source.chunks():
            if isinstance(chunk, Samples):
                waiting.append(chunk)
                continue
            while waiting and isinstance(chunk, Frame) and waiting[0].time_s < chunk.time_s - 3:
                yield waiting.pop(0)
            yield chunk
        yield from waiting


@pytest.mark.parametrize("sense", ["vision", "audio"])
def test_a_sense_left_out_on_purpose_is_reported_and_never_guessed(
    bundle: Bundle, backend: Backend, clip: Path, sense: Sense
) -> None:
    source = MediaSource(str(clip), video=sense != "vision", audio=sense != "audio")
    with Session(bundle, source, backend=backend) as session:
        updates = list(session.updates())
    scores = final_scores(updates)
    assert len(scores) == 11
    assert all(s.missing == (sense,) and s.label == "other" for s in scores)
    assert not [event for update in updates for event in update.events]
    assert session.info.senses == {"vision", "audio"} - {sense}
