"""How fast an archive is searched: `python -m ovavel.eval.archive.speed FOLDER`.

Cameras and days of made-up vectors are written into FOLDER, measured, and deleted; with `--keep` they stay there, and
are measured again the next time. A search is timed to its first and to its last answer, without the text encoder and
without the rules that judge hits.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
from numpy.random import default_rng

from ovavel.eval.archive.made_up import made_up_texts, made_up_vectors, make_archive
from ovavel.eval.bench.machine import describe_machine, peak_memory_mb, status_mb
from ovavel.runtime.archive.layout import DAY_S, WRITTEN, ContextSecond, Model
from ovavel.runtime.archive.reader import Archive, Day
from ovavel.runtime.archive.search.ranking import Ranking
from ovavel.runtime.archive.search.scan import Scanned, exhaustive, scan
from ovavel.runtime.archive.writer import ArchiveWriter
from ovavel.runtime.reporting.charts import Series, line_charts
from ovavel.runtime.system.files import atomic_write
from ovavel.runtime.system.interrupt import terminated_as_interrupted
from ovavel.runtime.system.parallel import begin_worker

__all__ = ["main"]

_PARTS = 8
"""Points of the plot."""
_SAMPLE_S = 0.02
"""Between two looks at the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Timed:
    """One search."""

    first_s: float
    """To the first answer."""
    total_s: float
    cpu_s: float
    """Of all threads."""
    disk_bytes: int
    """That were read because they were not in memory."""
    after_s: tuple[float, ...]
    """To the answer after 1/8, 2/8, … of the days."""
    after_cpu_s: tuple[float, ...]
    last: Scanned


def main(arguments: Sequence[str] | None = None) -> int:
    """Make an archive or take the one that is there, measure, print, delete it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cameras", type=int, default=8)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--size", type=int, default=1024, help="D of both senses")
    parser.add_argument("--seconds", type=int, default=DAY_S, help="of each day")
    parser.add_argument(
        "--distinct",
        type=int,
        default=0,
        help="days that are written; all others are hard links to them, so that neither a cold disk nor the recall is "
        "measured (default: all)",
    )
    parser.add_argument("--no-recall", action="store_true", help="leave out the recall, which takes minutes")
    parser.add_argument("--repeat", type=int, default=3, help="warm searches")
    parser.add_argument("--keep", action="store_true", help="leave the archive there, or measure the one that is there")
    parser.add_argument("--json", type=Path, help="file that gets all figures and a description of the machine")
    parser.add_argument("--plot", type=Path, help="file that gets an SVG of time against days")
    options = parser.parse_args(arguments)
    root: Path = options.folder / "ovavel-archive-bench"
    if root.exists():
        if not options.keep:
            parser.error(f"{root} is there already; --keep measures it, or remove it")
        if _shape(root) != (options.cameras, options.days, options.size, options.seconds):
            parser.error(f"{root} is of another shape than was asked for; remove it")
    with terminated_as_interrupted():
        whole = root.exists()
        try:
            if not whole:
                _make(root, options)
                whole = True
            figures = _measure(Archive(root), options)
            figures["writing"] = _writing(options.folder, options.size)
        except OSError as error:
            parser.exit(1, f"{root}: {error.strerror}; choose a folder with room for all days, or fewer --days\n")
        finally:
            if not (options.keep and whole):
                shutil.rmtree(root, ignore_errors=True)
    if options.plot:
        atomic_write(options.plot, _plot(figures).encode())
    if options.json:
        figures = {"machine": asdict(describe_machine()), "figures": figures}
        atomic_write(options.json, msgspec.json.format(msgspec.json.encode(figures), indent=2) + b"\n")
    return 0


def _make(root: Path, options: argparse.Namespace) -> None:
    began_s = time.perf_counter()
    make_archive(
        root,
        cameras=options.cameras,
        days=options.days,
        size=options.size,
        seconds=options.seconds,
        distinct=options.distinct,
    )
    print(f"made in {time.perf_counter() - began_s:.0f} s")


def _shape(root: Path) -> tuple[int, int, int, int]:
    """Cameras, days of each, D, and seconds of the newest day."""
    archive = Archive(root)
    days, cameras = archive.days(), len(archive.cameras())
    with days[0].open() as files:
        seconds = int((files.flags() & WRITTEN).sum())
    return cameras, len(days) // cameras, days[0].model.vision_size, seconds


def _measure(archive: Archive, options: argparse.Namespace) -> dict[str, Any]:
    began_s = time.perf_counter()
    days = archive.days()
    listed_s = time.perf_counter() - began_s
    ranking = _ranking(days)
    used = sum({each.st_ino: each.st_blocks * 512 for day in days for each in _stats(day)}.values())
    figures: dict[str, Any] = {"days_of_cameras": len(days), "bytes": used, "listed_s": listed_s, "load": [_load()]}
    print(f"{len(days)} days of cameras, {used / 1e9:.1f} GB, listed in {listed_s:.2f} s; load {_load():.1f}")
    if not options.distinct:
        _forget(days)
        figures["cold"] = _shown("cold", _timed(days, ranking))
    warm, memory = _in_child(archive.root, options.repeat)
    figures |= {"warm": [_shown("warm", each) for each in warm], "memory": memory}
    figures["load"].append(_load())
    print(
        f"memory of a process that searches: {memory['peak_mib']:.0f} MiB at most, {memory['anonymous_mib']:.0f} MiB "
        f"without mapped files; {memory['before_mib']:.0f} MiB before; load {_load():.1f}"
    )
    if not (options.distinct or options.no_recall):
        figures |= _recall(days, ranking, warm[-1].last)
    return figures


def _stats(day: Day) -> list[os.stat_result]:
    return [file.stat() for file in day.folder.iterdir()]


def _ranking(days: Sequence[Day]) -> Ranking:
    texts = made_up_texts(days[0].model.vision_size)
    return Ranking(phrases=texts[:1], against=texts[1:])


def _load() -> float:
    """Processes that ran or waited in the last minute, on average."""
    return os.getloadavg()[0]


def _timed(days: Sequence[Day], ranking: Ranking) -> _Timed:
    before, at_s, at_cpu_s = _from_disk(), [], []
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    for each in scan(days, ranking):
        last = each
        at_s.append(time.perf_counter() - began_s)
        at_cpu_s.append(time.process_time() - began_cpu_s)
    ends = [max(1, len(days) * part // _PARTS) - 1 for part in range(1, _PARTS + 1)]
    return _Timed(
        first_s=at_s[0],
        total_s=at_s[-1],
        cpu_s=at_cpu_s[-1],
        disk_bytes=_from_disk() - before,
        after_s=tuple(at_s[each] for each in ends),
        after_cpu_s=tuple(at_cpu_s[each] for each in ends),
        last=last,
    )


def _from_disk() -> int:
    """Bytes that this process has had read from disks."""
    lines = Path("/proc/self/io").read_text("ascii").splitlines()
    return int(next(line for line in lines if line.startswith("read_bytes")).split()[1])


def _shown(how: str, timed: _Timed) -> dict[str, Any]:
    compared = timed.last.compared / timed.last.seconds
    print(
        f"{how}: {timed.total_s:.2f} s ({timed.cpu_s:.2f} s of one core), first answer after {timed.first_s:.3f} s; "
        f"{timed.disk_bytes / 1e9:.2f} GB from the disk; vectors of {compared:.2%} compared; load {_load():.1f}"
    )
    figures = {
        name: getattr(timed, name) for name in ("first_s", "total_s", "cpu_s", "disk_bytes", "after_s", "after_cpu_s")
    }
    return figures | {"seconds": timed.last.seconds, "compared": compared}


def _in_child(root: Path, repeat: int) -> tuple[list[_Timed], dict[str, float]]:
    """Search in a process that does nothing else; also how much memory that takes, in MiB."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=begin_worker) as pool:
        return pool.submit(_searched, root, repeat).result()


