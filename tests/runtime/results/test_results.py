import csv
import io
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from support import made_up_session as fake

from ovavel.runtime.errors import InputError, OutputError, UsageError
from ovavel.runtime.reporting.text import cell, clock, counts, one_line, timestamp
from ovavel.runtime.results import FORMATS, read_json, result_paths, thumbnail, write_results
from ovavel.runtime.results.document import to_json
from ovavel.runtime.results.html import to_html
from ovavel.runtime.results.subtitles import to_srt, to_vtt
from ovavel.runtime.results.summary import missing_runs
from ovavel.runtime.results.svg import to_svg
from ovavel.runtime.results.tables import to_audacity, to_csv
from ovavel.runtime.system.files import atomic_write

SVG = "{http://www.w3.org/2000/svg}"
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&-->,\t\n--> {b}"
names = st.text(min_size=1, max_size=40).filter(lambda name: one_line(name) not in ("", "other"))
times = st.floats(0, 1e6)


class Page(HTMLParser):
    """Collects elements and text; scripts come whole."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.texts = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append((self.elements[-1] if self.elements else None, data))

    def data(self):
        return json.loads(next(text for element, text in self.texts if element and element[1].get("id") == "data"))


@pytest.fixture(scope="session")
def one_event():
    def make(label, start_s=1.0, end_s=2.0):
        labels = (label, "other")
        return fake.recording(3, labels=labels, events=(fake.event(1, label, start_s, end_s),))

    return make


@given(times)
def test_timestamps_read_back_to_the_millisecond(time_s):
    hours, minutes, seconds = timestamp(time_s).split(":")
    assert abs(int(hours) * 3600 + int(minutes) * 60 + float(seconds) - time_s) <= 0.0005 + 1e-9
    assert int(minutes) < 60
    assert re.fullmatch(r"\d\d\.\d{3}", seconds)


def test_times_carry_over():
    assert timestamp(59.9996) == "00:01:00.000"
    assert timestamp(100 * 3600, ",") == "100:00:00,000"
    assert (clock(59.96), clock(3599.99), clock(7, 0)) == ("01:00.0", "1:00:00.0", "00:07")
    assert counts({"late": 2, "camera lost": 3.25}, " s") == "3.2 s camera lost, 2 s late"
    assert counts({}) == "none"


@given(names, times, times)
@example("0", 0.0015, 0.0)
def test_subtitles_hold_one_cue_whatever_the_name(one_event, label, start_s, end_s):
    localization = one_event(label, start_s, end_s)
    for text, pattern in (
        (
            to_vtt(localization).decode(),
            r"WEBVTT\n\n(\d\d+:\d\d:\d\d\.\d{3}) --> (\d\d+:\d\d:\d\d\.\d{3})\n([^\n]+)\n\n",
        ),
        (to_srt(localization).decode(), r"1\n(\d\d+:\d\d:\d\d,\d{3}) --> (\d\d+:\d\d:\d\d,\d{3})\n([^\n]+)\n\n"),
    ):
        start, end, name = re.fullmatch(pattern, text).groups()
        assert (len(end), end) > (len(start), start)
        assert not set(name) & set("<>\r\t")


@given(names)
def test_tables_keep_to_their_columns_whatever_the_name(one_event, label):
    localization = one_event(label)
    rows = list(csv.reader(io.StringIO(to_csv(localization).decode(), newline="")))
    assert rows[0] == ["start_s", "end_s", "label", "peak_score", "peak_margin"]
    assert rows[1] == ["1.0", "2.0", cell(label), "0.93", "0.41"]
    (line,) = to_audacity(localization).decode().split("\n")[:-1]
    assert line.split("\t") == ["1.000000", "2.000000", cell(one_line(label))]


@given(names)
def test_pictures_and_pages_parse_whatever_the_name(one_event, label):
    localization = one_event(label)
    titles = [element.text for element in ET.fromstring(to_svg(localization)).iter(f"{SVG}title")]
    assert one_line(label) in titles
    page = Page(to_html(localization).decode())
    assert page.data()["rows"][0]["label"] == one_line(label)


def test_a_page_runs_no_script_of_a_name(one_event):
    localization = fake.recording(3, labels=(EVIL, "other"), source=EVIL, model=EVIL, licence=EVIL)
    page = Page(to_html(localization).decode())
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 2
    assert "img" not in tags
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert one_line(EVIL) in [text for _, text in page.texts]
    assert page.data()["rows"][0]["label"] == one_line(EVIL)
    ET.fromstring(to_svg(localization))


def test_a_page_needs_no_network_and_shows_what_there_is():
    picture = thumbnail(np.zeros((90, 160, 3), np.uint8))
    localization = fake.recording(32, picture=lambda index: picture)
    text = to_html(localization).decode()
    page = Page(text)
    assert not re.search(r"""(src|href)\s*=\s*["']?(?!data:)\w+:""", text)
    assert [a["data-event"] for tag, a in page.elements if tag == "tr" and "data-event" in a] == ["1", "2", "3"]
    data = page.data()
    assert (data["bins"], len(data["thumbnails"]), data["bin_s"]) == (32, 32, 1.0)
    assert data["rows"][-1]["label"] == "other"
    assert len({row["label"] for row in data["rows"]}) == len(data["rows"])
    dog = data["rows"][0]
    assert dog["score"][0] == pytest.approx(1000, abs=1)
    assert dog["seen"][9] is None
    assert dog["score"][9] is None
    assert dog["heard"][9] is not None
    for text in ("imagebind-huge", "CC-BY-NC-SA-4.0", "cpu, onnxruntime CPUExecutionProvider", "mynah bird singing"):
        assert text in [found for _, found in page.texts]


