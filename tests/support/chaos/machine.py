"""Faults of the machine: its disk, its clock, and what it has to give."""

from __future__ import annotations

import contextlib
import random
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import psutil

from ovavel.service.store.care.invariants import violations
from ovavel.service.store.database import BALLAST_BYTES, FILE
from support.chaos.faults import Fault, LeftOut
from support.chaos.place import CAMERAS, Place
from support.chaos.scratch import GROUPS, group_name
from support.service import until

__all__ = ["MACHINE_FAULTS", "small_disk"]

_HOUR_S = 3600
SUMMER = -2 * _HOUR_S
"""A machine whose clock was kept in local time."""


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a small disk at `folder`; whether that is allowed here."""
    folder.mkdir()
    size = f"size={2 * BALLAST_BYTES + (40 << 20)}"
    mounted = _mount("-t", "tmpfs", "-o", size, "tmpfs", str(folder))
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", folder], check=False)


def _mount(*arguments: str) -> bool:
    try:
        return subprocess.run(["mount", *arguments], capture_output=True).returncode == 0
    except OSError:
        return False


def _own_disk(place: Place) -> None:
    if not place.small_disk:
        raise LeftOut("no disk can be mounted here")


def _disk_full(place: Place, chance: random.Random) -> None:
    _own_disk(place)
    filler = place.data / "filler"
    with contextlib.suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(bytes(1 << 20))
    time.sleep(chance.uniform(5, 15))
    filler.unlink()


def _killed_on_a_full_disk(place: Place, _: random.Random) -> None:
    _own_disk(place)
    place.kill()
    place.start("store.before-ballast-freed")
    filler = place.data / "filler"
    with contextlib.suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(bytes(1 << 20))
    assert place.process
    try:
        place.process.wait(60)
    except subprocess.TimeoutExpired:
        place.kill()
        raise AssertionError("the ballast was not needed") from None
    finally:
        filler.unlink()
        place.start()


def _read_only(place: Place, _: random.Random) -> None:
    """The disk of the store is read-only when the service starts. One in use cannot be made so: see `_disk_errors`."""
    _own_disk(place)
    assert place.end() == 0
    assert _mount("-o", "remount,ro", str(place.data))
    try:
        assert "Read-only file system" in place.refused()
    finally:
        assert _mount("-o", "remount,rw", str(place.data))
        place.start()


def _mount_lost(place: Place, chance: random.Random) -> None:
    """Another disk lies over that of the store."""
    _own_disk(place)
    assert _mount("-t", "tmpfs", "tmpfs", str(place.data))
    time.sleep(chance.uniform(5, 15))
    subprocess.run(["umount", "-l", place.data], check=True)


def _wrong_disk(place: Place, _: random.Random) -> None:
    """An empty disk is in the place of the store when the service starts."""
    _own_disk(place)
    assert place.end() == 0
    assert _mount("-t", "tmpfs", "tmpfs", str(place.data))
    try:
        assert "mount its disk" in place.refused()
    finally:
        subprocess.run(["umount", "-l", place.data], check=True)
        place.start()


def _disk_errors(calls: str) -> Fault:
    """The disk fails whenever it is asked for one of these."""

    def hurt(place: Place, chance: random.Random) -> None:
        if not shutil.which("strace"):
            raise LeftOut("there is no strace")
        assert place.process
        trace = place.folder / "trace"
        command = ["strace", "-qq", "-f", "-o", str(trace), "-e", f"trace={calls}"]
        command += ["-e", f"inject={calls}:error=EIO", "-p", str(place.process.pid)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
            with contextlib.suppress(subprocess.TimeoutExpired):
                tracer.wait(chance.uniform(4, 8))
            if tracer.returncode is not None:
                raise LeftOut(f"strace may not attach: {tracer.stderr.read() if tracer.stderr else ''}")
            tracer.send_signal(signal.SIGINT)
        assert "INJECTED" in trace.read_text(), "nothing was written meanwhile"

    return hurt


def _locked(place: Place, chance: random.Random) -> None:
    """Another program writes to the store, and takes its time."""
    with contextlib.closing(apsw.Connection(str(place.data / FILE))) as other:
        other.set_busy_timeout(30_000)
        other.execute("BEGIN IMMEDIATE")
        time.sleep(chance.uniform(6, 12))
        other.execute("ROLLBACK")


def _torn_log(place: Place, chance: random.Random) -> None:
    """A power cut in the middle of a write: the end of the write-ahead log is not what was meant."""
    place.kill()
    log = place.data / f"{FILE}-wal"
    if log.exists():
        with log.open("ab") as file:
            file.write(chance.randbytes(chance.randrange(1, 9000)))
    place.start()


def _clock(offset_s: int) -> Fault:
    """The clock is set while the service runs, and set right again."""

    def hurt(place: Place, chance: random.Random) -> None:
        if place.clock.unavailable:
            raise LeftOut(place.clock.unavailable)
        place.clock.set(offset_s)
        time.sleep(chance.uniform(3, 8))
        place.clock.set(0)

    return hurt


def _no_clock_at_boot(place: Place, chance: random.Random) -> None:
    """A machine without a battery starts in 1970, and learns the time later."""
    if place.clock.unavailable:
        raise LeftOut(place.clock.unavailable)
    assert place.end() == 0
    place.clock.set(60 - int(time.time()))
    place.start()
    time.sleep(chance.uniform(3, 8))
    place.clock.set(0)


def _born_in_1970(place: Place, chance: random.Random) -> None:
    """The first start of all, with a store of its own, on a machine that does not know the time yet."""
    if place.clock.unavailable:
        raise LeftOut(place.clock.unavailable)
    assert place.end() == 0
    whole, heard = place.data, dict(place.heard)
    place.data = place.folder / f"born-{place.restarts}"
    place.write_site(CAMERAS)
    place.clock.set(60 - int(time.time()))
    try:
        place.start()
        time.sleep(chance.uniform(3, 8))
        place.clock.set(0)
        assert place.recovered() is not None, place.ask("api/v1/cameras")
        with contextlib.closing(place.reader()) as reader:
            assert not (wrong := violations(reader, place.data)), wrong
        assert (code := place.end()) == 0, f"it ended with {code}"
    finally:
        place.clock.set(0)
        place.kill()
        place.data, place.heard = whole, heard
        place.write_site(CAMERAS)
        place.start()


def _no_descriptors(place: Place, chance: random.Random) -> None:
    assert place.process
    process = psutil.Process(place.process.pid)
    before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (process.num_fds() + 1, before[1]))
    try:
        for module in ("capture.child", "encoding.child"):
            _kill_one(place, chance, module)
        time.sleep(chance.uniform(3, 8))
    finally:
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)


def _no_memory(place: Place, chance: random.Random) -> None:
    """A process asks for memory in vain, until it is replaced or a while is over."""
    child = chance.choice(place.children("capture.child") + place.children("encoding.child"))
    with contextlib.suppress(psutil.Error, OSError):
        resource.prlimit(child.pid, resource.RLIMIT_AS, (child.memory_info().vms // 2,) * 2)
        with contextlib.suppress(psutil.TimeoutExpired):
            child.wait(20)
        child.kill()


@contextlib.contextmanager
def _group(controller: str) -> Iterator[Path]:
    """A control group of our own, which is removed when nobody is in it any more."""
    folder = GROUPS / controller / group_name()
    try:
        folder.mkdir()
    except OSError as error:
        raise LeftOut(f"no control group can be made here: {error.strerror}") from error
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            for pid in (folder / "cgroup.procs").read_text().split():
                (folder.parent / "cgroup.procs").write_text(pid)
        end_s = time.monotonic() + 10
        while folder.exists() and time.monotonic() < end_s:
            with contextlib.suppress(OSError):
                folder.rmdir()
            time.sleep(0.05)


def _out_of_memory(place: Place, chance: random.Random) -> None:
    """The kernel ends a process that takes more than its share: what it takes counts where it was begun."""
    assert place.process
    with _group("memory") as group:
        members, service = group / "cgroup.procs", str(place.process.pid)
        members.write_text(service)
        _kill_one(place, chance, "capture.child")
        until(lambda: members.read_text().split() not in ([], [service]))
        (group.parent / "cgroup.procs").write_text(service)
        child = psutil.Process(int(members.read_text().split()[0]))
        used = int((group / "memory.usage_in_bytes").read_text())
        (group / "memory.limit_in_bytes").write_text(str(used + (1 << 18)))
        try:
            child.wait(30)
        except psutil.TimeoutExpired:
            child.kill()
            raise LeftOut("the kernel did not end it") from None
        killed = re.search(r"^oom_kill ([1-9])", (group / "memory.oom_control").read_text(), re.MULTILINE)
        assert killed, "it ended otherwise"


def _no_threads(place: Place, chance: random.Random) -> None:
    """No process and no thread can be begun."""
    assert place.process
    with _group("pids") as group:
        (group / "cgroup.procs").write_text(str(place.process.pid))
        (group / "pids.max").write_text((group / "pids.current").read_text())
        _kill_one(place, chance, "capture.child")
        place.ask("api/v1/events")
        time.sleep(chance.uniform(3, 8))


def _kill_one(place: Place, chance: random.Random, module: str) -> None:
    with contextlib.suppress(psutil.Error, IndexError):
        chance.choice(place.children(module)).kill()


MACHINE_FAULTS: dict[str, Fault] = {
    "disk full": _disk_full,
    "disk full, killed": _killed_on_a_full_disk,
    "disk read-only at the start": _read_only,
    "disk lost": _mount_lost,
    "disk missing at the start": _wrong_disk,
    "disk errors of fsync": _disk_errors("fsync,fdatasync"),
    "disk errors of write": _disk_errors("pwrite64"),
    "store locked by another program": _locked,
    "store's log torn": _torn_log,
    "clock an hour ahead": _clock(_HOUR_S),
    "clock an hour behind": _clock(-_HOUR_S),
    "clock in local time": _clock(SUMMER),
    "clock in 1970 at the start": _no_clock_at_boot,
    "clock in 1970 at the first start": _born_in_1970,
    "no file descriptors": _no_descriptors,
    "no memory": _no_memory,
    "out of memory": _out_of_memory,
    "no threads": _no_threads,
}
