"""Shards: processes that are killed, run at once, or fill the disk give the results of one that is left alone."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.scaled import POISON, contents, make_recordings, poisonous, run, started, wait_until

from ovavel.runtime.scale.done import Done, Failed, ResultFolder

ALL = ("--shard", "0/1")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recordings(tmp_path_factory.mktemp("in"), 6)


@pytest.fixture(scope="module")
def undisturbed(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process writes that nobody disturbs."""
    out = tmp_path_factory.mktemp("undisturbed")
    assert run(recordings, out, *ALL).returncode == 0
    return contents(out)


def test_results_are_those_without_shards(recordings: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    assert run(recordings, tmp_path).returncode == 0
    assert contents(tmp_path) == {name: data for name, data in undisturbed.items() if not name.startswith("done/")}


def test_shards_together_are_the_whole_and_are_done_once(
    recordings: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    for shard in ("1/2", "2/2"):
        assert run(recordings, tmp_path, "--shard", shard).returncode == 0
    assert contents(tmp_path) == undisturbed
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    again = run(recordings, tmp_path, *ALL)
    assert "6 already done" in again.stdout
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}


def test_a_result_that_was_changed_is_written_again(
    recordings: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    assert run(recordings, tmp_path, *ALL).returncode == 0
    (tmp_path / "day 0" / "clip-0.mp4.ovavel.json").write_text("{}")
    (tmp_path / "day 1" / "clip-4.mp4.ovavel.html").unlink()
    assert "2 localized, 4 already done" in sorted_counts(run(recordings, tmp_path, *ALL).stdout)
    assert contents(tmp_path) == undisturbed


def sorted_counts(said: str) -> str:
    """The last line, its parts in the order of words."""
    parts = said.splitlines()[-1].partition(";")[0].split(", ")
    return ", ".join(sorted(parts, key=lambda part: part.split(" ", 1)[1], reverse=True))


def test_results_of_another_request_are_refused(
    recordings: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    assert run(recordings, tmp_path, *ALL).returncode == 0
    refused = run(recordings, tmp_path, *ALL, "--lag", "3")
    assert refused.returncode == 1
    assert refused.stderr.count("another lag") == 6
    assert "--overwrite" in refused.stderr
    assert contents(tmp_path) == undisturbed
    assert run(recordings, tmp_path, *ALL, "--lag", "3", "--overwrite").returncode == 0
    assert b'"lag":3' in contents(tmp_path)["day 0/clip-0.mp4.ovavel.json"].replace(b" ", b"")


def test_results_that_differ_from_those_on_record_are_not_written(recordings: Path, tmp_path: Path) -> None:
    """As if another machine had computed something else."""
    clip = recordings / "day 0" / "clip-0.mp4"
    assert run(clip, tmp_path, *ALL).returncode == 0
    (record,) = (tmp_path / "done").iterdir()
    text = record.read_text()
    (result,) = tmp_path.glob("*.json")
    done = ResultFolder(tmp_path).done(record.stem)
    assert done
    record.write_text(text.replace(done.outputs[result.name], "0" * 64))
    refused = run(clip, tmp_path, *ALL)
    assert refused.returncode == 1
    assert "differ from those on record" in refused.stderr


def kill_one(process: subprocess.Popen[bytes], chance: random.Random) -> None:
    """Kill the driver, or the process that localizes, whichever comes."""
    with contextlib.suppress(psutil.NoSuchProcess):
        driver = psutil.Process(process.pid)
        chance.choice([driver, *driver.children(recursive=True)]).kill()


def test_killed_processes_are_resumed(recordings: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    folder, chance = ResultFolder(tmp_path), random.Random(7)
    for wanted in (1, 2, 4):
        with started(recordings, tmp_path, *ALL) as process:
            wait_until(lambda wanted=wanted: folder.count_done() >= wanted, process)
            kill_one(process, chance)
            wait_until(lambda wanted=wanted: folder.count_done() > wanted, process)
    assert run(recordings, tmp_path, *ALL).returncode == 0
    assert contents(tmp_path) == undisturbed


def test_two_at_once_do_no_harm(recordings: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    with started(recordings, tmp_path, *ALL) as one, started(recordings, tmp_path, *ALL) as other:
        assert (one.wait(100), other.wait(100)) == (0, 0)
    assert contents(tmp_path) == undisturbed
    assert not list((tmp_path / "aside").iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.proof)])
def test_a_signal_ends_it_at_once_and_it_resumes(
    number: signal.Signals, recordings: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    folder = ResultFolder(tmp_path)
    with started(recordings, tmp_path, *ALL) as process:
        wait_until(lambda: folder.count_done() > 0, process)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        assert process.wait(60) in (130, 0)  # 0: it was as good as done
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive
    assert run(recordings, tmp_path, *ALL).returncode == 0
    assert contents(tmp_path) == undisturbed


def test_a_recording_that_kills_its_process_is_failed_and_the_others_are_done(tmp_path: Path) -> None:
    recordings = make_recordings(tmp_path / "in", 3, poison=True)
    (recordings / "notes.mp4").write_text("no media")
    variables = poisonous(tmp_path / "installed")
    done = run(recordings, tmp_path / "out", *ALL, "--backend", "poisonous", variables=variables)
    assert done.returncode == 1
    assert "3 localized, 2 failed" in done.stdout
    assert "Traceback" not in done.stderr
    records = list(ResultFolder(tmp_path / "out").records())
    assert [type(record) for record in records] == [Done] * 3 + [Failed] * 2
    failed = {record.recording: record for record in records if isinstance(record, Failed)}
    assert failed[POISON].attempts == 2
    assert "ended 2 processes" in failed[POISON].cause
    assert failed["notes.mp4"].attempts == 1
    (recordings / POISON).unlink()
    shutil.copy(recordings / "day 0" / "clip-0.mp4", recordings / "notes.mp4")
    assert run(recordings, tmp_path / "out", *ALL, "--backend", "poisonous", variables=variables).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 128 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"there is no mount: {error}")
    if mounted.returncode:
        pytest.skip(f"cannot mount a file system, which needs root: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_ends_it_and_it_resumes_with_more_room(
    recordings: Path, undisturbed: dict[str, bytes], small_disk: Path
) -> None:
    full = run(recordings, small_disk, *ALL)
    assert full.returncode == 1
    assert "free some space" in full.stderr
    assert "resumes" in full.stderr
    assert "Traceback" not in full.stderr
    assert not list((small_disk / "aside").iterdir())
    assert contents(small_disk).items() <= undisturbed.items()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert run(recordings, small_disk, *ALL).returncode == 0
    assert contents(small_disk) == undisturbed
