"""Too little memory, a full disk: one line each, never a traceback."""

from __future__ import annotations

import ctypes
import errno
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from support.media_factory import make_clip

from ovavel.runtime.system.memory import freed_at_once, lacks_memory

OVAVEL = (sys.executable, "-c", "from ovavel.runtime.cli import main; raise SystemExit(main())")


def caused(cause: BaseException) -> Exception:
    try:
        raise RuntimeError("something else") from cause
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        ImportError("libavcodec.so.62: failed to map segment from shared object"),
        RuntimeError("[ONNXRuntimeError] : 6 : std::bad_alloc"),
        RuntimeError("can't start new thread"),
        caused(MemoryError()),
    ],
)
def test_each_library_says_it_in_its_own_way(error: Exception) -> None:
    assert lacks_memory(error)


@pytest.mark.parametrize("error", [None, ValueError("no"), OSError(errno.ENOSPC, "No space left"), ImportError("cv2")])
def test_other_errors_are_not_a_lack_of_memory(error: Exception | None) -> None:
    assert not lacks_memory(error)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", duration_s=2)


@pytest.mark.parametrize("megabytes", [200, 300, 400, 450, 500, 600])
def test_too_little_memory_is_said_in_one_line(exported_bundle: Path, clip: Path, megabytes: int) -> None:
    done = subprocess.run(
        [*OVAVEL, "live", "--bundle", str(exported_bundle), "--device", "cpu", str(clip), "--view", "none"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20)),
        env={"OPENBLAS_NUM_THREADS": "1", "PATH": ""},  # its threads do not start, and it says so by itself
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert "Traceback" not in done.stderr
    assert (done.returncode == 0) == (done.stderr == "")
    assert done.stderr.count("\n") <= 1


@pytest.mark.parametrize("arguments", [("--view", "lines"), ("--jsonl", "-")])
def test_standard_output_on_a_full_disk_is_said_in_one_line(
    exported_bundle: Path, clip: Path, arguments: tuple[str, str]
) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*OVAVEL, "live", "--bundle", str(exported_bundle), "--device", "cpu", str(clip), *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=100,
        )
    assert done.returncode == 1
    assert done.stderr.count("\n") == done.stderr.count("ovavel: ")
    assert "No space left on device" in done.stderr


def test_standard_error_on_a_full_disk_changes_no_exit_code() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*OVAVEL, "live", "--bundle", "/nowhere"], stdout=full, stderr=full, timeout=100)
    assert done.returncode == 1


KEPT = """
import contextlib, ctypes, sys
from pathlib import Path
from ovavel.runtime.system.memory import freed_at_once

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def block(size):
    pointer = libc.malloc(size)
    ctypes.memset(pointer, 1, size)
    return pointer

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])

libc.free(block(16 * 2**20))  # from now on, glibc takes such blocks from its heap
with freed_at_once() if sys.argv[1] == "inside" else contextlib.nullcontext():
    blocks = [block(2**20) for _ in range(32)]
    last = block(512 * 2**10)  # keeps the heap from shrinking at its end
    before = resident()
    for each in blocks:
        libc.free(each)
    print((before - resident()) * 4096 >> 20)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc")
def test_large_blocks_go_back_when_they_are_freed() -> None:
    freed_mb = {
        where: int(subprocess.run([sys.executable, "-c", KEPT, where], capture_output=True, check=True).stdout)
        for where in ("inside", "outside")
    }
    assert freed_mb["inside"] >= 30
    assert freed_mb["outside"] <= 2


def test_contexts_may_overlap() -> None:
    with freed_at_once(), freed_at_once():
        pass
