"""Names of processors: never one that another kind of processor could have, too."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from ovavel.runtime.system import hardware
from ovavel.runtime.system.hardware import cpu_features, cpu_name, device_name, gpu_name


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    asked = (cpu_features, cpu_name, gpu_name)
    for each in asked:
        each.cache_clear()
    yield
    for each in asked:
        each.cache_clear()


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The system's files by path; empty: there are none."""
    there: dict[str, str] = {}

    def read(path: Path) -> str:
        if str(path) not in there:
            raise FileNotFoundError(path)
        return there[str(path)]

    monkeypatch.setattr(Path, "read_text", read)
    return there


@pytest.fixture
def smi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Put an nvidia-smi in place that runs a few lines of shell; without cuda-python and its variables."""
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))

    def put(script: str) -> None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)

    return put


TWO_GPUS = """for each in "$@"; do
case "$each" in --id=0) echo Slow; exit;; --id=1|--id=GPU-fast) echo Fast; exit;; --id=*) exit 6;; esac
done
echo Slow; echo Fast"""


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("processor\t: 0\nmodel name\t: Some CPU @ 2.1 GHz\n", "Some CPU @ 2.1 GHz"),
        (
            "processor\t: 0\nCPU implementer\t: 0x41\nCPU variant\t: 0x3\nCPU part\t: 0xd0c\n\n"
            "processor\t: 1\nCPU implementer\t: 0x41\nCPU variant\t: 0x3\nCPU part\t: 0xd0c\n\n"
            "processor\t: 2\nCPU implementer\t: 0x41\nCPU variant\t: 0x0\nCPU part\t: 0xd05\n",
            "CPU implementer 0x41 part 0xd0c, implementer 0x41 part 0xd05",
        ),
    ],
)
def test_a_cpu_is_named_as_it_says(files: dict[str, str], cpuinfo: str, name: str) -> None:
    files["/proc/cpuinfo"] = cpuinfo
    assert device_name("cpu") == name


def test_a_cpu_without_a_name_has_this_machines(files: dict[str, str]) -> None:
    files["/etc/machine-id"] = "a" * 32
    here = cpu_name()
    assert "unnamed" in here
    assert "a" * 32 not in here
    cpu_name.cache_clear()
    assert cpu_name() == here
    cpu_name.cache_clear()
    files["/etc/machine-id"] = "b" * 32
    assert cpu_name() != here


INTEL = "processor\t: 0\nflags\t\t: fpu avx2 avx_vnni amx_int8\n\nprocessor\t: 1\nflags\t\t: fpu avx2 avx_vnni\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\n\nprocessor\t: 1\nFeatures\t: fp asimd asimddp\n"


@pytest.mark.parametrize(
    ("cpuinfo", "features"),
    [
        (INTEL, ("avx2", "avx_vnni")),  # what every core has
        (ARM, ("asimd", "asimddp")),
        ("processor\t: 0\nmodel name\t: hidden\n", ()),
        (None, ()),
    ],
)
def test_features_are_the_systems_where_the_c_library_says_nothing(
    cpuinfo: str | None, features: tuple[str, ...], files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bare:
        """A C library without the functions."""

    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda _: Bare())
    if cpuinfo is not None:
        files["/proc/cpuinfo"] = cpuinfo
    assert cpu_features() == features


def test_the_c_library_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_features_of_c_library", lambda: {"avx2"})
    assert cpu_features() == ("avx2",)  # whatever the host of an emulator or a container has


@pytest.mark.parametrize("reported", [b"Some GPU\0\0", b"Some GPU \0\xff left over\0"])
def test_cuda_itself_names_its_gpus(
    smi: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, reported: bytes
) -> None:
    smi("echo Other")
    properties = SimpleNamespace(name=reported)
    runtime = SimpleNamespace(cudaGetDeviceProperties=lambda index: (0, properties) if index == 1 else (101, None))
    monkeypatch.setitem(sys.modules, "cuda.bindings", SimpleNamespace(runtime=runtime))
    assert device_name("cuda:1") == "Some GPU"


def test_gpus_of_one_name_need_no_order(smi: Callable[[str], None]) -> None:
    smi("echo Some GPU; echo Some GPU")
    assert device_name("cuda:1") == "Some GPU"


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, None),  # CUDA's first may be the bus's second
        ({"CUDA_VISIBLE_DEVICES": "1"}, None),
        ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, "Slow"),
        ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "1,0"}, "Fast"),
        ({"CUDA_VISIBLE_DEVICES": "GPU-fast"}, "Fast"),
    ],
)
def test_gpus_with_different_names_are_identified_or_unnamed(
    smi: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], name: str | None
) -> None:
    smi(TWO_GPUS)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    reported = device_name("cuda")
    assert reported == name if name else reported.startswith("unnamed GPU")


def test_a_gpu_without_a_name_has_this_machines(
    smi: Callable[[str], None], files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware.uuid, "getnode", lambda: 1)
    here = gpu_name(0)
    assert here.startswith("unnamed GPU 0 of machine ")
    assert gpu_name(1) != here
    gpu_name.cache_clear()
    monkeypatch.setattr(hardware.uuid, "getnode", lambda: 2)
    assert gpu_name(0) != here
