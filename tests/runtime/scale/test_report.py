"""The report over a folder of results, with records and without."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest
from support.scaled import BUNDLE, REQUEST

from ovavel.runtime.cli import main
from ovavel.runtime.errors import InputError
from ovavel.runtime.results import read_json
from ovavel.runtime.scale.done import Done, EventSum, Failed, ResultFolder, Summary
from ovavel.runtime.scale.report import FolderReport, read_folder, to_html, to_json

CLIP = BUNDLE.parent / "clip.mp4"
HOSTILE = "<script>alert(1)</script>\u202e"


def record(key: str, name: str, **changes: object) -> Done:
    events = {"dog": EventSum(count=2, duration_s=30.0), HOSTILE: EventSum(count=1, duration_s=5.0)}
    summary = Summary(duration_s=1800.0, events=events, lost_s={"audio: end of media": 1.5})
    values = {"id": key, "recording": name, "request": REQUEST, "outputs": {}, "summary": summary, **changes}
    return Done(**values)  # type: ignore[arg-type]


def write(folder: ResultFolder, *records: Done | Failed) -> None:
    folder.prepare()
    for each in records:
        place = folder.place.path / ("done" if isinstance(each, Done) else "failed") / f"{each.id}.json"
        place.write_bytes(msgspec.json.encode(each))


def test_sums_are_over_all_records(tmp_path: Path) -> None:
    quiet = Summary(duration_s=3600.0, events={}, lost_s={"audio: end of media": 0.5})
    write(
        ResultFolder(tmp_path),
        record("a", "a.mp4", outputs={"x y/a.mp4.ovavel.html": "00"}),
        record("b", "b.mp4"),
        record("c", HOSTILE, summary=quiet, request=msgspec.structs.replace(REQUEST, lag=3)),
        Failed(id="d", recording="d.mp4", cause="no decoder <b>", attempts=2),
        Failed(id="e", recording="b.mp4", cause="it was half copied", attempts=1),
    )
    report = read_folder(tmp_path)
    assert (report.done, report.without_record, report.requests, report.hours) == (3, 0, 2, 2.0)
    assert [(row.recording, row.attempts) for row in report.failed] == [("d.mp4", 2)]
    dog, other = report.labels
    assert (dog.label, dog.events, dog.recordings, dog.duration_s, dog.events_per_hour) == ("dog", 4, 2, 60.0, 2.0)
    assert (other.label, other.events) == (HOSTILE, 2)
    assert (report.events, report.events_per_hour) == (6, 3.0)
    assert report.lost_s == {"audio: end of media": 3.5}
    assert msgspec.json.decode(to_json(report), type=FolderReport) == report
    shown = to_html(report, "Results").decode()
    assert HOSTILE not in shown
    assert "<b>" not in re.sub(r'<p class="facts">.*?</p>', "", shown)
    assert 'href="x%20y/a.mp4.ovavel.html"' in shown
    assert "2 different bundles or options" in shown
    assert "href" not in to_html(report, "Results", links=False).decode()


def test_of_two_contents_of_one_name_the_one_with_results_counts(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"{}")
    there = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    new = Summary(duration_s=7.0, events={}, lost_s={})
    for old_id, new_id in (("1", "2"), ("4", "3")):
        write(
            ResultFolder(tmp_path),
            record(old_id, "a.mp4", outputs={"a.csv": "00"}),
            record(new_id, "a.mp4", outputs={"a.csv": there}, summary=new),
        )
        report = read_folder(tmp_path)
        assert (report.done, report.recordings[0].duration_s) == (1, 7.0)
        for path in (tmp_path / "done").iterdir():
            path.unlink()


def test_results_without_records_are_read_themselves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    for number, more in enumerate(([], ["--shard", "0/1"])):
        options = ["--bundle", str(BUNDLE), "--out", str(out / str(number)), "--device", "cpu", *more]
        assert main(["localize", str(CLIP), *options, "--format", "json", "html"]) == 0
    (out / "1" / "broken.mp4.ovavel.json").write_text("{")
    capsys.readouterr()
    assert main(["report", str(out)]) == 0
    assert "2 recordings done, 1 failed" in capsys.readouterr().out
    report = json.loads((out / "report.json").read_text())
    document = read_json(out / "0" / "clip.mp4.ovavel.json")
    assert report["without_record"] == 2
    assert report["events"] == 2 * len(document.events)
    assert report["failed"][0]["recording"] == "1/broken.mp4"
    assert report["recordings"][0]["page"] == "0/clip.mp4.ovavel.html"
    page = (out / "report.html").read_text()
    assert "default-src 'none'" in page
    assert document.events[0].label in page
    before = (out / "report.html").read_bytes(), (out / "report.json").read_bytes()
    assert main(["report", str(out)]) == 0, "its own files are no results"
    assert before == ((out / "report.html").read_bytes(), (out / "report.json").read_bytes())
    assert main(["report", str(out / "1"), "--out", str(tmp_path / "new")]) == 0
    own = json.loads((tmp_path / "new" / "report.json").read_text())
    assert (own["done"], own["without_record"]) == (1, 0)


def test_a_folder_without_results_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="holds no results"):
        read_folder(tmp_path)
    assert main(["report", str(tmp_path / "gone")]) == 1
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "report.html")]) == 2
    assert not list(tmp_path.iterdir())
    assert "there is no folder" in capsys.readouterr().err
