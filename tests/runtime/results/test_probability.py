"""Probabilities are shown wherever a decision or an event is, and nowhere where there is none."""

import csv
import dataclasses
import io

import msgspec
import pytest
from rich.console import Console
from support import made_up_session as fake

from ovavel.runtime.results.document import read_json, to_json
from ovavel.runtime.results.html import to_html
from ovavel.runtime.results.svg import to_svg
from ovavel.runtime.results.tables import to_csv
from ovavel.runtime.sinks.jsonl import JsonlSink
from ovavel.runtime.sinks.lines import LinesSink
from ovavel.runtime.sinks.records import EventRecord, Record, SegmentRecord
from ovavel.runtime.sinks.terminal import TerminalSink
from ovavel.runtime.stats import Stats


def calibrated(localization):
    """Give every second that has both senses a probability, and every event one."""
    replace = dataclasses.replace
    scores = tuple(replace(s, probability=None if s.missing else 0.625) for s in localization.scores)
    events = tuple(replace(event, peak_probability=0.875) for event in localization.events)
    return replace(localization, scores=scores, events=events)


def one_second(probability):
    update = fake.update(0, "dog barking", events=[fake.event(1, "dog barking", 0.0, 1.0, "start")])
    return dataclasses.replace(
        update,
        scores=tuple(dataclasses.replace(s, probability=probability, final=True) for s in update.scores),
        events=tuple(dataclasses.replace(e, peak_probability=probability) for e in update.events),
    )


def test_files_of_a_calibrated_recording_contain_it(tmp_path):
    localization = calibrated(fake.recording(24))
    (tmp_path / "x.json").write_bytes(to_json(localization))
    document = read_json(tmp_path / "x.json")
    assert [s.probability for s in document.segments] == [None if s.missing else 0.625 for s in document.segments]
    assert {event.peak_probability for event in document.events} == {0.875}
    rows = list(csv.DictReader(io.StringIO(to_csv(localization).decode())))
    assert {row["peak_probability"] for row in rows} == {"0.875"}
    assert ">best probability<" in (page := to_html(localization).decode())
    assert "<td>0.88</td>" in page
    assert "probability 0.88" in to_svg(localization).decode()


def test_files_of_an_uncalibrated_recording_do_not_speak_of_it(tmp_path):
    localization = fake.recording(24)
    (tmp_path / "x.json").write_bytes(to_json(localization))
    document = read_json(tmp_path / "x.json")
    assert {s.probability for s in document.segments} == {e.peak_probability for e in document.events} == {None}
    for write in (to_csv, to_html, to_svg):
        assert b"probability" not in write(localization)


@pytest.mark.parametrize("probability", [0.625, None])
def test_json_lines_hold_it_or_null(tmp_path, probability):
    sink = JsonlSink(tmp_path / "news.jsonl")
    sink.open(fake.INFO, Stats())
    sink.write(one_second(probability))
    sink.close()
    reported = [msgspec.json.decode(line, type=Record) for line in (tmp_path / "news.jsonl").read_bytes().splitlines()]
    assert [r.probability for r in reported if isinstance(r, SegmentRecord)] == [probability]
    assert [r.peak_probability for r in reported if isinstance(r, EventRecord)] == [probability]


@pytest.mark.parametrize("width", [80, 120])
def test_views_show_it_where_there_is_one(width):
    for probability, lines_say, view_says in (
        (0.625, "probability 0.62", "62% probable"),
        (None, "margin 0.41", "0.41"),
    ):
        stream = io.StringIO()
        lines = LinesSink(stream)
        lines.open(fake.INFO, Stats())
        lines.write(one_second(probability))
        assert lines_say in stream.getvalue()
        assert ("probability" in stream.getvalue()) == (probability is not None)
        console = Console(file=io.StringIO(), width=width, height=40, force_terminal=False)
        view = TerminalSink(console)
        view.open(fake.INFO, Stats())
        view.write(one_second(probability))
        console.print(view.render())
        view.close()
        assert view_says in console.file.getvalue()
        assert ("probable" in console.file.getvalue()) == (probability is not None)
