"""A real bundle, a real backend and real files, from the first chunk to the last event."""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest
from numpy.typing import NDArray
from support.media_factory import COLOURS, make_clip

from ovavel.runtime.backends import Backend, BackendInfo, HeadOutput, open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.graphs import Encoders
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.errors import DeviceError, MediaError, OutputError, UsageError
from ovavel.runtime.pipeline.localizer import Localizer, deciding_head
from ovavel.runtime.results.recording import localize_recording
from ovavel.runtime.run import drive
from ovavel.runtime.session import Session
from ovavel.runtime.session_info import SessionInfo
from ovavel.runtime.sinks.jsonl import JsonlSink
from ovavel.runtime.sinks.lines import summary_lines
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.stats import Stats
from ovavel.runtime.types import (
    Chunk,
    Event,
    Frame,
    Gap,
    GapCause,
    Notice,
    Samples,
    Segment,
    SegmentScores,
    Sense,
    Update,
)


@pytest.fixture(scope="module")
def bundle(exported_bundle: Path) -> Bundle:
    """The tiny bundle with a vocabulary that its untrained encoders tell apart."""
    bundle = Bundle.open(exported_bundle)
    rng = np.random.default_rng(3)
    embeddings = rng.standard_normal((9, bundle.manifest.encoders.vision.embedding_size))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    names = (*(f"event {i}" for i in range(8)), "other")
    return replace(
        bundle, vocabulary=Vocabulary(names=names, embeddings=TextEmbeddings.shared(embeddings.astype(np.float32)))
    )


@pytest.fixture(scope="module")
def backend(bundle: Bundle) -> Iterator[Backend]:
    opened = open_backend(bundle, device="cpu")
    yield opened
    opened.close()


