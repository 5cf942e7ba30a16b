"""A copy of the dataset with twenty broken clips of ten kinds, and processes that die."""

from __future__ import annotations

import functools
import json
import operator
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from support.ovavebench_factory import DAMAGE, break_clip, make_bench, write_wav

from ovavel.eval.datasets.check import CRASH_KIND, check_data
from ovavel.eval.datasets.ovavebench import OVAVEBench
from ovavel.runtime.cli import main
from ovavel.runtime.system import parallel
from ovavel.runtime.system.parallel import CRASHED, run_each


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[tuple[str, str], str]]:
    """A dataset with two clips of each kind of damage, and which they are."""
    root = make_bench(tmp_path_factory.mktemp("broken") / "bench", clips=2)
    clips = OVAVEBench.open(root).clips
    kinds = {}
    for kind, clip in zip(DAMAGE * 2, (*clips[:10], *clips[-10:]), strict=True):
        break_clip(root, clip, kind)
        kinds[clip.split, clip.name] = kind
    return root, kinds


def test_every_broken_clip_is_named(broken: tuple[Path, dict[tuple[str, str], str]], tmp_path: Path) -> None:
    root, kinds = broken
    bench = OVAVEBench.open(root)
    report = check_data(bench, workers=2)
    assert {(clip.split, clip.name): clip.problems[0].kind for clip in report.damaged} == kinds
    assert all(len(clip.problems) == 1 and clip.problems[0].message for clip in report.damaged)
    order = [(clip.split, clip.name) for clip in bench.clips]
    places = [order.index((clip.split, clip.name)) for clip in report.damaged]
    assert places == sorted(places)
    for split, counts in report.splits.items():
        assert counts.clips == len(bench.select(split)) == counts.undamaged + counts.damaged
        assert counts.damaged == sum(counts.kinds.values())
    assert sum(counts.damaged for counts in report.splits.values()) == 20
    assert report.kinds == tuple(kind for kind in report.kinds if kind in DAMAGE)
    assert len(report.kinds) == 10


def test_the_command_reports_everything_in_table_and_file(
    broken: tuple[Path, dict[tuple[str, str], str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, kinds = broken
    assert main(["eval", "data", "--data", str(root), "--out", str(tmp_path / "new" / "check")]) == 1
    shown = capsys.readouterr().out
    for kind in DAMAGE:
        row = next(line for line in shown.splitlines() if f"  {kind} " in line)
        assert row.split("│")[-2].strip() == "2"
    report = json.loads((tmp_path / "new" / "check" / "check-data.json").read_text())
    assert {(clip["split"], clip["name"]): clip["problems"][0]["kind"] for clip in report["damaged"]} == kinds
    for _, name in kinds:
        assert name in shown


def test_a_whole_copy_with_short_sounds_is_undamaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_bench(tmp_path / "bench", clips=1)
    (root / "annotations").rename(tmp_path / "annotations")
    bench = OVAVEBench.open(root, tmp_path / "annotations")
    sound = bench.audio_path(bench.clips[0])
    write_wav(sound, bench.media(bench.clips[0]).waveform[:, :150_400])
    assert main(["eval", "data", "--data", str(root), "--annotations", str(tmp_path / "annotations")]) == 0
    shown = capsys.readouterr().out
    assert "nothing is damaged" in shown
    assert "sound below 10 s (padded)" in shown
    short = check_data(bench).short_sounds
    assert [(one.name, one.duration_s) for one in short] == [(bench.clips[0].name, 9.4)]


def test_side_files_are_counted_and_damage_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_bench(tmp_path / "bench", clips=1)
    bench = OVAVEBench.open(root)
    assert main(["eval", "data", "--data", str(root), "--workers", "1"]) == 0
    assert "note" not in capsys.readouterr().out
    sound, frames = bench.audio_path(bench.clips[0]), bench.frames_dir(bench.clips[1])
    for beside in (sound, next(frames.iterdir())):
        beside.with_name(f"._{beside.name}").write_bytes(b"side file")
    assert main(["eval", "data", "--data", str(root), "--workers", "1"]) == 0
    shown = capsys.readouterr().out
    assert "nothing is damaged" in shown
    assert "note: 2 side files of media (._*) are not read" in shown


def test_several_damages_of_one_clip_count_once_and_under_each(tmp_path: Path) -> None:
    root = make_bench(tmp_path / "bench", clips=1)
    clip = OVAVEBench.open(root).clips[0]
    for kind in ("frame truncated", "no sound file", "label missing"):
        break_clip(root, clip, kind)
    report = check_data(OVAVEBench.open(root))
    assert [problem.kind for problem in report.damaged[0].problems] == [
        "label missing",
        "no sound file",
        "frame truncated",
    ]
    assert report.splits["train"].damaged == 1
    assert sum(report.splits["train"].kinds.values()) == 3


def test_what_cannot_be_checked_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_bench(tmp_path / "bench", clips=1, media=False)
    assert main(["eval", "data", "--data", str(root)]) == 1
    assert "has no folder train, val or test" in capsys.readouterr().err
    assert main(["eval", "data", "--data", str(tmp_path)]) == 1
    assert "ovave_dataset_meta.csv is not in" in capsys.readouterr().err
    (root / "train").mkdir()
    assert main(["eval", "data", "--data", str(root), "--workers", "0"]) == 2


def test_a_job_that_kills_its_process_costs_no_other_job() -> None:
    jobs = [functools.partial(abs, -number) for number in range(12)]
    fatal = functools.partial(os._exit, 9)
    results = list(run_each(operator.call, [*jobs[:5], fatal, *jobs[5:]], workers=2))
    assert sorted(result for _, result in results if result is not CRASHED) == list(range(12))
    assert [job for job, result in results if result is CRASHED] == [fatal]
    assert CRASH_KIND not in DAMAGE


def test_a_process_that_dies_while_jobs_are_handed_out_costs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    pools: list[ProcessPoolExecutor] = []
    pool_of = parallel._pool
    monkeypatch.setattr(parallel, "_pool", lambda workers: pools.append(pool_of(workers)) or pools[-1])

    def jobs() -> Iterator[functools.partial[int]]:
        yield functools.partial(os._exit, 9)
        while not pools[0]._broken:  # type: ignore[attr-defined]  # until its death is noticed
            time.sleep(0.01)
        yield from (functools.partial(abs, -number) for number in range(6))

    results = [result for _, result in run_each(operator.call, jobs(), workers=1)]
    assert sorted(result for result in results if result is not CRASHED) == list(range(6))
    assert results.count(CRASHED) == 1


def test_an_error_of_a_job_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        list(run_each(operator.call, [functools.partial(divmod, 1, 0)] * 3, workers=1))
    with pytest.raises(ValueError, match="workers"):
        next(run_each(operator.call, [], workers=0))


def test_a_report_is_written_of_a_folder_whose_name_is_no_utf8(tmp_path: Path) -> None:
    root = make_bench(tmp_path / os.fsdecode(b"B\xe4r \x1b[31m"), clips=1)
    break_clip(root, OVAVEBench.open(root).clips[0], "no sound file")
    assert main(["eval", "data", "--data", str(root), "--out", str(tmp_path / "check"), "--workers", "1"]) == 1
    written = (tmp_path / "check/check-data.json").read_bytes()
    assert json.loads(written)["root"].endswith("B\\xe4r \x1b[31m")
    assert b"\x1b" not in written