def test_long_recordings_stay_small():
    picture = b"x" * 3000
    localization = fake.recording(3 * 3600, picture=lambda index: picture)
    page = to_html(localization)
    data = Page(page.decode()).data()
    assert (data["bins"], data["bin_s"]) == (5400, 2.0)
    assert len(data["thumbnails"]) <= 200
    assert len(page) < 3e6


@pytest.mark.parametrize("seconds", [0, 1, 5, 32, 1200, 10_000])
def test_the_timeline_fits_recordings_of_any_length(seconds):
    localization = fake.recording(seconds)
    root = ET.fromstring(to_svg(localization))
    width = float(root.get("viewBox").split()[2])
    bars = [rect for rect in root.iter(f"{SVG}rect") if rect.get("class") == "ov-event"]
    assert len(bars) == len(localization.events)
    for rect in root.iter(f"{SVG}rect"):
        assert float(rect.get("x", 0)) + float(rect.get("width")) <= width
    ticks = [text for text in root.iter(f"{SVG}text") if text.get("text-anchor") == "middle"]
    assert 2 <= len(ticks) <= 12
    Page(to_html(localization).decode()).data()


def test_missing_senses_are_joined_into_runs():
    assert list(missing_runs(fake.recording(32))) == [("vision", 9.0, 11.0), ("vision", 21.0, 23.0)]


def test_json_reads_back(tmp_path):
    localization = fake.recording(32, dropped={"late": 2}, trailing_s=0.4)
    (path,) = write_results(localization, tmp_path / "new" / "folder", ["json"])
    document = read_json(path)
    assert document.source == localization.info.source
    assert document.session_id == localization.info.id
    assert [e.id for e in document.events] == [f"{document.session_id}-{e.id}" for e in localization.events]
    assert (document.lag, document.fusion, document.channel, document.rules["bridge_s"]) == (5, "positive", "auto", 1.0)
    assert document.labels == localization.info.labels
    assert [(e.label, e.start_s, e.end_s) for e in document.events] == [
        (e.label, e.start_s, e.end_s) for e in localization.events
    ]
    assert [second.label for second in document.segments] == [second.label for second in localization.scores]
    assert document.segments[9].missing == ("vision",)
    assert document.segments[9].classes[0].vision_similarity is None
    assert (document.dropped, document.trailing_s, len(document.gaps)) == ({"late": 2}, 0.4, 2)


@pytest.mark.parametrize("text", ["", "[]", '{"type":"ovavel.localization"}', "\udcff"])
def test_what_is_no_such_json_is_refused(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match="is not a JSON file of"):
        read_json(path)


def test_another_version_of_the_json_is_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(to_json(fake.recording(1)).replace(b'"format_version":1', b'"format_version":9'))
    with pytest.raises(InputError, match="format version 9"):
        read_json(path)


def test_every_format_is_written_under_the_announced_name(tmp_path):
    paths = write_results(fake.recording(32), tmp_path, FORMATS)
    assert paths == result_paths("clips/dog & car.mp4", tmp_path, FORMATS)
    assert [path.name for path in paths] == [
        f"dog & car.mp4.ovavel.{suffix}" for suffix in ("json", "csv", "srt", "vtt", "txt", "svg", "html")
    ]
    assert sorted(tmp_path.iterdir()) == sorted(paths), "nothing is left beside them"


@pytest.mark.parametrize(
    "source", ["rtsp://host:554/a/b?c=d|e", "x" * 300 + ".mp4", "\udcff\n.mp4", "/", "..", "é" * 150]
)
def test_file_names_suit_any_source(tmp_path, source):
    (path,) = write_results(fake.recording(2, source=source), tmp_path, ["svg"])
    assert path.parent == tmp_path
    assert path.exists()


def test_an_unknown_format_writes_nothing(tmp_path):
    with pytest.raises(UsageError, match="'xls'; choose from json"):
        write_results(fake.recording(2), tmp_path / "out", ["json", "xls"])
    assert not (tmp_path / "out").exists()


def test_a_file_that_cannot_be_written_is_as_it_was(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with pytest.raises(OutputError, match="choose an existing folder"):
        atomic_write(tmp_path / "missing" / "x", b"new")
    with pytest.raises(OutputError, match="part of this path is a file"):
        atomic_write(path / "x", b"new")
    code = f"""
import resource; from pathlib import Path
from ovavel.runtime.errors import OutputError
from ovavel.runtime.system.files import atomic_write
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try: atomic_write(Path({str(path)!r}), b"x" * 5000)
except OutputError as error: print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"cannot write {path}: File too large")
    assert path.read_bytes() == b"old"
    assert list(Path(tmp_path).iterdir()) == [path]
    atomic_write(path, b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize(("shape", "size"), [((2160, 3840), (160, 90)), ((640, 360), (90, 160)), ((3, 5), (5, 3))])
def test_thumbnails_are_small_jpegs(shape, size):
    frame = np.full((*shape, 3), (200, 40, 90), np.uint8)
    data = thumbnail(frame)
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.size) == ("JPEG", size)
    assert np.abs(np.asarray(image).astype(int) - (200, 40, 90)).max() < 12