def _searched(root: Path, repeat: int) -> tuple[list[_Timed], dict[str, float]]:
    before, most, done = status_mb("VmRSS"), status_mb("RssAnon"), threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(_SAMPLE_S):
            most = max(most, status_mb("RssAnon"))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        days = Archive(root).days()
        found = [_timed(days, _ranking(days)) for _ in range(repeat)]
    finally:
        done.set()
        watching.join()
    return found, {"before_mib": before, "peak_mib": peak_memory_mb(), "anonymous_mib": most}


def _recall(days: Sequence[Day], ranking: Ranking, last: Scanned) -> dict[str, Any]:
    began_s = time.perf_counter()
    (oracle,) = exhaustive(days, ranking)
    figures: dict[str, Any] = {"exhaustive_s": time.perf_counter() - began_s, "recall": {}}
    print(f"exhaustive float32: {figures['exhaustive_s']:.1f} s")
    best = last.best[0]
    for count in (10, 100, 1000, len(oracle.score)):
        ours, theirs = (
            {*zip(each.day[:count].tolist(), each.row[:count].tolist(), strict=True)} for each in (best, oracle)
        )
        figures["recall"][count] = recall = len(ours & theirs) / len(theirs)
        print(f"recall@{count}: {recall:.4f}")
    return figures


def _forget(days: Sequence[Day]) -> None:
    """Drop the files from the page cache."""
    for day in days:
        for path in day.folder.iterdir():
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def _writing(folder: Path, size: int) -> list[dict[str, float]]:
    """Milliseconds a second, at several lengths of a commit: all of it, and what a core was busy for."""
    random, texts, count, found = default_rng(5), made_up_texts(size).audio, 600, []
    vision, audio = (made_up_vectors(random, texts, sense, count, fits=False) for sense in ("vision", "audio"))
    model = Model(id="0" * 16, name="made-up", head="temporal", audio_size=size, vision_size=size)
    for every in (10, 60, 600):
        root = folder / "ovavel-archive-bench-written"
        try:
            began_s, cpu_s = time.perf_counter(), time.process_time()
            with ArchiveWriter(root, "camera", model, every=every) as writer:
                for row in range(count):
                    writer.write(ContextSecond(utc_s=row, vision=vision[row], audio=audio[row]))
            wall_ms = (time.perf_counter() - began_s) / count * 1e3
            cpu_ms = (time.process_time() - cpu_s) / count * 1e3
        finally:
            shutil.rmtree(root, ignore_errors=True)
        found.append({"every": every, "ms": wall_ms, "cpu_ms": cpu_ms})
        print(f"writing, {every} seconds a commit: {wall_ms:.3f} ms a second, {cpu_ms:.3f} ms of them a core's")
    return found


def _plot(figures: dict[str, Any]) -> str:
    days = [0, *(max(1, figures["days_of_cameras"] * part // _PARTS) for part in range(1, _PARTS + 1))]
    best = min(figures["warm"], key=lambda each: each["total_s"])
    curves = [
        Series("all of it, warm", [0.0, *best["after_s"]]),
        Series("of one core", [0.0, *best["after_cpu_s"]]),
        Series("in proportion to days", [best["total_s"] * each / days[-1] for each in days], dashed=True),
    ]
    return line_charts([("Seconds to search", curves)], days, x_label="days of cameras")


if __name__ == "__main__":
    sys.exit(main())
