"""What is loaded is what was hashed: from memory, whatever becomes of the files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ovavel.runtime.backends import open_backend
from ovavel.runtime.backends.onnxruntime.sessions import open_session
from ovavel.runtime.bundle import hashed
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.hashed import HashedFile, read_graph
from ovavel.runtime.errors import BundleError

FP32 = {"vision": "fp32", "audio": "fp32", "head": "fp32"}


@pytest.fixture(params=["read", "mapped"])
def bundle(tiny_bundle: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """With files in memory, or mapped as large ones are."""
    if request.param == "mapped":
        monkeypatch.setattr(hashed, "_COPIED_BYTES", 0)
    return Bundle.open(tiny_bundle)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_no_file_of_the_folder_is_read_once_it_was_hashed(bundle: Bundle, name: str, exported_bundle: Path) -> None:
    pytest.importorskip(name)
    frames = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    expected = open_backend(Bundle.open(exported_bundle), name=name, device="cpu", precision="fp32").vision(frames)
    bundle.load(FP32)
    for file in bundle.path.iterdir():
        file.unlink()
        file.write_bytes(b"something else")
    backend = open_backend(bundle, name=name, device="cpu", precision="fp32")
    np.testing.assert_array_equal(backend.vision(frames), expected)
    backend.close()


def test_without_weights_in_memory_no_folder_is_searched(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Bundle.open(tiny_bundle).load({"vision": "fp32"})["vision"]
    monkeypatch.chdir(tiny_bundle)  # where ONNX Runtime would look
    with pytest.raises(BundleError, match=r"vision\.onnx"):
        open_session(hashed.GraphFiles(path=files.path, graph=files.graph, weights={}, tensors=()), None, 1)


def test_several_sessions_share_what_was_hashed(bundle: Bundle) -> None:
    first, second = bundle.load(FP32)["vision"], bundle.load({"vision": "fp32"})["vision"]
    assert first.weights["vision.onnx.data"] is second.weights["vision.onnx.data"]
    assert first.graph is second.graph


def test_a_file_that_is_written_to_while_it_is_loaded_is_refused(bundle: Bundle) -> None:
    files = bundle.load(FP32)["audio"]
    weights = bundle.path / "audio.onnx.data"

    def load_while_somebody_writes() -> None:
        with files.loading():
            found = weights.stat()
            with weights.open("r+b") as file:
                file.write(b"\0\0\0\0")
            os.utime(weights, ns=(found.st_atime_ns, found.st_mtime_ns))  # it looks as before

    with pytest.raises(BundleError, match=r"audio\.onnx\.data was changed while it was read"):
        load_while_somebody_writes()


def test_altered_weights_are_refused_before_anything_is_computed(bundle: Bundle) -> None:
    weights = bundle.path / "audio.onnx.data"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(BundleError, match=r"audio\.onnx\.data was altered"):
        open_backend(bundle, device="cpu", precision="fp32")
    with pytest.raises(BundleError, match=r"audio\.onnx\.data was altered"):
        bundle.check()


def test_a_hash_that_cannot_be_computed_is_raised_where_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise MemoryError("no memory to hash")

    (tmp_path / "weights").write_bytes(b"weights")
    monkeypatch.setattr(hashed, "_COPIED_BYTES", 0)
    monkeypatch.setattr("hashlib.sha256", fail)
    file = HashedFile(tmp_path / "weights")
    with pytest.raises(MemoryError, match="no memory to hash"):
        file.check()


def test_a_private_copy_holds_what_was_hashed_and_is_gone_afterwards(bundle: Bundle) -> None:
    files = bundle.load(FP32)["audio"]
    weights = bytes(files.weights["audio.onnx.data"].data)
    with files.private() as path:
        assert path.read_bytes() == bytes(files.graph.data)
        assert (path.parent / "audio.onnx.data").read_bytes() == weights
        assert path.parent.stat().st_mode & 0o077 == 0
    assert not path.parent.exists()


@pytest.mark.parametrize("kind", ["fifo", "folder", "nothing"])
def test_what_is_not_a_regular_file_is_refused_and_waited_for_by_nobody(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "vision.onnx"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    with pytest.raises((BundleError, OSError)):
        HashedFile(path)
    with pytest.raises(BundleError, match=r"vision\.onnx"):
        read_graph(path)


def test_a_mapped_file_is_hashed_without_being_resident_as_a_whole(tmp_path: Path) -> None:
    size = 64 * 2**20
    (tmp_path / "weights").write_bytes(os.urandom(2**20) * (size // 2**20))
    code = (
        "import sys; from pathlib import Path; from ovavel.runtime.bundle.hashed import HashedFile\n"
        "def peak(): return int(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])\n"
        "before = peak(); file = HashedFile(Path(sys.argv[1])); print(peak() - before, file.entry.bytes)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "weights")], capture_output=True, check=True)
    grown_kib, hashed_bytes = map(int, done.stdout.split())
    assert hashed_bytes == size
    assert grown_kib * 1024 < size // 2
