"""Hostile texts through every place where something is written: sinks, results, consoles, JSON and errors."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import unicodedata
import xml.etree.ElementTree as ET

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text
from support import made_up_session as fake

from ovavel.runtime import cli
from ovavel.runtime.errors import MissingExtraError, OvavelError, PrecisionError
from ovavel.runtime.reporting.console import ErrorConsole, OutputConsole
from ovavel.runtime.results.document import to_json
from ovavel.runtime.results.html import to_html
from ovavel.runtime.results.subtitles import to_srt, to_vtt
from ovavel.runtime.results.svg import to_svg
from ovavel.runtime.results.tables import to_audacity, to_csv
from ovavel.runtime.sinks.as_json import to_json_bytes
from ovavel.runtime.sinks.jsonl import JsonlSink
from ovavel.runtime.sinks.lines import LinesSink
from ovavel.runtime.sinks.terminal import TerminalSink
from ovavel.runtime.sources.devices import Camera, Devices, Microphone
from ovavel.runtime.stats import Stats
from ovavel.runtime.types import Gap, Update

PIECES = (
    *("\x1b[31m", "\x1b]0;title\x07", "\x9b2J", "\r\n", "\n", "\u2028", "\x85", "\u202e", "\u2066", "\u200f", "\u061c"),
    *(
        "\t",
        "\0",
        "\x08",
        "\x7f",
        "\ufeff",
        "\U000e0041",
        "\udce4",
        "\ud800",
        "\ufffe",
        "<b>&\"'",
        "[bold]",
        "-->",
        "]]>",
    ),
    *("=1+1", "+1", "-1", "@x", "＝1", "{b}", "\U0001d173", "\U0001bca0"),
)
hostile = st.lists(st.sampled_from(PIECES) | st.text(st.characters(exclude_categories=()), max_size=4), min_size=1).map(
    lambda parts: "a".join(parts) + "z"
)
"""Pieces that steer, and anything else, between letters."""
STEERS = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
JOINERS = "\u200c\u200d"


def steering(text: str, *, lines: bool = True) -> list[str]:
    """What in `text` steers a terminal or the text around it; line ends are ours if `lines`."""
    visible = JOINERS + ("\n" if lines else "")
    return [c for c in text if unicodedata.category(c) in STEERS and c not in visible and not _shows(c)]


def _shows(character: str) -> bool:
    """Marks of format that have a shape of their own: Arabic and Syriac signs, Egyptian joiners."""
    name = unicodedata.name(character, "")
    return any(word in name for word in ("ARABIC", "SYRIAC", "KAITHI", "EGYPTIAN")) and "LETTER MARK" not in name


@given(hostile)
def test_no_sink_is_steered(text):
    labels = (text, *fake.LABELS[1:-1], text + "!")
    backend = dataclasses.replace(fake.INFO.backend, name=text, provider=text, device=text, versions={text: text})
    gate = dataclasses.replace(fake.INFO.gate) if dataclasses.is_dataclass(fake.INFO.gate) else fake.INFO.gate
    info = dataclasses.replace(
        fake.INFO, source=text, labels=labels, model=text, licence=text, backend=backend, gate=gate
    )
    scores = dataclasses.replace(fake.segment(0, "dog barking"), label=text)
    gap = Gap(sense="vision", cause=text, start_s=0.0, duration_s=1.0)
    update = dataclasses.replace(fake.update(0, gaps=(gap,)), scores=(scores,), events=(fake.event(1, text, 0, 1),))
    last = Update(window=None, scores=(), events=(), latency_ms=None)
    lines, console = io.StringIO(), OutputConsole(file=io.StringIO(), width=100, height=40, color_system=None)
    for sink in (LinesSink(lines), TerminalSink(console)):
        stats = Stats()
        stats.window_dropped(text)
        stats.gap(gap)
        sink._live = None
        if isinstance(sink, TerminalSink):
            sink._info, sink._stats = info, stats
        else:
            sink.open(info, stats)
        sink.write(update)
        sink.write(fake.notice(text))
        if isinstance(sink, TerminalSink):
            console.print(sink.render())
        sink.write(last)
        sink.close()
    assert steering(lines.getvalue()) == []
    assert len(lines.getvalue().splitlines()) == 8, "no line is forged"
    assert steering(console.file.getvalue()) == []


@given(text=hostile)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_record_of_a_jsonl_file_is_a_line(tmp_path, text):
    path = tmp_path / "x.jsonl"
    path.unlink(missing_ok=True)
    backend = dataclasses.replace(fake.INFO.backend, name=text, provider=text, versions={text: text})
    info = dataclasses.replace(
        fake.INFO, source=text, labels=(text, "other"), model=text, licence=text, backend=backend
    )
    sink = JsonlSink(path)
    stats = Stats()
    stats.window_dropped(text)
    sink.open(info, stats)
    scores = dataclasses.replace(fake.segment(0, text, labels=(text, "other")), label=text)
    sink.write(Update(window=fake.window(0), scores=(scores,), events=(fake.event(1, text, 0, 1),), latency_ms=None))
    sink.write(fake.notice(text))
    sink.write(Update(window=None, scores=(), events=(), latency_ms=None))
    sink.close()
    content = path.read_bytes().decode()
    assert steering(content) == []
    assert [json.loads(line)["type"] for line in content.splitlines()] == [
        *("session", "segment", "event", "notice", "summary")
    ]


@given(hostile)
def test_no_result_is_steered_or_broken(text):
    labels = (text, "other")
    backend = dataclasses.replace(fake.INFO.backend, name=text, provider=text)
    gap = Gap(sense="vision", cause=text, start_s=0.0, duration_s=1.0)
    made = fake.recording(
        *(3, labels),
        source=text,
        model=text,
        licence=text,
        notes=(text,),
        dropped={text: 1},
        gaps=(gap,),
        backend=backend,
        events=(fake.event(1, text, 0, 1),),
    )
    for write in (to_json, to_csv, to_audacity, to_srt, to_vtt, to_svg, to_html):
        written = write(made).decode()
        assert steering(written.replace("\t", "") if write is to_audacity else written) == []
    ET.fromstring(to_svg(made))
    assert json.loads(to_json(made))["events"][0]["id"] == f"{fake.INFO.id}-1"
    assert len(to_csv(made).decode().splitlines()) == 2
    assert len(to_audacity(made).decode().splitlines()) == 1
    assert len(to_srt(made).decode().splitlines()) == 4


FORMULAS = st.tuples(st.sampled_from([*"=+-@\t\r\n＝＋－＠", " =", "\t=", "\xa0+"]), st.text(max_size=20)).map("".join)


@given(FORMULAS)
def test_no_cell_is_a_formula(text):
    made = fake.recording(3, (text, "other"), events=(fake.event(1, text, 0, 1),))
    (_, row) = csv.reader(io.StringIO(to_csv(made).decode(), newline=""))
    cell = to_audacity(made).decode().rstrip("\n").split("\t")[2]
    for each in (row[2], cell):
        assert not re.match(r"\s*[=+\-@＝＋－＠\t\r]", each)


@given(hostile)
def test_no_console_is_steered(text):
    for kind in (OutputConsole, ErrorConsole):
        console = kind()
        console.file = io.StringIO()
        console.print(text, markup=False)
        table = Table("x", title=Text(text))
        table.add_row(Text(text))
        console.print(table)
        assert steering(console.file.getvalue().replace("\r", "")) == []


@given(hostile)
def test_json_takes_any_text_and_prints_it_unchanged(text):
    for indent in (0, 2):
        written = to_json_bytes({text: [text, {"x": (text,)}]}, indent=indent).decode()
        assert steering(written) == []
        ((key, (first, _)),) = json.loads(written).items()
        assert key == first


@given(hostile)
def test_no_list_of_devices_is_steered(text):
    found = Devices(
        cameras=(Camera(index=0, name=text),),
        microphones=(Microphone(index=0, name=text, channels=1, rate_hz=48_000, default=True),),
        problems=(text,),
    )
    assert steering(str(found)) == []
    assert len(str(found).splitlines()) == 5


def every_error(kind: type[OvavelError] = OvavelError) -> list[type[OvavelError]]:
    return [kind, *(each for below in kind.__subclasses__() for each in every_error(below))]


def raised(kind: type[OvavelError], text: str) -> OvavelError:
    if issubclass(kind, MissingExtraError):
        return kind(text, text, need=text)
    return kind(text, text, advice=text) if issubclass(kind, PrecisionError) else _plain(kind, text)


def _plain(kind: type[OvavelError], text: str) -> OvavelError:
    error = kind.__new__(kind)
    Exception.__init__(error, text)
    return error


@given(hostile, st.sampled_from(every_error()))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_error_is_one_line_that_steers_nothing(capsys, text, kind):
    def fail(_: list[str]) -> int:
        raise raised(kind, f"{text} of http://user:hushhush@host/x?token=hushhush")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "_dispatch", fail)
        assert cli.main(["x"]) == kind.exit_code
    said = capsys.readouterr().err
    assert said.startswith("ovavel: ")
    assert said.endswith("\n")
    assert len(said.splitlines()) == 1
    assert steering(said) == []
    assert "hushhush" not in said
