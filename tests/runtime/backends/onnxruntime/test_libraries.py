"""Where ONNX Runtime's CUDA libraries are looked for, and what is said of those that are missing."""

from __future__ import annotations

import json
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

from ovavel.runtime.backends.onnxruntime.cuda import OLDEST_FOR_HEAD, OLDEST_TO_RECORD, check_head, check_recording
from ovavel.runtime.backends.onnxruntime.libraries import load_cuda_libraries, missing_libraries
from ovavel.runtime.backends.tensorrt.library import EXTRAS as TENSORRT_EXTRAS
from ovavel.runtime.commands import doctor
from ovavel.runtime.errors import DeviceError
from ovavel.runtime.install import RUNTIMES, replace_runtime

ROOT = Path(__file__).parents[4]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
RELEASE = json.loads((ROOT / "tests" / "golden" / "onnxruntime_gpu.json").read_text())
"""What the oldest wheel of onnxruntime-gpu that is allowed says of itself (docs/benchmarks/first-ten-minutes.md)."""


class FakeRuntime(SimpleNamespace):
    """ONNX Runtime's function, as far as it looks into folders and prints."""

    def __init__(self, *needed: str) -> None:
        super().__init__(asked=[], missing=set(needed))

    def preload_dlls(self, directory: str | None = None) -> None:
        self.asked.append(directory)
        if directory:
            self.missing -= {path.name for path in Path(directory).iterdir()}
        for name in sorted(self.missing):
            print(f"Failed to load {name}: {name}: cannot open shared object file")


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two folders on Python's path that each hold a part of the namespace."""
    places = (tmp_path / "one", tmp_path / "two")
    for place, library in zip(places, ("cu13/lib/libcublas.so.13", "cudnn/lib/libcudnn.so.9"), strict=True):
        file = place / "nvidia" / library
        file.parent.mkdir(parents=True)
        file.touch()
        monkeypatch.syspath_prepend(str(place))
    for name in [name for name in sys.modules if name.split(".")[0] == "nvidia"]:
        monkeypatch.delitem(sys.modules, name)
    return places


def test_every_part_of_the_namespace_is_searched(parts: tuple[Path, Path], capfd: pytest.CaptureFixture[str]) -> None:
    runtime = FakeRuntime("libcublas.so.13", "libcudnn.so.9")
    assert load_cuda_libraries(runtime) == ()
    assert {str(parts[0] / "nvidia/cu13/lib"), str(parts[1] / "nvidia/cudnn/lib")} <= set(runtime.asked)
    assert capfd.readouterr().out == ""


def test_what_is_missing_is_named(parts: tuple[Path, Path], capfd: pytest.CaptureFixture[str]) -> None:
    runtime = FakeRuntime("libcublas.so.13", "libcufft.so.12")
    assert missing_libraries(runtime).startswith("Install libcufft.so.12, ")
    assert "nvidia-smi (CUDA 13 needs 580 or newer)" in missing_libraries(FakeRuntime())
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(("version", "replays"), [("1.29.1", False), ("1.30.0", True), ("2.0.0", True), ("?", False)])
def test_older_versions_do_not_record(version: str, replays: bool) -> None:
    if replays:
        check_recording(version)
    else:
        with pytest.raises(DeviceError, match=r"1\.30 or newer .*cuda_graphs=False"):
            check_recording(version)


@pytest.mark.parametrize(("version", "runs"), [("1.26.0", False), ("1.27.0", True), ("?", False)])
def test_older_versions_do_not_run_the_head(version: str, runs: bool) -> None:
    if runs:
        check_head(version)
    else:
        with pytest.raises(DeviceError, match=r"cannot run the head on a GPU; 1\.27 or newer .*--device cpu"):
            check_head(version)


def test_the_extra_asks_for_a_version_that_does_all_that_the_code_demands() -> None:
    (gpu,) = map(Requirement, EXTRAS["gpu"])
    for major, minor in (OLDEST_TO_RECORD, OLDEST_FOR_HEAD):
        assert not gpu.specifier.contains(f"{major}.{minor - 1}.99")
        check_recording(RELEASE["version"])
        check_head(RELEASE["version"])
    assert gpu.specifier.contains(RELEASE["version"]), "the golden file is of the oldest version that is allowed"
    assert [each.version for each in gpu.specifier] == [".".join(RELEASE["version"].split(".")[:2])]


def test_the_extra_brings_every_library_that_onnxruntime_is_linked_with() -> None:
    (gpu,) = map(Requirement, EXTRAS["gpu"])
    assert gpu.extras <= RELEASE["extras"].keys(), "pip only warns of an extra that does not exist"
    brought = {Requirement(each).name for extra in gpu.extras for each in RELEASE["extras"][extra]}
    brought |= {name for each in brought for name in RELEASE["brought"].get(each, ())}
    assert set(RELEASE["needed"].values()) <= brought
    first_steps = (ROOT / "docs" / "benchmarks" / "first-ten-minutes.md").read_text()
    assert f"built for CUDA {RELEASE['cuda'].partition('.')[0]}" in first_steps


@pytest.mark.parametrize("text", sorted({text for group in EXTRAS.values() for text in group if "[" in text}))
def test_every_extra_that_is_asked_for_exists(text: str) -> None:
    asked = Requirement(text)
    if asked.name == "ovavel":
        known = set(EXTRAS)
    else:
        try:
            known = set(metadata(asked.name).get_all("Provides-Extra") or ())
        except PackageNotFoundError:
            if asked.name != "onnxruntime-gpu":
                pytest.skip(f"{asked.name} is not installed")
            known = set(RELEASE["extras"])
    assert asked.extras <= known


def test_every_extra_that_an_advice_names_exists() -> None:
    assert {*RUNTIMES.values(), *TENSORRT_EXTRAS.values(), *(extra for _, extra, _ in doctor.OPTIONAL.values())} <= set(
        EXTRAS
    )


def test_one_advice_removes_both_runtimes() -> None:
    assert replace_runtime("gpu").startswith("pip uninstall -y onnxruntime onnxruntime-gpu && pip install ")
    assert doctor.replace_runtime is replace_runtime
