"""A bundle that somebody damaged, by chance or by intent, is refused in one line, or decides exactly as before.

Files are damaged under the hashes of the manifest, and with the manifest's hashes made right again: a bundle that is
whole and hostile. No file is opened that the manifest does not list, and none a second time after it was hashed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.bundle_judge import Judge, judging
from support.demo_copies import BUNDLE
from support.opened_files import OpenedFiles

FILES = sorted(file.name for file in BUNDLE.iterdir())
QUICK, SLOW = 16, 154


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    with judging(BUNDLE, tmp_path_factory.mktemp("damaged")) as judge:
        yield judge


def test_what_a_library_opens_is_seen(tmp_path: Path) -> None:
    for name in ("listed", "unlisted"):
        (tmp_path / name).write_bytes(b"x")
    opened = OpenedFiles([tmp_path])
    (tmp_path / "listed").stat()
    assert not opened.take()
    libc = ctypes.CDLL(None)
    libc.fopen.restype, libc.fclose.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    libc.fclose(libc.fopen(bytes(tmp_path / "unlisted"), b"r"))
    assert opened.take() == {tmp_path / "unlisted": 1}
    opened.close()


def faults(judge: Judge, name: str, seeds: range) -> dict[str, str]:
    """Every second one has its hash made right; most of the others end there."""
    found = {seed: judge.fault(name, seed, relisted=bool(seed % 2)) for seed in seeds}
    return {f"{name} {seed}": fault for seed, fault in found.items() if fault}


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_refused_or_changes_nothing(judge: Judge, name: str) -> None:
    assert not faults(judge, name, range(QUICK))


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", FILES)
def test_2000_damaged_files_are_refused_or_change_nothing(judge: Judge, name: str) -> None:
    assert len(FILES) * SLOW >= 2000
    assert not faults(judge, name, range(QUICK, QUICK + SLOW))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["vision.onnx", "audio.onnx", "head.onnx", "head.onnx.data"])
def test_openvino_gets_no_damaged_graph_either(judge: Judge, name: str) -> None:
    if not find_spec("openvino"):
        pytest.skip("openvino is not installed")
    for seed in range(1, 41, 2):
        assert not judge.fault(name, seed, relisted=True, backend="openvino")
