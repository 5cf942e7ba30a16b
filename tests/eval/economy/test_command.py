"""`ovavel eval economy` with the demo's model: a stream of its world, clips, and economies that decide wrongly."""

from __future__ import annotations

import re
import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from support.economy_gates import passed_gate
from support.made_up_session import GATE
from support.media_factory import make_clip
from support.ovavebench_factory import break_clip, make_bench

from ovavel.eval.commands.economy import CompareEconomy
from ovavel.eval.datasets.ovavebench import OVAVEBench
from ovavel.eval.demo.assets import Assets
from ovavel.eval.demo.world.day import Day, DaySource
from ovavel.eval.economy import gate, runs
from ovavel.eval.economy.report import EconomyReport
from ovavel.eval.economy.runs import StreamRun
from ovavel.eval.economy.streams import Stream, day_streams, recording_streams
from ovavel.runtime.backends import Backend, open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.cli import main
from ovavel.runtime.commands.options import EconomyOptions, EngineOptions
from ovavel.runtime.economy.encoder import EconomicEncoder
from ovavel.runtime.economy.settings import Economy
from ovavel.runtime.errors import DatasetError, MediaError, UnverifiedError, UsageError
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.types import Chunk, SkipCause

SECONDS = 20
SEED = 25

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The demo's bundle, to be changed at will."""
    return Path(shutil.copytree(Assets.open().bundle.path, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a day that was watched without economy."""
    out = tmp_path_factory.mktemp("watched")
    assert command(out, modes=("exact",), film=1).run() == 0
    return out


@pytest.fixture
def out(watched: Path, tmp_path: Path) -> Path:
    """A folder in which only the run without economy is done."""
    (tmp_path / "out" / "runs").mkdir(parents=True)
    shutil.copyfile(watched / "runs" / f"dense-{SEED}.off.json", tmp_path / "out" / "runs" / f"dense-{SEED}.off.json")
    return tmp_path / "out"


def command(out: Path, **changed: object) -> CompareEconomy:
    settings = {"days": ("dense",), "hours": SECONDS / 3600, "seeds": (SEED,), "engine": EngineOptions(threads=1)}
    return CompareEconomy(**(settings | changed), out=out)


def report_in(out: Path) -> EconomyReport:
    return msgspec.json.decode((out / "economy.json").read_bytes(), type=EconomyReport)


def test_a_day_is_watched_and_its_events_are_found(watched: Path) -> None:
    report = report_in(watched)
    (stream,), (comparison,) = report.streams, report.comparisons
    assert (stream.seconds, comparison.mode, report.gate) == (SECONDS, "exact", None)
    (hour,) = stream.full_hours
    assert hour.seconds == hour.pictures == hour.encoded == hour.sounds == SECONDS
    assert hour.busy_s > 0
    assert comparison.same == 1  # exact is exact
    assert comparison.full.acc > 0.9
    assert comparison.full.events > 0.6
    assert MediaSource(watched / f"dense-{SEED}.mp4").duration_s == pytest.approx(1, abs=0.2)
    assert sorted(path.name for path in watched.iterdir()) == [
        f"dense-{SEED}.mp4",
        "economy-dense-exact.svg",
        "economy.html",
        "economy.json",
        "runs",
    ]


def test_what_was_watched_is_not_watched_again(watched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again = Path(shutil.copytree(watched, tmp_path / "again"))
    calls = []
    watch = runs.run_stream
    monkeypatch.setattr(runs, "run_stream", lambda *a, **k: calls.append(a) or watch(*a, **k))
    assert command(again, modes=("exact",)).run() == 0
    assert not calls
    assert (again / "economy.json").read_bytes() == (watched / "economy.json").read_bytes()
    (again / "runs" / f"dense-{SEED}.exact.json").write_bytes(b"{")  # cut off
    assert command(again, modes=("exact",)).run() == 0
    assert len(calls) == 1


def test_gates_and_a_budget_that_is_not_used_leave_stored_runs_valid(
    watched: Path, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def watch(*_: object, **__: object) -> None:
        raise MediaError("watched again")

    again = Path(shutil.copytree(watched, tmp_path / "again"))
    Bundle.open(copy).save_gates([GATE])
    monkeypatch.setattr(runs, "run_stream", watch)
    assert command(again, bundle=copy, modes=("exact",), economy_budget=0.01).run() == 0
    with pytest.raises(MediaError, match="watched again"):
        command(again, bundle=copy, modes=("auto",)).run()


def test_the_run_of_a_recording_is_found_whatever_lies_beside_it(tmp_path: Path) -> None:
    clip, other = (make_clip(tmp_path / name, duration_s=1) for name in ("b.mp4", "a.mp4"))
    (alone,), (_, second) = recording_streams([clip]), recording_streams([other, clip])
    assert alone.name == second.name


class Laborious(DaySource):
    """A day whose first second takes half a second of CPU time to make, or to decode."""

    def chunks(self) -> Iterator[Chunk]:
        start_s = time.thread_time()
        while time.thread_time() < start_s + 0.5:
            pass
        yield from super().chunks()


@pytest.mark.parametrize("made", [False, True])
def test_cpu_time_contains_decoding_and_not_the_making_of_days(made: bool) -> None:
    bundle = Assets.open().bundle
    (day,) = day_streams(["dense"], [0], 2, bundle.vocabulary.names)
    stream = replace(day, open=lambda: Laborious(Day("dense", 0, 2)), made=made)
    with closing(open_backend(bundle, device="cpu", threads=1)) as backend:
        start_s = time.process_time()
        run = runs.run_stream(bundle, backend, stream, Economy())
        whole_s = time.process_time() - start_s
    (hour,) = run.hours
    assert day.made
    assert hour.cpu_s <= whole_s - 0.5 if made else hour.cpu_s >= 0.5


@pytest.mark.parametrize("changed", [{"hours": (SECONDS + 1) / 3600}, {"fusion": "agreement"}])
def test_a_run_of_something_else_does_not_count(
    out: Path, changed: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def watch(*_: object, **__: object) -> None:
        raise MediaError("watched again")

    monkeypatch.setattr(runs, "run_stream", watch)
    with pytest.raises(MediaError, match="watched again"):
        command(out, **changed).run()


def test_an_economy_that_passes_lets_auto_decide(
    copy: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gate, "FEWEST_SECONDS", SECONDS)
    with pytest.raises(UnverifiedError, match="eval economy"):
        EconomyOptions(economy="auto").settings(Bundle.open(copy), None)
    assert command(out, bundle=copy, modes=("auto",), write=True).run() == 0
    assert "economy auto: passed" in capsys.readouterr().out
    changed = Bundle.open(copy)
    assert EconomyOptions(economy="auto").settings(changed, None).mode == "auto"
    (stored,) = changed.manifest.economy
    assert (stored.seconds, stored.decisions, stored.reference) == (SECONDS, 1, "dense days")


@pytest.mark.parametrize(
    ("fusion", "budget"),
    [(None, 0.02), ("agreement", 0.002), ("agreement", 0.0123456789), ("demo-world-training-free", 0.00001)],
)
def test_the_command_that_a_refusal_names_makes_the_gate_that_is_missing(
    copy: Path, fusion: str | None, budget: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def passed(compare: CompareEconomy) -> int:
        assert compare.write
        bundle = Bundle.open(compare.bundle)
        bundle.save_economy_gate(passed_gate(bundle, compare.fusion, budget=compare.economy_budget))
        return 0

    monkeypatch.setattr(CompareEconomy, "run", passed)  # as if it had watched the recordings
    options = EconomyOptions(economy="auto", economy_budget=budget)
    for smaller in (None, budget / 10):  # without a gate, and with one for less
        if smaller:
            bundle = Bundle.open(copy)
            bundle.save_economy_gate(passed_gate(bundle, fusion, budget=smaller))
        with pytest.raises(UnverifiedError) as refused:
            options.settings(Bundle.open(copy), fusion)
        command = re.search(r"`ovavel (.*?)`", str(refused.value))
        assert command
        assert main(shlex.split(command[1])) == 0
        assert options.settings(Bundle.open(copy), fusion).mode == "auto"


def test_an_economy_that_skips_wrongly_fails_and_is_refused(
    copy: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gate, "FEWEST_SECONDS", SECONDS)
    monkeypatch.setattr(
        EconomicEncoder, "causes", lambda self, segments, heard: [SkipCause.SOUND] * len(segments)
    )  # as if nothing were ever heard
    assert command(out, bundle=copy, modes=("auto",), write=True).run() == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "economy auto: failed: dense days: " in said
    report = report_in(out)
    assert report.comparisons[0].same < 0.95
    assert report.streams[0].disagreements[0].economy == "other"
    assert report.comparisons[0].economy.events == 0
    with pytest.raises(UnverifiedError, match="of the decisions are the same"):
        EconomyOptions(economy="auto").settings(Bundle.open(copy), None)


def test_clips_of_a_data_set_are_joined_and_damaged_ones_listed(tmp_path: Path) -> None:
    names = Assets.open().bundle.vocabulary.names
    data = make_bench(tmp_path / "bench", seen=names[:2], unseen=names[2:3], clips=1)
    broken = OVAVEBench.open(data).select("test")[1]
    break_clip(data, broken, "no sound file")
    compare = CompareEconomy(
        data=data,
        bundle=Assets.open().bundle.path,
        modes=("exact",),
        out=tmp_path / "out",
        engine=EngineOptions(threads=1),
    )
    assert compare.run() == 0
    report = report_in(tmp_path / "out")
    assert report.streams[0].seconds == 20
    assert report.streams[0].full is not None
    assert report.streams[0].full.events is None
    assert len(report.left_out) == 1
    assert broken.name in report.left_out[0]
    with pytest.raises(DatasetError, match="not in the bundle's vocabulary"):
        CompareEconomy(
            data=make_bench(tmp_path / "other", clips=1), bundle=Assets.open().bundle.path, out=tmp_path / "out"
        ).run()


def test_an_economy_that_does_not_run_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = make_clip(tmp_path / "a.mp4", duration_s=2, fps=5)
    options = {"days": (), "recordings": (clip,), "bundle": Assets.open().bundle.path, "fusion": "published"}
    assert command(tmp_path / "out", **options, modes=("exact",)).run() == 0
    printed = " ".join(capsys.readouterr().out.split())
    why = report_in(tmp_path / "out").comparisons[0].note
    assert why.startswith("off, as ")
    assert printed.count(f"economy exact: {why}") == 1
    assert "economy exact: off, as" in (tmp_path / "out" / "economy.html").read_text()


def test_recordings_of_less_than_a_second_are_refused(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "short.mp4", duration_s=0.4)
    with pytest.raises(MediaError, match="nothing to compare"):
        command(tmp_path / "out", days=(), recordings=(clip,), bundle=Assets.open().bundle.path).run()


def changing(path: Path, how: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `path` change once it has been watched without economy."""
    watch = runs.run_stream

    def then_changed(
        bundle: Bundle, backend: Backend, stream: Stream, economy: Economy, **options: object
    ) -> StreamRun:
        run = watch(bundle, backend, stream, economy, **options)
        if stream.name.endswith(path.name) and economy.mode == "off":
            how(path)
        return run

    monkeypatch.setattr(runs, "run_stream", then_changed)


@pytest.mark.parametrize("how", [lambda path: make_clip(path, duration_s=4), Path.unlink], ids=["grown", "deleted"])
def test_a_recording_that_changes_while_it_is_watched_is_left_out_and_named(
    tmp_path: Path, how: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, growing = (make_clip(tmp_path / name, duration_s=2, fps=5) for name in ("a.mp4", "b.mp4"))
    changing(growing, how, monkeypatch)
    compare = command(
        tmp_path / "out", days=(), recordings=(growing, whole), bundle=Assets.open().bundle.path, modes=("exact",)
    )
    assert compare.run() == 0
    report = report_in(tmp_path / "out")
    assert [stream.seconds for stream in report.streams] == [2]
    (left_out,) = report.left_out
    assert "b.mp4: it changed while it was watched" in left_out
    assert "b.mp4: it changed" in " ".join(capsys.readouterr().out.split())
    assert b"b.mp4: it changed" in (tmp_path / "out" / "economy.html").read_bytes()


def test_a_recording_that_changes_and_has_none_beside_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip(tmp_path / "a.mp4", duration_s=2, fps=5)
    changing(clip, Path.unlink, monkeypatch)
    with pytest.raises(MediaError, match=r"nothing to compare: .*a\.mp4: it changed while it was watched"):
        command(tmp_path / "out", days=(), recordings=(clip,), bundle=Assets.open().bundle.path).run()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"days": ()}, "compare on what"),
        ({"data": Path("x")}, "--days or --data"),
        ({"write": True}, "give one with --bundle"),
        ({"days": (), "recordings": (Path("a.mp4"),)}, "which bundle"),
        ({"modes": ()}, "which economies"),
        ({"write": True, "modes": ("exact",)}, "add it to --modes"),
        ({"days": (), "data": Path("x"), "bundle": Path("b"), "film": 3}, "--film is for --days"),
        ({"clips": 3}, "--clips is for --data"),
        ({"seeds": (1, 1)}, "seeds"),
    ],
)
def test_flags_that_contradict_are_refused(changed: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        command(tmp_path / "out", **changed).run()
    assert not (tmp_path / "out").exists()
