import dataclasses
import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console
from support import made_up_session as fake

from ovavel.runtime.reporting.streams import READABLE
from ovavel.runtime.sinks.lines import LinesSink
from ovavel.runtime.sinks.terminal import TerminalSink
from ovavel.runtime.stats import Stats
from ovavel.runtime.types import Gap, Update

TESTS = Path(__file__).parents[2]


def run(sink, seconds=14, label="dog barking"):
    stats = Stats()
    sink.open(fake.INFO, stats)
    for i in range(seconds):
        gap = Gap(sense="vision", cause="camera lost", start_s=float(i), duration_s=1.0)
        missing = ("vision",) if i == 6 else ()
        if missing:
            stats.gap(gap)
            stats.window_dropped("late")
        before = {"missing_before": ("vision",) if i == 7 else ()}
        stats.window_done(0.6)
        stats.timings.add("latency", 800.0 + i)
        news = [fake.event(1, label, 2.0, 3.0, "start")] if i == 2 else []
        news += [fake.event(1, label, 2.0, 6.0), fake.event(2, label, 7.0, 8.0, "retract")] if i == 8 else []
        news += [fake.event(3, label, 9.0, 10.0, "start")] if i == 9 else []
        sink.write(fake.update(i, label, events=news, gaps=(gap,) if missing else (), missing=missing, **before))
    sink.write(fake.notice("camera lost, trying again in 2 s", 13.0))
    return stats


def test_lines_show_events_gaps_status_and_a_summary():
    stream = io.StringIO()
    sink = LinesSink(stream)
    run(sink)
    sink.write(Update(window=None, scores=(), events=(), latency_ms=None))
    sink.close()
    sink.close()
    reported = stream.getvalue().splitlines()
    assert "00:02.0  start    dog barking  margin 0.41" in reported
    assert "00:02.0  end      dog barking  margin 0.41  until 00:06.0" in reported
    assert "00:07.0  retract  dog barking  margin 0.41" in reported
    assert "00:06.0  gap      camera lost (vision)  1.0 s" in reported
    assert "00:13.0  notice   camera lost, trying again in 2 s" in reported
    assert reported[-2:] == [
        "summary  14 windows, real-time factor 0.60, latency p50 806  p95 813  p99 813 ms",
        "         dropped: 1 late; gaps: 1.0 s camera lost",
    ]


def test_lines_stay_lines_whatever_a_name_holds_and_the_stream_can_encode():
    raw = io.BytesIO()
    sink = LinesSink(io.TextIOWrapper(raw, encoding="ascii"))
    sink.open(dataclasses.replace(fake.INFO, source="a\nb\x1b[31m \udcff"), Stats())
    sink.write(Update(window=None, scores=(), events=(fake.event(1, "Glück\r\n", 0, 1),), latency_ms=None))
    assert raw.getvalue().count(b"\n") == 4
    assert b"\x1b" not in raw.getvalue()
    assert rb"Gl\xfcck" in raw.getvalue()


@pytest.mark.parametrize(("width", "height"), [(60, 24), (80, 24), (100, 24), (140, 50)])
def test_the_view_fits_and_shows_everything(width, height):
    file = io.StringIO()
    sink = TerminalSink(Console(file=file, width=width, height=height, no_color=True))
    run(sink)
    with sink._console.capture() as capture:
        sink._console.print(sink.render())
    view = capture.get()
    lines = view.splitlines()
    assert len(lines) <= height
    assert max(map(cell_len, lines)) <= width
    for text in ("clip.mp4", "imagebind-huge", "dog barking", "not seen", "p50 806", "×0.60", "1 late", "camera lost"):
        assert text in view
    for text in ("CC-BY-NC-SA-4.0", "CPUExecutionProvider, fp32"):
        assert text in view
    for text in ("now", "over", "retracted", "seen", "heard"):
        assert text in view
    assert any(mark in view for mark in "▂▃▄▅▆▇█")
    assert "▒" in view or "▓" in view, "what may change looks otherwise than what is final, without colour too"


def test_the_view_copes_with_ascii_terminals_and_hostile_names():
    raw = io.BytesIO()
    labels = ("[bold]dog[/bold] \x1b[31mß", "ß" * 70, *fake.LABELS[2:])
    sink = TerminalSink(Console(file=io.TextIOWrapper(raw, encoding="ascii"), width=80, height=24, force_terminal=True))
    info = dataclasses.replace(fake.INFO, labels=labels)
    sink.open(info, Stats())
    scores = (dataclasses.replace(fake.segment(0, "dog barking"), label=labels[0]),)
    sink.write(Update(window=fake.window(0), scores=scores, events=(), latency_ms=None))
    sink.write(Update(window=None, scores=(), events=(fake.event(1, labels[1], 0, 1),), latency_ms=None))
    view = sink._console.render_lines(sink.render(), pad=False)
    assert max(sum(len(segment.text.encode("ascii", READABLE)) for segment in line) for line in view) <= 80
    sink.close()
    sink._console.file.flush()
    assert rb"[bold]dog[/bold] \x1b" in raw.getvalue().replace(b"\x1b[1m", b"")


def test_close_and_every_other_way_out_give_the_screen_back():
    code = f"""
import sys; sys.path.insert(0, {str(TESTS)!r})
from support import made_up_session as fake
from ovavel.runtime.sinks.terminal import TerminalSink
from ovavel.runtime.stats import Stats
sink = TerminalSink(); sink.open(fake.INFO, Stats()); sink.write(fake.update(0, "dog barking"))
if sys.argv[1] == "close":
    sink.close(); sink.close()
else:
    raise SystemExit(3)
"""
    for way in ("close", "exit"):
        ours, theirs = pty.openpty()
        environment = {**os.environ, "TERM": "xterm-256color"}
        process = subprocess.Popen([sys.executable, "-c", code, way], stdout=theirs, stderr=theirs, env=environment)
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 65536):
                shown += chunk
        except OSError:
            pass
        process.wait(100)
        os.close(ours)
        assert b"Traceback" not in shown
        assert shown.count(b"\x1b[?1049h") == shown.count(b"\x1b[?1049l") == 1
        assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")


def test_the_view_draws_five_times_a_second_at_most(monkeypatch):
    sink = TerminalSink(Console(file=io.StringIO(), width=80, height=24, force_terminal=True))
    drawn = []
    sink.open(fake.INFO, Stats())
    monkeypatch.setattr(sink._live, "refresh", lambda: drawn.append(1))
    for i in range(50):
        sink.write(fake.update(i, "dog barking"))
    assert len(drawn) <= 3
    sink.close()
