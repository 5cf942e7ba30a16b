"""`ovavel demo`: with the files that ship, and with a small world of its own that stands for any other."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from conftest import NAMES
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from support import pulse
from support.http_station import JpegCamera
from support.media_factory import make_clip

from ovavel.eval.accuracy.metrics import Scores
from ovavel.eval.demo.assets import Assets, Truth
from ovavel.eval.demo.comparison import Comparison, compare
from ovavel.eval.demo.play import ENOUGH_EVE, play_clip
from ovavel.eval.demo.report import to_html
from ovavel.eval.demo.terminal import side_by_side
from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.cli import main
from ovavel.runtime.errors import DatasetError, OutputError, UsageError
from ovavel.runtime.results import FORMATS, Localization, read_json, result_paths
from ovavel.runtime.results.recording import localize_recording
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.types import Event

SECONDS = 12
SHIPPED = Path(__file__).parents[3] / "eval" / "demo" / "assets"
MIB = 2**20

WITHOUT_TORCH = """
import sys

class Missing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("torch", "onnx", "onnxscript"):
            raise ModuleNotFoundError(name=name)

sys.meta_path.insert(0, Missing())
"""
PLAY = """
import sys
from pathlib import Path
from ovavel.eval.demo import assets
assets.Assets.open.__func__.__defaults__ = (Path(sys.argv.pop(1)),)
from ovavel.runtime.cli import main
raise SystemExit(main(["demo", *sys.argv[1:]]))
"""


@pytest.fixture(scope="module")
def localization(exported_bundle: Path, clip: Path) -> Localization:
    """What the tiny model makes of the clip."""
    bundle = Bundle.open(exported_bundle)
    backend = open_backend(bundle, device="cpu")
    return localize_recording(bundle, MediaSource(clip), backend=backend)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    noise = np.random.default_rng(0).standard_normal((1, 16_000 * SECONDS)).astype(np.float32) / 8
    path = tmp_path_factory.mktemp("demo") / "clip.mp4"
    return make_clip(path, duration_s=SECONDS, fps=5, waveform=noise, codec="libx264")


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, exported_bundle: Path, clip: Path, localization: Localization
) -> Path:
    """A folder of assets whose truth is what the tiny model says."""
    folder = tmp_path_factory.mktemp("world")
    shutil.copytree(exported_bundle, folder / "bundle")
    shutil.copyfile(clip, folder / "clip.mp4")
    labels = tuple("" if label == "other" else label for label in (s.label for s in localization.scores))
    write_truth(folder, labels=labels)
    return folder


def write_truth(folder: Path, **changes: Any) -> None:
    fields = {"names": NAMES, "duration_s": float(SECONDS), "labels": ("",) * SECONDS} | changes
    (folder / "truth.json").write_bytes(msgspec.json.encode(Truth(**fields)))


def demo(world: Path, *arguments: object, prelude: str = "", **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", prelude + PLAY, str(world), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


class TestShipped:
    def test_it_is_small_and_whole(self) -> None:
        assets = Assets.open()
        assert assets.bundle.path == SHIPPED / "bundle"
        assert sum(file.stat().st_size for file in assets.bundle.path.iterdir()) <= 6 * MIB
        assert assets.clip.stat().st_size <= 2 * MIB
        assert len(assets.truth.labels) == 40
        assert len(assets.bundle.vocabulary) - 1 >= 48

    def test_its_clip_is_what_a_browser_plays(self) -> None:
        import av

        with av.open(str(SHIPPED / "clip.mp4")) as container:
            assert container.duration / 1e6 == pytest.approx(40, abs=0.2)
            assert [stream.codec_context.name for stream in container.streams] == ["h264", "aac"]
            assert container.streams.video[0].pix_fmt == "yuv420p"

    def test_its_events_match_the_truth_without_torch(self, tmp_path: Path) -> None:
        process = demo(SHIPPED, "--fast", "--out", tmp_path / "out", prelude=WITHOUT_TORCH)
        out, err = process.communicate(timeout=100)
        assert (process.returncode, err) == (0, "")
        assert "do not match" not in out
        document = json.loads((tmp_path / "out" / "demo.json").read_bytes())
        assert document["seconds"] == 40
        assert document["scores"]["eve"] >= ENOUGH_EVE >= 0.7

    def test_its_licence_lets_it_be_shipped(self) -> None:
        assert "NC" not in Assets.open().bundle.manifest.model.licence


def test_it_writes_all_results_and_ends_with_the_truth(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "out"
    assert play_clip(Assets.open(world), out, fast=True) == 0
    said = capsys.readouterr().out
    truth = Assets.open(world).truth.labels
    assert f"{SECONDS} of {SECONDS} seconds right" in said
    assert "Acc. 100.0   Seg. 100.0   Eve. 100.0" in said
    assert "✗" not in said
    assert said.count("✓") >= SECONDS
    for label in set(truth) - {""}:
        assert label in said
    assert "knows nothing of the real world" in said
    assert said.count("ovavel demo --camera") == 1
    assert "do not match" not in said
    document = json.loads((out / "demo.json").read_bytes())
    assert document["scores"] == {"acc": 1, "seg": 1, "eve": 1, "avg": 1}
    reported = [s["reported"] for s in document["stretches"] for _ in range(round(s["end_s"] - s["start_s"]))]
    assert reported == list(truth)
    results = read_json(result_paths(out / "clip.mp4", out, ["json"])[0])
    assert len(results.segments) == SECONDS
    assert all(path.is_file() for path in result_paths(out / "clip.mp4", out, FORMATS))
    assert Bundle.open(out / "bundle").sha256 == Bundle.open(world / "bundle").sha256
    assert {path.name.split(".")[0] for path in out.iterdir()} == {"bundle", "clip", "demo"}


def test_a_bad_match_is_reported_plainly(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = Assets.open(world).truth.labels
    folder = shutil.copytree(world, tmp_path / "world")
    other = dict(zip((*NAMES, ""), ("", *NAMES), strict=True))
    write_truth(folder, labels=tuple(other[label] for label in truth))
    assert play_clip(Assets.open(folder), tmp_path / "out", fast=True) == 0
    said = capsys.readouterr().out
    assert "do not match the truth: Eve. 0.0" in said
    assert f"0 of {SECONDS} seconds right" in said


def test_a_bundle_with_the_users_own_names_is_kept(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert play_clip(Assets.open(world), out, fast=True) == 0
    assert main(["vocab", "add", "--bundle", str(out / "bundle"), "glass breaking"]) == 0
    changed = Bundle.open(out / "bundle").sha256
    assert play_clip(Assets.open(world), out, fast=True) == 0
    assert Bundle.open(out / "bundle").sha256 == changed
    assert json.loads((out / "demo.json").read_bytes())["right_s"] == SECONDS  # the shipped one plays


def test_an_unwritable_folder_is_reported_before_playing(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ovavel.eval.demo.play.MediaSource", lambda *_, **__: pytest.fail("it plays"))
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match=r"cannot write .*file"):
            play_clip(Assets.open(world), out)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_plays_live_and_stops_when_asked(world: Path, tmp_path: Path, number: signal.Signals) -> None:
    process = demo(world, "--out", tmp_path / "out", bufsize=1)
    assert process.stdout is not None
    for line in process.stdout:
        if "  start  " in line:
            break
    process.send_signal(number)
    out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (130, "")
    assert re.search(rf"Stopped after \d of {SECONDS} seconds", out)
    assert not list((tmp_path / "out").glob("*.html"))


def test_a_terminal_gets_the_live_view_and_then_the_table(world: Path, tmp_path: Path) -> None:
    parent, child = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "60", "LINES": "30"}
    command = [sys.executable, "-c", PLAY, str(world), "--fast", "--out", str(tmp_path / "out")]
    process = subprocess.Popen(command, stdin=child, stdout=child, stderr=child, env=environment)
    os.close(child)
    screen = b""
    try:
        while data := os.read(parent, 65536):
            screen += data
    except OSError:  # the other end is closed
        pass
    os.close(parent)
    assert process.wait(100) == 0
    live, _, after = screen.decode().rpartition("\x1b[?1049l")
    assert "\x1b[?1049h" in live
    assert f"{SECONDS} of {SECONDS} seconds right" in after
    assert "Traceback" not in after


def test_the_camera_is_watched_with_a_warning(world: Path, tmp_path: Path) -> None:
    camera = JpegCamera()
    with pulse.null_sink(tmp_path) as server:
        process = demo(world, "--camera", camera.url, env=server.environment, cwd=tmp_path, bufsize=1)
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if "  notice  " in line:
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=100)
    camera.stop()
    assert (process.returncode, err) == (0, "")
    before, _, after = (said + out).partition("ready    ")
    assert "knows nothing but its own made-up world" in before
    assert all(name in before for name in NAMES)
    assert "nothing of the real world" in after
    assert "knows only its own world" in out.splitlines()[-1]
    assert not (tmp_path / "demo-out").exists()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_poor_terminal_is_enough(world: Path, tmp_path: Path, encoding: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "30"}
    process = demo(world, "--fast", "--out", tmp_path / "out", env=environment, encoding=encoding)
    out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, "")
    assert f"{SECONDS} of {SECONDS} seconds right" in out


def test_a_reader_that_leaves_ends_it_quietly(world: Path, tmp_path: Path) -> None:
    process = demo(world, "--out", tmp_path / "out")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, "")
    assert not list((tmp_path / "out").glob("*.html")), "it did not play to the end"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--microphone", "1"], 2, "--camera"),
        (["--camera", "--fast"], 2, "--fast"),
        (["--camera", "--out", "x"], 2, "--out"),
        (["--camera", "0", "1"], 2, "one camera"),
        (["--camera", "97"], 1, "camera"),
        (["--camera", "http://127.0.0.1:9/nothing"], 1, "127.0.0.1"),
    ],
)
def test_errors_are_one_line(world: Path, arguments: list[str], code: int, message: str) -> None:
    process = demo(world, *arguments)
    _, err = process.communicate(timeout=100)
    assert process.returncode == code, err
    assert message in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_assets_that_do_not_belong_together_are_refused(world: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(world, tmp_path / "world")
    for changes, what in (
        ({"labels": ("",) * 3}, "3 labels"),
        ({"labels": ("unheard of",) * SECONDS}, "names differ"),
        ({"names": NAMES[:2]}, "names differ"),
        ({"notes": ("heard, but out of sight",)}, "1 notes"),
    ):
        write_truth(folder, **changes)
        with pytest.raises(DatasetError, match=what):
            Assets.open(folder)
    write_truth(folder, names=(*NAMES, "other"))
    Assets.open(folder)
    (folder / "truth.json").write_text('{"more": ' + "[" * 100_000)
    with pytest.raises(DatasetError, match=r"truth\.json cannot be read"):
        Assets.open(folder)
    (folder / "truth.json").write_text("[]")
    with pytest.raises(DatasetError, match=r"truth\.json cannot be read"):
        Assets.open(folder)
    (folder / "clip.mp4").unlink()
    with pytest.raises(DatasetError, match=r"no .*clip\.mp4\. Install ovavel again"):
        Assets.open(folder)


def spans(localization: Localization, *spans: tuple[str, float, float]) -> Localization:
    """`localization` with other events, and every second decided as the background."""
    events = (
        Event(id=n, label=label, start_s=a, end_s=b, peak_score=1, peak_margin=1, state="end", vocabulary_version="")
        for n, (label, a, b) in enumerate(spans)
    )
    scores = tuple(replace(scores, label="other") for scores in localization.scores)
    return replace(localization, events=tuple(events), scores=scores)


def test_seconds_belong_to_the_reported_event(localization: Localization) -> None:
    dog, car, bird = NAMES
    reported = spans(localization, (dog, 0, 4), (car, 2, 3), (bird, 6, 7))
    scores = list(reported.scores)
    scores[2] = replace(scores[2], label=car)  # a pause that dog bridges
    scores[9] = replace(scores[9], label=bird)  # too weak to be reported
    truth = (dog, dog, car, dog, *[""] * (SECONDS - 4))
    comparison = compare(replace(reported, scores=tuple(scores)), truth)
    assert comparison.reported == (dog, dog, car, dog, "", "", bird, *[""] * (SECONDS - 7))
    assert comparison.right_s == SECONDS - 1
    assert comparison.scores.acc == pytest.approx((SECONDS - 1) / SECONDS)
    # dog, car and the two pauses of the background are found; a bird is reported where none is
    assert comparison.scores.eve == pytest.approx((1 + 1 + 2 / 3 + 0) / 4)
    assert [(s.start_s, s.end_s, s.right) for s in comparison.stretches][-2:] == [(6, 7, False), (7, SECONDS, True)]
    with pytest.raises(UsageError, match="12 seconds were decided on"):
        compare(reported, truth[:-1])


LABELS = st.lists(st.tuples(st.sampled_from(["", *NAMES]), st.sampled_from(["", *NAMES])), min_size=1, max_size=130)


@given(seconds=LABELS, with_notes=st.booleans(), width=st.integers(1, 200))
def test_stretches_and_strip_hold_every_second_once(
    seconds: list[tuple[str, str]], with_notes: bool, width: int
) -> None:
    truth, reported = zip(*seconds, strict=True)
    notes = tuple(str(n // 3) for n in range(len(truth))) if with_notes else ()
    comparison = Comparison(truth=truth, reported=reported, notes=notes, scores=Scores(0, 0, 0, 0), dropped=0)
    stretches = comparison.stretches
    assert [s.start_s for s in stretches] == [0, *(s.end_s for s in stretches[:-1])]
    for name, labels in (("truth", truth), ("reported", reported)):
        parts = [getattr(s, name) for s in stretches for _ in range(round(s.end_s - s.start_s))]
        assert parts == list(labels)
    assert sum(s.end_s - s.start_s for s in stretches if s.right) == comparison.right_s
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(side_by_side(comparison, console))
    lines = console.export_text().splitlines()
    if width >= 21:
        for title, labels in (("truth", truth), ("ovavel", reported)):
            strip = "".join(line.split()[1] for line in lines if re.match(rf"  {title} +[A-D·]+$", line))
            key = dict(zip(comparison.labels, "ABCD", strict=False)) | {"": "·"}
            assert strip == "".join(key[label] for label in labels)


class Page(HTMLParser):
    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.tags: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.outside += [value for name, value in attrs if name in ("src", "poster", "data") and value]


def test_the_page_needs_nothing_else_and_escapes_names(localization: Localization, clip: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    labels = (evil, *localization.info.labels[1:])
    reported = replace(spans(localization, (evil, 0, 5)), info=replace(localization.info, labels=labels))
    comparison = compare(reported, (evil,) * 4 + ("",) * (SECONDS - 4), (evil,) * SECONDS)
    page = to_html(comparison, reported, clip)
    parsed = Page(page)
    assert "img" not in parsed.tags
    assert [link[:22] for link in parsed.outside] == ["data:video/mp4;base64,"]
    assert b"clip.mp4.ovavel.html" in page
    assert parsed.tags.count("tr") == 1 + len(comparison.stretches)
    assert b"11 of 12" in page
