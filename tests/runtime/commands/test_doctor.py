"""`ovavel doctor` and the lists of devices."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ovavel.runtime.commands import doctor
from ovavel.runtime.commands.doctor import Doctor
from ovavel.runtime.errors import DeviceError, MissingExtraError
from ovavel.runtime.install import RUNTIMES, install_command, replace_runtime
from ovavel.runtime.sources import devices
from ovavel.runtime.sources.devices import Camera, Devices, Microphone, list_cameras, list_devices


def report(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict]:
    capsys.readouterr()
    code = Doctor(json=True).run()
    return code, json.loads(capsys.readouterr().out)


def test_json_names_what_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = report(capsys)
    assert code == 0
    assert found["can_localize"] is True
    assert "CPUExecutionProvider" in found["providers"]
    assert found["python"] == sys.version.split()[0]
    assert found["libraries"]["numpy"] == __import__("numpy").__version__
    assert found["libraries"]["av"] == __import__("av").__version__


def test_text_says_whether_localize_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert Doctor().run() == 0
    out = capsys.readouterr().out
    assert "ovavel localize can run here" in out
    assert "CPUExecutionProvider" in out


@pytest.mark.parametrize(
    ("features", "shown", "precisions"),
    [
        (("avx2",), "avx2", ["int8-any", "fp32", "fp16", "int8-any-pooled", "fp32-pooled", "int16-any"]),
        ((), "hidden", ["int8-any", "fp32", "fp16", "int8-any-pooled", "fp32-pooled", "int16-any"]),
        (
            ("asimd", "asimddp"),
            "asimd, asimddp",
            ["int8", "int8-any", "int16", "int16-any", "fp32", "fp16", "int8-pooled", "int8-any-pooled", "fp32-pooled"],
        ),
    ],
)
def test_it_says_what_the_cpu_computes_exactly(
    features: tuple[str, ...],
    shown: str,
    precisions: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ovavel.runtime.system.hardware.cpu_features", lambda: features)
    _, found = report(capsys)
    assert (found["cpu_features"], found["cpu_precisions"]) == (list(features), precisions)
    Doctor().run()
    out = capsys.readouterr().out
    assert shown in out
    assert precisions[0] in out


def test_both_runtimes_are_warned_of(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    installed = doctor.installed_version
    both = {"onnxruntime": "1.23.0", "onnxruntime-gpu": "1.23.0"}
    monkeypatch.setattr(doctor, "installed_version", lambda name: both.get(name) or installed(name))
    _, found = report(capsys)
    (problem,) = (each for each in found["problems"] if "overwrite each other" in each["what"])
    assert problem["fix"].startswith(replace_runtime("gpu")), "removing one of them would break the other"


@pytest.mark.parametrize("runtime", ["onnxruntime", "onnxruntime-gpu"])
def test_a_runtime_that_cannot_be_loaded_is_replaced_by_the_same(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    installed = doctor.installed_version
    versions = {**dict.fromkeys(RUNTIMES), runtime: "1.30.0"}
    monkeypatch.setattr(doctor, "installed_version", lambda name: versions.get(name, installed(name)))
    monkeypatch.setattr(doctor, "_providers", lambda: ([], "libcudart.so.13: cannot open shared object file"))
    monkeypatch.setattr(doctor, "_gpus", lambda: [{"name": "NVIDIA H200"}])
    _, found = report(capsys)
    assert {
        "what": "ONNX Runtime cannot be loaded: libcudart.so.13: cannot open shared object file",
        "fix": replace_runtime(RUNTIMES[runtime]),
    } in found["problems"]
    assert sum("ONNX Runtime" in problem["what"] for problem in found["problems"]) == 1, "one advice"


@pytest.mark.parametrize(("driver", "old"), [("575.57.08", True), ("580.65.06", False), ("[N/A]", False)])
def test_a_driver_that_is_too_old_for_cuda_13_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, driver: str, old: bool
) -> None:
    gpu = {"name": "NVIDIA H200", "memory.total": "143771 MiB", "driver_version": driver}
    monkeypatch.setattr(doctor, "_gpus", lambda: [gpu])
    monkeypatch.setattr(doctor, "_providers", lambda: (["CUDAExecutionProvider", "CPUExecutionProvider"], None))
    _, found = report(capsys)
    said = [each["what"] for each in found["problems"] if "driver" in each["what"]]
    assert said == [f"the driver {driver} of NVIDIA H200 is too old for {doctor._NEEDS_DRIVER}"] * old


@pytest.mark.parametrize("gpus", [[], [{"name": "NVIDIA H200"}]])
def test_no_runtime_fails_and_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, gpus: list[dict[str, str]]
) -> None:
    monkeypatch.setattr(doctor, "_gpus", lambda: gpus)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    installed = doctor.installed_version
    monkeypatch.setattr(doctor, "installed_version", lambda name: None if "onnxruntime" in name else installed(name))
    code, found = report(capsys)
    assert code == 1
    (problem,) = (each for each in found["problems"] if "ONNX Runtime" in each["what"])
    assert problem["fix"] == install_command("gpu" if gpus else "cpu")
    assert Doctor().run() == 1
    assert "cannot run here" in capsys.readouterr().out


@pytest.mark.parametrize("installed", [True, False])
def test_openvino_is_shown_with_its_version_or_its_extra(
    installed: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = doctor.version_of
    if installed:
        pytest.importorskip("openvino")
    else:
        monkeypatch.setattr(
            doctor, "version_of", lambda name, module: version(name, module) if name != "openvino" else None
        )
    _, found = report(capsys)
    reported = found["engine_libraries"]["openvino"]
    assert reported["version"] == (version("openvino", "openvino") if installed else None)
    assert not any("openvino" in problem["what"] for problem in found["problems"])
    Doctor().run()
    line = next(line for line in capsys.readouterr().out.splitlines() if "openvino" in line)
    assert ("can run here" in line) if installed else (install_command("openvino") in line)


def test_missing_extra_names_its_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor.OPTIONAL, "sounddevice", ("no_such_module_here", "live", "microphones"))
    _, found = report(capsys)
    assert {"what": "sounddevice not installed (microphones)", "fix": install_command("live")} in found["problems"]


def test_portaudio_not_installed_names_the_package(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    with pytest.raises(DeviceError, match="apt install libportaudio2"):
        devices.load_sounddevice()
    assert any("libportaudio2" in problem for problem in list_devices().problems)
    code, found = report(capsys)
    assert code == 0
    assert any("libportaudio2" in problem["fix"] for problem in found["problems"])


def test_sounddevice_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(MissingExtraError, match=r"\[live\]"):
        devices.load_sounddevice()


def test_cameras_are_listed_by_the_kernels_names(tmp_path: Path) -> None:
    for node, name, index in (("video0", "Front Camera", 0), ("video1", "Front Camera", 1), ("video10", "Capture", 0)):
        (tmp_path / node).mkdir()
        (tmp_path / node / "name").write_text(f"{name}\n")
        (tmp_path / node / "index").write_text(f"{index}\n")
    assert list_cameras(folder=tmp_path) == (
        Camera(index=0, name="Front Camera", path="/dev/video0"),
        Camera(index=10, name="Capture", path="/dev/video10"),
    )
    assert list_cameras(folder=tmp_path / "none") == ()


def test_devices_print_as_a_list() -> None:
    text = str(
        Devices(
            cameras=(Camera(index=0, name="Front"),),
            microphones=(Microphone(index=3, name="USB", channels=1, rate_hz=48_000, default=True),),
            problems=("something is missing",),
        )
    )
    assert "0  Front" in text
    assert "3  USB, 1 in, 48000 Hz  (default)" in text
    assert text.endswith("something is missing")
    assert str(Devices(cameras=(), microphones=())).count("none found") == 2


def test_the_command_loads_nothing_heavy() -> None:
    code = (
        "import sys, ovavel.runtime.commands.doctor;"
        "print(*{'av', 'cv2', 'numpy', 'onnxruntime', 'rich', 'sounddevice', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""
