import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from ovavel.runtime.errors import OutputError
from ovavel.runtime.records import EventRecord, Record, SegmentRecord, SessionRecord, StatusRecord, SummaryRecord
from ovavel.runtime.sinks.jsonl import JsonlSink
from ovavel.runtime.types import Gap, Update

HERE = Path(__file__).parent


def records(path):
    return [msgspec.json.decode(line, type=Record) for line in path.read_bytes().splitlines()]


def run(sink, fake, seconds=3):
    stats = fake.stats()
    sink.open(fake.info, stats)
    for i in range(seconds):
        gaps = (Gap(sense="audio", cause="microphone overflow", start_s=i + 0.25, duration_s=0.1),) if i == 1 else ()
        for gap in gaps:
            stats.gap(gap)
        stats.window_done(0.5)
        stats.timings.add("latency", 400.0)
        news = [fake.event(1, "dog barking", 0.0, 1.0, "start")] if i == 0 else []
        sink.write(fake.update(i, "dog barking", events=news, gaps=gaps))
    last = (fake.segment(seconds - 1, "dog barking"),)
    events = (fake.event(1, "dog barking", 0.0, float(seconds)),)
    sink.write(Update(window=None, scores=last, events=events, latency_ms=None))
    sink.close()


def test_a_session_is_told_from_start_to_summary(tmp_path, fake):
    run(JsonlSink(tmp_path / "news.jsonl"), fake)
    told = records(tmp_path / "news.jsonl")
    assert isinstance(told[0], SessionRecord)
    assert told[0].labels == fake.labels
    assert told[0].provider == "CPUExecutionProvider"
    segments = [record for record in told if isinstance(record, SegmentRecord)]
    assert [record.index for record in segments] == [0, 1, 2], "each second once, when it is final"
    assert len(segments[0].classes) == 5
    assert segments[0].classes[0].label == segments[0].label == "dog barking"
    assert [len(record.gaps) for record in segments] == [0, 1, 0]
    assert [record.state for record in told if isinstance(record, EventRecord)] == ["start", "end"]
    assert isinstance(told[-1], SummaryRecord)
    assert (told[-1].windows, told[-1].gap_s, told[-1].lost_records) == (3, {"microphone overflow": 0.1}, 0)


def test_two_runs_differ_in_wall_clock_fields_only(tmp_path, fake):
    def timeless(path):
        lines = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
        return [{k: v for k, v in line.items() if k not in ("wall_time", "latency_ms")} for line in lines]

    for name in "ab":
        run(JsonlSink(tmp_path / name), fake)
    assert timeless(tmp_path / "a") == timeless(tmp_path / "b")


def test_it_appends_and_mends_a_torn_line_without_losing_it(tmp_path, fake):
    path = tmp_path / "news.jsonl"
    path.write_bytes(b'{"type":"status"}\n{"type":"sta')
    run(JsonlSink(path), fake)
    lines = path.read_bytes().split(b"\n")
    assert lines[:2] == [b'{"type":"status"}', b'{"type":"sta']
    assert isinstance(msgspec.json.decode(lines[2], type=Record), SessionRecord)
    size = path.stat().st_size
    run(JsonlSink(path), fake)
    assert b"\n\n" not in path.read_bytes()
    assert path.stat().st_size > size


def test_what_is_not_finite_is_null_and_odd_names_are_written(tmp_path, fake):
    path = tmp_path / "news.jsonl"
    sink = JsonlSink(path)
    sink.open(dataclasses.replace(fake.info, source="caf\udce9.mp4"), fake.stats())
    second = fake.segment(0, missing=("vision",))
    second.scores[1] = np.nan
    sink.write(Update(window=fake.window(0), scores=(second,), events=(), latency_ms=1.0))
    sink.status("lost caf\udce9 \x1b[31m\nline two")
    sink.close()
    segment, status = records(path)[1:3]
    assert segment.missing == ("vision",)
    assert all(record.vision_similarity is None for record in segment.classes)
    assert b"NaN" not in path.read_bytes()
    assert isinstance(status, StatusRecord)
    assert status.message == "lost caf\\xe9 \x1b[31m\nline two"


def test_kill_9_loses_nothing_that_was_told(tmp_path):
    path = tmp_path / "news.jsonl"
    code = f"""
import sys, time; sys.path.insert(0, {str(HERE)!r})
import conftest as fake
from ovavel.runtime.sinks.jsonl import JsonlSink
sink = JsonlSink({str(path)!r}); sink.open(fake.INFO, fake.Stats())
for i in range(10**6):
    sink.write(fake.update(i, "dog barking", events=[fake.event(i, "dog barking", i, i + 1.0)]))
    print(i, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        last = -1
        while last < 20:
            last = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split()
    last = int(rest[-1]) if rest else last
    told = [record for record in records(path) if isinstance(record, EventRecord)]
    assert [record.id for record in told][: last + 1] == list(range(last + 1))


def test_a_full_disk_is_told_once_and_counted_at_the_end(fake):
    told = []
    sink = JsonlSink("/dev/full", listener=told.append)
    with pytest.raises(OutputError, match=r"7 records could not be written to /dev/full \(No space left on device\)"):
        run(sink, fake)
    assert len(told) == 1
    assert "/dev/full" in told[0]
    sink.close()


def test_the_backlog_is_bounded_and_what_it_cannot_hold_is_counted(fake):
    sink = JsonlSink("/dev/full", listener=lambda message: None, backlog=2)
    with pytest.raises(OutputError, match="7 records"):
        run(sink, fake)


def test_a_disk_that_fills_up_in_the_middle_of_a_line_and_is_freed_again_loses_nothing(tmp_path):
    path = tmp_path / "news.jsonl"
    code = f"""
import resource, sys; sys.path.insert(0, {str(HERE)!r})
import conftest as fake
from ovavel.runtime.sinks.jsonl import JsonlSink
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
sink = JsonlSink({str(path)!r}, listener=print)
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))
sink.open(fake.INFO, fake.Stats())
for i in range(5):
    sink.status(f"message {{i}} " + "x" * 300)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
sink.status("free again")
sink.close()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("cannot write") == 1
    assert done.stdout.count("works again") == 1
    messages = [record.message.split(" x")[0] for record in records(path) if isinstance(record, StatusRecord)]
    assert messages == [*(f"message {i}" for i in range(5)), "free again"]


def test_a_closed_pipe_passes_through_once(tmp_path, fake):
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    sink = JsonlSink(fifo)
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        sink.open(fake.info, fake.stats())
    sink.close()


def test_standard_output_stays_open(tmp_path, fake, capfd):
    run(JsonlSink("-"), fake)
    print("still here")
    out = capfd.readouterr().out.splitlines()
    assert isinstance(msgspec.json.decode(out[0], type=Record), SessionRecord)
    assert out[-1] == "still here"


@pytest.mark.parametrize("where", ["missing/news.jsonl", "."])
def test_a_place_that_cannot_be_written_is_an_error_at_once(tmp_path, where):
    with pytest.raises(OutputError, match="folder"):
        JsonlSink(tmp_path / where)
