"""A wall clock that a test can set for a service and its children, and for nobody else.

A library that is loaded before all others adds to the wall clock what a shared file says. The monotonic clock, and
with it every wait, stays as it is.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

__all__ = ["Clock"]

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long *offset;

__attribute__((constructor)) static void open_offset(void) {
  const char *path = getenv("OVAVEL_TEST_CLOCK");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return;
  void *found = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
  close(file);
  if (found != MAP_FAILED) offset = found;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  int result = syscall(SYS_clock_gettime, clock, now);
  if (!result && offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *offset;
  return result;
}

int gettimeofday(struct timeval *now, void *zone) {
  struct timespec exact;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &exact);
  now->tv_sec = exact.tv_sec;
  now->tv_usec = exact.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *into) {
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  if (into) *into = exact.tv_sec;
  return exact.tv_sec;
}
"""


class Clock:
    """Of one service. Without a compiler for C it cannot be set, and `unavailable` says so."""

    def __init__(self, folder: Path) -> None:
        self._file, library = folder / "clock", folder / "clock.so"
        self._file.write_bytes(bytes(8))
        self.environment: dict[str, str] = {}
        """What the service needs to go by this clock."""
        compiler = shutil.which("cc")
        self.unavailable = "" if compiler else "there is no compiler for C"
        if compiler:
            (folder / "clock.c").write_text(_SOURCE)
            command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(folder / "clock.c"), "-ldl"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            self.unavailable = done.stderr
            self.environment = {"LD_PRELOAD": str(library), "OVAVEL_TEST_CLOCK": str(self._file)}

    @property
    def offset_s(self) -> int:
        """How far it is ahead of the true one."""
        return int.from_bytes(self._file.read_bytes(), "little", signed=True)

    def set(self, offset_s: int) -> None:
        """Set it, so many seconds ahead of the true one."""
        with self._file.open("r+b", buffering=0) as file:
            file.write(offset_s.to_bytes(8, "little", signed=True))

    @property
    def now_us(self) -> int:
        """What it shows."""
        return time.time_ns() // 1000 + self.offset_s * 1_000_000
