import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from support import made_up_session as fake

from ovavel.runtime.errors import OutputError
from ovavel.runtime.sinks.jsonl import JsonlSink
from ovavel.runtime.sinks.records import EventRecord, NoticeRecord, Record, SegmentRecord, SessionRecord, SummaryRecord
from ovavel.runtime.stats import Stats
from ovavel.runtime.types import Gap, Update

TESTS = Path(__file__).parents[2]


def records(path):
    return [msgspec.json.decode(line, type=Record) for line in path.read_bytes().splitlines()]


def run(sink, seconds=3):
    stats = Stats()
    sink.open(fake.INFO, stats)
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


def test_a_session_is_recorded_from_start_to_summary(tmp_path):
    run(JsonlSink(tmp_path / "news.jsonl"))
    reported = records(tmp_path / "news.jsonl")
    assert isinstance(reported[0], SessionRecord)
    assert reported[0].labels == fake.LABELS
    assert reported[0].provider == "CPUExecutionProvider"
    assert (reported[0].session_id, reported[0].started_at) == (fake.INFO.id, "2026-01-02T03:04:05.000Z")
    assert {record.id for record in reported if isinstance(record, EventRecord)} == {f"{fake.INFO.id}-1"}
    segments = [record for record in reported if isinstance(record, SegmentRecord)]
    assert [record.index for record in segments] == [0, 1, 2], "each second once, when it is final"
    assert len(segments[0].classes) == 5
    assert segments[0].classes[0].label == segments[0].label == "dog barking"
    assert [len(record.gaps) for record in segments] == [0, 1, 0]
    assert [record.state for record in reported if isinstance(record, EventRecord)] == ["start", "end"]
    assert isinstance(reported[-1], SummaryRecord)
    assert (reported[-1].windows, reported[-1].gap_s, reported[-1].lost_records) == (3, {"microphone overflow": 0.1}, 0)


def test_two_runs_differ_in_wall_clock_fields_only(tmp_path):
    def timeless(path):
        lines = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
        return [{k: v for k, v in line.items() if k not in ("wall_time", "started_at", "latency_ms")} for line in lines]

    for name in "ab":
        run(JsonlSink(tmp_path / name))
    assert timeless(tmp_path / "a") == timeless(tmp_path / "b")


@pytest.mark.parametrize(
    ("tail", "aside"),
    [
        (b'{"type":"sta', b'{"type":"sta\n'),
        (b'{"type":"sta\0\0\0', b'{"type":"sta\0\0\0\n'),
        (b"\0" * 100_000, b"\0" * 100_000 + b"\n"),
        (b'{"type":"notice","wall_time":"","message":"whole"}', None),
        (b"a line of something else", None),
    ],
)
def test_a_torn_last_line_is_moved_aside(tmp_path, tail, aside):
    path, reported = tmp_path / "news.jsonl", []
    path.write_bytes(b'{"type":"notice"}\n' + tail)
    run(JsonlSink(path, listener=reported.append))
    first, second = path.read_bytes().split(b"\n")[:2]
    assert first == b'{"type":"notice"}'
    torn = tmp_path / "news.jsonl.torn"
    if aside is None:
        assert second == tail, "whole but for its end"
        assert not torn.exists()
    else:
        assert isinstance(msgspec.json.decode(second, type=Record), SessionRecord)
        assert torn.read_bytes() == aside
        assert str(torn) in reported[0]
    before = path.read_bytes()
    run(JsonlSink(path))
    assert path.read_bytes().startswith(before)
    assert b"\n\n" not in path.read_bytes()


def test_a_file_of_one_torn_line_is_begun_again(tmp_path):
    path = tmp_path / "news.jsonl"
    path.write_bytes(b'{"type":"ses')
    run(JsonlSink(path, listener=lambda message: None))
    assert isinstance(records(path)[0], SessionRecord)