def textured(time_s: float) -> NDArray[np.uint8]:
    """A different picture every two seconds, with enough in it to tell them apart."""
    rng = np.random.default_rng(int(time_s) // 2)
    blocks = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.kron(blocks, np.ones((20, 20, 1), np.uint8))


def changing_sound(duration_s: int, rate_hz: int = 16_000) -> NDArray[np.float32]:
    rng = np.random.default_rng(1)
    t = np.arange(rate_hz) / rate_hz
    tones = [sum(np.sin(2 * np.pi * f * t) for f in rng.integers(100, 6000, 3)) / 8 for _ in range(duration_s)]
    return np.concatenate(tones)[None].astype(np.float32)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return make_clip(path, duration_s=11, picture=textured, waveform=changing_sound(11))


def final_scores(updates: list[Update]) -> list[SegmentScores]:
    return [s for update in updates for s in update.scores if s.final]


def assert_every_start_ends(events: list[Event]) -> None:
    open_ids: set[int] = set()
    for event in events:
        assert (event.id in open_ids) == (event.state != "start"), event
        (open_ids.add if event.state in ("start", "update") else open_ids.remove)(event.id)
    assert not open_ids


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
    head = deciding_head(backend.head, bundle.manifest.fusion.decision)
    offline = Localizer(head, bundle.vocabulary).score(segments)
    with Session(bundle, clip, backend=backend, lag=9) as session:
        streamed = [u.scores for u in session.updates()][9]
    for one, other in zip(streamed, offline, strict=True):
        assert one.label == other.label
        np.testing.assert_array_equal(one.scores, other.scores)
        np.testing.assert_array_equal(one.audio_similarity, other.audio_similarity)


def play_as_decided(source: MediaSource, session: Session) -> None:
    """Not by the clock: `source` plays on when all of it so far is decided on, so that no machine is too slow."""

    def next_moment(when_s: float) -> bool:
        while session.stats.windows < session.counts.windows and not source._stopping.is_set():
            time.sleep(0.001)
        return not source._stopping.is_set()

    source._sleep_until = next_moment  # type: ignore[method-assign]


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


class Slow:
    """A backend that does something else first, for every picture."""

    def __init__(self, backend: Backend, first: Callable[[], object]) -> None:
        self._backend, self._first = backend, first

    @property
    def info(self) -> BackendInfo:
        return self._backend.info

    def vision(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        self._first()
        return self._backend.vision(frames)

    def audio(self, log_mels: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._backend.audio(log_mels)

    @property
    def encoders(self) -> Encoders:
        return self._backend.encoders

    def text(self, tokens: NDArray[np.int64], sense: Sense) -> NDArray[np.float32]:
        return self._backend.text(tokens, sense)

    def head(self, audio: NDArray[np.float32], vision: NDArray[np.float32], text: TextEmbeddings) -> HeadOutput:
        return self._backend.head(audio, vision, text)

    def warm_up(self) -> None:
        pass

    def close(self) -> None:
        raise AssertionError("a backend that was given is not the session's to close")


class Scripted:
    """A source that hands out seconds of picture and sound at its own pace, and may fail."""

    name = "scripted"
    senses: frozenset[Sense] = frozenset({"vision", "audio"})
    recorded = True
    duration_s = None

    def __init__(self, seconds: int, *, live: bool, pace_s: float = 0.0, failure: Exception | None = None) -> None:
        self.live = live
        self.seconds, self._pace_s, self._failure = seconds, pace_s, failure
        self._closed = threading.Event()
        self.tell: Callable[[int], object] = lambda second: None

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def chunks(self) -> Iterator[Chunk]:
        for second in range(self.seconds):
            if self._closed.wait(self._pace_s):
                return
            now_s = time.monotonic()
            self.tell(second)
            image = np.full((8, 8, 3), COLOURS[second % len(COLOURS)], np.uint8)
            yield Frame(time_s=second + 0.4, captured_s=now_s, image=lambda image=image: image)
            waveform = np.random.default_rng(second).standard_normal((1, 16_000)).astype(np.float32) / 8
            yield Samples(time_s=float(second), captured_s=now_s, waveform=waveform, rate_hz=16_000)
        if self._failure:
            raise self._failure

    def close(self) -> None:
        self._closed.set()


class InStep:
    """Lets a source run ahead of the encoder by so many seconds a picture, however busy the machine is."""

    def __init__(self, source: Scripted, seconds: int) -> None:
        self._seconds, self._last = seconds, source.seconds - 1
        self._allowed, self._at = 3, 0  # the source may not go on to a later second than `_allowed`
        self._turn = threading.Condition()
        source.tell = self._hand_out

    def _hand_out(self, second: int) -> None:
        with self._turn:
            self._at = second
            self._turn.notify_all()
            assert self._turn.wait_for(lambda: second <= self._allowed, 60)

    def picture(self) -> None:
        """Wait until the source has run ahead and waits for the next picture, or is in its last second."""
        with self._turn:
            self._allowed += self._seconds
            self._turn.notify_all()
            assert self._turn.wait_for(lambda: self._at >= min(self._allowed + 1, self._last), 60)

    def release(self) -> None:
        """Let the source go on."""
        with self._turn:
            self._allowed = self._last
            self._turn.notify_all()


class Clock:
    """Stands still unless it is moved."""

    def __init__(self) -> None:
        self.now_s = time.monotonic()

    def monotonic(self) -> float:
        return self.now_s

    perf_counter = monotonic

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the session, so that who took how long does not depend on the machine."""
    clock = Clock()
    for module in ("session", "pipeline.window_queue", "system.timing"):
        monkeypatch.setattr(f"ovavel.runtime.{module}.time", clock)
    return clock


def test_a_slow_encoder_loses_the_oldest_windows_and_counts_each(
    bundle: Bundle, backend: Backend, clock: Clock
) -> None:
    source = Scripted(30, live=True)
    turns = InStep(source, 10)

    def encode() -> None:
        clock.advance(0.1)
        turns.picture()

    with Session(bundle, source, backend=Slow(backend, encode)) as session:
        updates = list(session.updates())
    scores = final_scores(updates)
    assert [s.index for s in scores] == list(range(30))
    lost = [u.window.index for u in updates if u.window and u.window.dropped is GapCause.ENCODER_TOO_SLOW]
    assert all(u.window.gaps[0].cause is u.window.dropped for u in updates if u.window and u.window.gaps)
    assert len(lost) == session.stats.dropped[GapCause.ENCODER_TOO_SLOW] > 5
    assert session.stats.windows + len(lost) == 30
    assert session.stats.real_time_factor == pytest.approx(0.1), "those dropped make it look no faster"
    assert session.stats.gap_s[GapCause.ENCODER_TOO_SLOW] == pytest.approx(2 * len(lost))  # both senses of each
    assert {s.index for s in scores if s.missing} == set(lost)
    assert 29 not in lost
    assert all((u.latency_ms is None) == (u.window is None or u.window.index in lost) for u in updates)


def test_a_paused_reader_is_not_taken_for_a_slow_encoder(bundle: Bundle, backend: Backend, clock: Clock) -> None:
    source, paused, over = Scripted(60, live=True), threading.Event(), threading.Event()

    def hand_out(second: int) -> None:
        clock.advance(0.01)
        if second == 8:
            assert paused.wait(60)
        if second == 59:
            over.set()

    source.tell = hand_out
    with Session(bundle, source, backend=backend) as session:
        reported = []
        for update in session.updates():
            reported.append(update)
            if len(reported) == 3:
                paused.set()
                assert over.wait(60)  # the session runs on while nobody takes its updates
    assert set(session.stats.dropped) <= {GapCause.READER_TOO_SLOW, GapCause.ENCODER_TOO_SLOW}
    assert session.stats.dropped[GapCause.READER_TOO_SLOW] > 40
    causes = [gap.cause for update in reported if update.window for gap in update.window.gaps]
    assert causes.count(GapCause.READER_TOO_SLOW) == 2 * session.stats.dropped[GapCause.READER_TOO_SLOW]


class Lost(Scripted):
    """A live source that brings nothing but gaps for a while."""

    def __init__(self, *, lost: range) -> None:
        super().__init__(8, live=True)
        self._lost = lost

    def chunks(self) -> Iterator[Chunk]:
        for chunk in super().chunks():
            second = int(chunk.start_s if isinstance(chunk, Gap) else chunk.time_s)
            if second in self._lost:
                sense: Sense = "vision" if isinstance(chunk, Frame) else "audio"
                yield Gap(sense=sense, cause="camera lost", start_s=float(second), duration_s=1.0)
            else:
                yield chunk


@pytest.mark.parametrize("lost", [range(3), range(2, 5), range(8)])
def test_seconds_that_hold_nothing_have_no_latency(bundle: Bundle, backend: Backend, lost: range) -> None:
    with Session(bundle, Lost(lost=lost), backend=backend) as session:
        updates = list(session.updates())
    windows = [(update, update.window) for update in updates if update.window]
    dropped = {window.index for _, window in windows if window.dropped}
    without = {window.index for update, window in windows if update.latency_ms is None}
    assert without - dropped == set(lost), "a machine that is busy drops some, which is another matter"
    latency = session.stats.timings.percentiles("latency")
    assert (latency is None) == (len({*lost, *dropped}) == 8)
    assert latency is None or latency.p99 < 60_000, "and not the machine's uptime"


def test_a_slow_encoder_loses_nothing_of_a_file(bundle: Bundle, backend: Backend) -> None:
    with Session(
        bundle, Scripted(12, live=False), backend=Slow(backend, functools.partial(time.sleep, 0.02))
    ) as session:
        updates = list(session.updates())
    assert session.stats.dropped == {}
    assert not any(s.missing for s in final_scores(updates))
    assert {u.latency_ms for u in updates} == {None}, "waiting in the queue is no latency"
    assert "latency" not in " ".join(summary_lines(session.stats))


def test_stop_ends_what_is_open_and_counts_what_waits(bundle: Bundle, backend: Backend) -> None:
    events: list[Event] = []
    source, pictures = Scripted(1000, live=True), itertools.count(1)
    turns = InStep(source, 1)

    def encode() -> None:
        turns.picture()
        if next(pictures) == 16:
            stopper = threading.Thread(target=session.stop)
            stopper.start()
            stopper.join()
            turns.release()

    with Session(bundle, source, backend=Slow(backend, encode)) as session:
        events += session.events()
    assert any(event.state == "end" for event in events)
    assert_every_start_ends(events)
    assert next(pictures) == 17, "what waited is not encoded"
    assert session.stats.windows == 16
    assert session.stats.dropped["stopped"] > 0
    assert session.stats.windows + sum(session.stats.dropped.values()) == session.counts.windows


def test_a_source_that_fails_is_told_after_everything_open_has_ended(bundle: Bundle, backend: Backend) -> None:
    source = Scripted(12, live=False, failure=MediaError("the disk was pulled"))
    events: list[Event] = []
    with Session(bundle, source, backend=backend) as session:
        with pytest.raises(MediaError, match="the disk was pulled"):
            events.extend(session.events())
    assert session.stats.windows == 12
    assert_every_start_ends(events)


class Unconvertible(Scripted):
    """Pictures of a format that cannot be converted, as FFmpeg reports it."""

    def chunks(self) -> Iterator[Chunk]:
        def image() -> NDArray[np.uint8]:
            raise MediaError("a frame cannot be converted to RGB")

        for chunk in super().chunks():
            yield replace(chunk, image=image) if isinstance(chunk, Frame) else chunk


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_pictures_that_cannot_be_converted_are_one_error_and_no_traceback(bundle: Bundle, backend: Backend) -> None:
    with Session(bundle, Unconvertible(3, live=False), backend=backend) as session:
        with pytest.raises(MediaError, match="cannot be converted"):
            list(session.events())


def test_a_backend_that_fails_is_told_after_everything_open_has_ended(bundle: Bundle, backend: Backend) -> None:
    events: list[Event] = []
    pictures = itertools.count(1)

    def encode() -> None:
        if next(pictures) > 6:
            raise DeviceError("the GPU fell off the bus")

    with Session(bundle, Scripted(12, live=False), backend=Slow(backend, encode)) as session:
        with pytest.raises(DeviceError, match="fell off the bus"):
            events.extend(session.events())
    assert any(event.state == "end" for event in events)
    assert_every_start_ends(events)
    assert session.stats.windows == 6
    assert session.stats.windows + sum(session.stats.dropped.values()) == session.counts.windows


class Broken:
    """A sink whose disk is full."""

    name = "a full disk"

    def open(self, info: SessionInfo, stats: Stats) -> None:
        pass

    def write(self, update: Update) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_sink_that_fails_does_not_take_the_others_down(
    bundle: Bundle, backend: Backend, clip: Path, tmp_path: Path
) -> None:
    with Session(bundle, clip, backend=backend) as session:
        with pytest.raises(OutputError, match="a full disk"):
            drive(session, [Broken(), JsonlSink(tmp_path / "news")])
    records = [json.loads(line) for line in (tmp_path / "news").read_text().splitlines()]
    assert records[-1]["type"] == "summary"


class Signalled:
    """A sink that gets signals at its third update, and then may never return."""

    name = "a pipe that nobody reads"

    def __init__(self, *numbers: signal.Signals, stuck: bool = False) -> None:
        self._numbers, self._stuck, self._left = numbers, stuck, 3

    def open(self, info: SessionInfo, stats: Stats) -> None:
        pass

    def write(self, update: Update) -> None:
        self._left -= 1
        if self._left == 0:
            for number in self._numbers:
                signal.raise_signal(number)
            if self._stuck:
                threading.Event().wait()

    def close(self) -> None:
        if self._stuck:
            threading.Event().wait()


def jsonl_types(path: Path) -> list[str]:
    return [json.loads(line)["type"] for line in path.read_text().splitlines()]


@pytest.mark.alone  # a signal is for the whole process, whatever other tests have loaded into it
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_sink_that_never_returns_does_not_hold_up_the_end(
    bundle: Bundle, backend: Backend, tmp_path: Path, number: signal.Signals
) -> None:
    news = tmp_path / "news"
    with Session(bundle, Scripted(10_000, live=True, pace_s=0.02), backend=backend) as session:
        with pytest.raises(OutputError, match="a pipe that nobody reads took nothing for 2 s"):
            drive(session, [Signalled(number, stuck=True), JsonlSink(news)])
    assert jsonl_types(news)[-1] == "summary", "the other sink gets the whole end"


@pytest.mark.alone  # a signal is for the whole process, whatever other tests have loaded into it
def test_a_second_sigint_leaves_no_summary(bundle: Bundle, backend: Backend, tmp_path: Path) -> None:
    news = tmp_path / "news"
    before = signal.getsignal(signal.SIGINT)
    with Session(bundle, Scripted(10_000, live=True, pace_s=0.02), backend=backend) as session:
        with pytest.raises(KeyboardInterrupt):
            drive(session, [Signalled(signal.SIGINT, signal.SIGINT), JsonlSink(news)])
    assert "summary" not in jsonl_types(news)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.alone  # a signal is for the whole process, whatever other tests have loaded into it
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_of_another_kind_changes_nothing(
    bundle: Bundle, backend: Backend, tmp_path: Path, number: signal.Signals
) -> None:
    news = tmp_path / "news"
    with Session(bundle, Scripted(10_000, live=True, pace_s=0.02), backend=backend) as session:
        drive(session, [Signalled(signal.SIGINT, number, number), JsonlSink(news)])
    assert jsonl_types(news)[-1] == "summary"


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


class Announcing(Scripted):
    """A source that has something to say in every second, and once more at its end."""

    def chunks(self) -> Iterator[Chunk]:
        for chunk in super().chunks():
            if isinstance(chunk, Frame):
                yield Notice(time_s=chunk.time_s, message=f"second {int(chunk.time_s)}")
            yield chunk


def test_what_a_source_says_comes_at_the_same_second_every_time(
    bundle: Bundle, backend: Backend, clip: Path, tmp_path: Path
) -> None:
    runs = []
    for delay_s in (0.0, 0.05):
        source = Announcing(8, live=False)
        slow = Slow(backend, functools.partial(time.sleep, delay_s))
        with Session(bundle, source, backend=slow) as session:
            runs.append([(u.window.index if u.window else None, u.notices) for u in session.updates()])
    assert runs[0] == runs[1]
    assert [notice.message for _, notices in runs[0] for notice in notices] == [f"second {i}" for i in range(8)]


@pytest.mark.parametrize("ending", ["the end", "dropped windows", "a failure", "a stop"])
def test_every_notice_comes_out_once_and_in_order(bundle: Bundle, backend: Backend, clock: Clock, ending: str) -> None:
    failure = MediaError("the disk was pulled") if ending == "a failure" else None
    source = Announcing(12, live=ending == "dropped windows", failure=failure)
    turns = InStep(source, 6)
    pictures = itertools.count(1)

    def encode() -> None:
        if ending == "dropped windows":
            turns.picture()
        if ending == "a stop" and next(pictures) == 6:
            session.stop()

    if ending != "dropped windows":
        turns.release()
    updates: list[Update] = []
    with Session(bundle, source, backend=Slow(backend, encode)) as session:
        with pytest.raises(MediaError) if failure else contextlib.nullcontext():
            updates.extend(session.updates())
    messages = [notice.message for update in updates for notice in update.notices]
    assert bool(session.stats.dropped) == (ending in ("dropped windows", "a stop"))
    if ending == "a stop":
        assert messages == [f"second {i}" for i in range(len(messages))]
        assert len(messages) >= session.stats.windows
    else:
        assert messages == [f"second {i}" for i in range(12)]
    assert updates[-1].window is None


class Slowed(Scripted):
    """A source that itself lost its sound to an encoder, of the far side of a network, say."""

    def chunks(self) -> Iterator[Chunk]:
        for chunk in super().chunks():
            if isinstance(chunk, Samples):
                yield Gap(sense="audio", cause=GapCause.ENCODER_TOO_SLOW, start_s=chunk.time_s, duration_s=1.0)
            else:
                yield chunk


def test_the_cause_of_a_gap_does_not_make_a_window_one_that_the_queue_dropped(bundle: Bundle, backend: Backend) -> None:
    with Session(bundle, Slowed(4, live=False), backend=backend) as session:
        windows = [update.window for update in session.updates() if update.window]
    assert {gap.cause for window in windows for gap in window.gaps} == {GapCause.ENCODER_TOO_SLOW}
    assert [window.dropped for window in windows] == [None] * 4
    assert (session.stats.windows, session.stats.dropped) == (4, {})


def test_what_the_program_reports_comes_with_the_next_update(bundle: Bundle, backend: Backend, tmp_path: Path) -> None:
    messages: SimpleQueue[str] = SimpleQueue()
    messages.put("before it began, of rtsp://me:secret@cam/")
    source = Scripted(4, live=False)
    news = tmp_path / "news"
    with Session(bundle, source, backend=backend) as session:
        drive(session, [JsonlSink(news)], messages=messages)
    notices = [each for each in map(json.loads, news.read_text().splitlines()) if each["type"] == "notice"]
    assert [(each["time_s"], each["message"]) for each in notices] == [(0.0, "before it began, of rtsp://cam/")]


def test_what_cannot_be_opened_closes_what_was(bundle: Bundle, clip: Path) -> None:
    source = Scripted(1, live=False)
    with pytest.raises(UsageError, match="lag"):
        Session(bundle, source, device="cpu", lag=20)
    assert source.closed


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
