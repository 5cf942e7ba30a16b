"""Where ONNX Runtime's CUDA libraries are looked for, and what is said of those that are missing."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

from ovavel.runtime.backends.onnxruntime_cuda import check_recording
from ovavel.runtime.backends.onnxruntime_libraries import load_cuda_libraries, missing_libraries
from ovavel.runtime.commands import doctor
from ovavel.runtime.errors import DeviceError
from ovavel.runtime.install import replace_runtime


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
    assert "nvidia-smi" in missing_libraries(FakeRuntime())
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(("version", "replays"), [("1.29.1", False), ("1.30.0", True), ("2.0.0", True), ("?", False)])
def test_older_versions_do_not_record(version: str, replays: bool) -> None:
    if replays:
        check_recording(version)
    else:
        with pytest.raises(DeviceError, match=r"1\.30 or newer .*cuda_graphs=False"):
            check_recording(version)


def test_the_extra_asks_for_a_version_that_replays_and_for_its_libraries() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    (gpu,) = map(Requirement, project["optional-dependencies"]["gpu"])
    assert gpu.extras == {"cuda", "cudnn"}
    assert not gpu.specifier.contains("1.29.9")
    assert gpu.specifier.contains("1.30.0")


def test_one_advice_removes_both_runtimes() -> None:
    assert replace_runtime("gpu").startswith("pip uninstall -y onnxruntime onnxruntime-gpu && pip install ")
    assert doctor.replace_runtime is replace_runtime