def test_what_is_not_finite_is_null_and_odd_names_are_written(tmp_path):
    path = tmp_path / "news.jsonl"
    sink = JsonlSink(path)
    sink.open(dataclasses.replace(fake.INFO, source="caf\udce9.mp4"), Stats())
    second = fake.segment(0, missing=("vision",))
    second.scores[1] = np.nan
    sink.write(Update(window=fake.window(0), scores=(second,), events=(), latency_ms=1.0))
    sink.write(fake.notice("lost caf\udce9 \x1b[31m\nline two"))
    sink.close()
    segment, status = records(path)[1:3]
    assert segment.missing == ("vision",)
    assert all(record.vision_similarity is None for record in segment.classes)
    assert b"NaN" not in path.read_bytes()
    assert isinstance(status, NoticeRecord)
    assert status.message == "lost caf\\xe9 \x1b[31m\nline two"


def test_kill_9_loses_nothing_that_was_reported(tmp_path):
    path = tmp_path / "news.jsonl"
    code = f"""
import sys, time; sys.path.insert(0, {str(TESTS)!r})
from support import made_up_session as fake
from ovavel.runtime.sinks.jsonl import JsonlSink
from ovavel.runtime.stats import Stats
sink = JsonlSink({str(path)!r}); sink.open(fake.INFO, Stats())
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
    reported = [record for record in records(path) if isinstance(record, EventRecord)]
    assert [record.id for record in reported][: last + 1] == [f"{fake.INFO.id}-{i}" for i in range(last + 1)]


def test_a_full_disk_is_reported_once_and_counted_at_the_end():
    reported = []
    sink = JsonlSink("/dev/full", listener=reported.append)
    with pytest.raises(OutputError, match=r"7 records could not be written to /dev/full \(No space left on device\)"):
        run(sink)
    assert len(reported) == 1
    assert "/dev/full" in reported[0]
    sink.close()


def test_the_backlog_is_bounded_and_what_it_cannot_hold_is_counted():
    sink = JsonlSink("/dev/full", listener=lambda message: None, backlog=2)
    with pytest.raises(OutputError, match="7 records"):
        run(sink)


def test_a_disk_that_fills_up_in_the_middle_of_a_line_and_is_freed_again_loses_nothing(tmp_path):
    path = tmp_path / "news.jsonl"
    code = f"""
import resource, sys; sys.path.insert(0, {str(TESTS)!r})
from support import made_up_session as fake
from ovavel.runtime.sinks.jsonl import JsonlSink
from ovavel.runtime.stats import Stats
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
sink = JsonlSink({str(path)!r}, listener=print)
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))
sink.open(fake.INFO, Stats())
for i in range(5):
    sink.write(fake.notice(f"message {{i}} " + "x" * 300))
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
sink.write(fake.notice("free again"))
sink.close()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("cannot write") == 1
    assert done.stdout.count("works again") == 1
    messages = [record.message.split(" x")[0] for record in records(path) if isinstance(record, NoticeRecord)]
    assert messages == [*(f"message {i}" for i in range(5)), "free again"]


def test_a_disk_that_is_full_at_the_end_leaves_whole_lines(tmp_path):
    path = tmp_path / "news.jsonl"
    code = f"""
import resource, sys; sys.path.insert(0, {str(TESTS)!r})
from support import made_up_session as fake
from ovavel.runtime.errors import OutputError
from ovavel.runtime.sinks.jsonl import JsonlSink
from ovavel.runtime.stats import Stats
sink = JsonlSink({str(path)!r}, listener=print)
sink.open(fake.INFO, Stats())
size = len(open({str(path)!r}, "rb").read())
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, resource.RLIM_INFINITY))
sink.write(fake.notice("x" * 300))
try:
    sink.close()
except OutputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 records could not be written" in done.stdout
    assert [type(record) for record in records(path)] == [SessionRecord]


def test_a_removed_file_is_begun_again_and_its_records_are_counted(tmp_path):
    path, reported = tmp_path / "news.jsonl", []
    sink = JsonlSink(path, listener=reported.append)
    sink.open(fake.INFO, Stats())
    sink.write(fake.notice("one"))
    path.unlink()
    sink.write(fake.notice("two"))
    assert "was removed" in reported[0]
    assert [type(record) for record in records(path)] == [SessionRecord, NoticeRecord]
    sink.write(fake.notice("three"))
    with pytest.raises(OutputError, match=r"^2 records are gone with .*news.jsonl, which was removed"):
        sink.close()
    assert [record.message for record in records(path)[1:]] == ["two", "three"]
    assert len(reported) == 1


def test_a_file_removed_after_its_last_record_is_noticed_at_the_end(tmp_path):
    sink = JsonlSink(tmp_path / "news.jsonl", listener=lambda message: None)
    sink.open(fake.INFO, Stats())
    (tmp_path / "news.jsonl").unlink()
    with pytest.raises(OutputError, match="1 records are gone"):
        sink.close()


@pytest.mark.parametrize("back", [False, True])
def test_records_wait_while_the_folder_is_gone(tmp_path, back):
    folder, reported = tmp_path / "folder", []
    folder.mkdir()
    path = folder / "news.jsonl"
    sink = JsonlSink(path, listener=reported.append)
    sink.open(fake.INFO, Stats())
    shutil.rmtree(folder)
    sink.write(fake.notice("one"))
    sink.write(fake.notice("two"))
    assert len(reported) == 1
    assert "No such file or directory" in reported[0]
    if back:
        folder.mkdir()
    else:
        with pytest.raises(OutputError, match=r"1 records are gone.*; 2 records could not be written"):
            sink.close()
        return
    sink.write(fake.notice("three"))
    assert isinstance(records(path)[0], SessionRecord)
    assert [record.message for record in records(path)[1:]] == ["one", "two", "three"]
    with pytest.raises(OutputError, match=r"^1 records are gone"):
        sink.close()


def test_a_file_that_is_moved_is_followed_by_a_new_one(tmp_path):
    path, reported = tmp_path / "news.jsonl", []
    sink = JsonlSink(path, listener=reported.append)
    sink.open(fake.INFO, Stats())
    path.rename(tmp_path / "news.jsonl.1")
    sink.write(fake.notice("one"))
    sink.close()
    assert "moved" in reported[0]
    assert [type(record) for record in records(tmp_path / "news.jsonl.1")] == [SessionRecord]
    assert [type(record) for record in records(path)] == [SessionRecord, NoticeRecord]


def test_a_folder_that_is_moved_takes_the_records_along(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    sink = JsonlSink(folder / "news.jsonl", listener=print)
    sink.open(fake.INFO, Stats())
    folder.rename(tmp_path / "elsewhere")
    sink.write(fake.notice("one"))
    sink.close()
    assert len(records(tmp_path / "elsewhere" / "news.jsonl")) == 2


def test_without_the_last_update_there_is_no_summary(tmp_path):
    sink = JsonlSink(tmp_path / "news.jsonl")
    sink.open(fake.INFO, Stats())
    sink.write(fake.update(0, "dog barking"))
    sink.close()
    assert not any(isinstance(record, SummaryRecord) for record in records(tmp_path / "news.jsonl"))


def test_a_closed_pipe_passes_through_once(tmp_path):
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    sink = JsonlSink(fifo)
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        sink.open(fake.INFO, Stats())
    sink.close()


def test_standard_output_stays_open(tmp_path, capfd):
    run(JsonlSink("-"))
    print("still here")
    out = capfd.readouterr().out.splitlines()
    assert isinstance(msgspec.json.decode(out[0], type=Record), SessionRecord)
    assert out[-1] == "still here"


@pytest.mark.parametrize("where", ["missing/news.jsonl", "."])
def test_a_place_that_cannot_be_written_is_an_error_at_once(tmp_path, where):
    with pytest.raises(OutputError, match="folder"):
        JsonlSink(tmp_path / where)
