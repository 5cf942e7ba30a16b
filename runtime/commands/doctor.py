"""The `ovavel doctor` command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec import Struct

from ovavel.runtime.commands.options import Maybe
from ovavel.runtime.errors import UsageError
from ovavel.runtime.install import RUNTIMES, install_command, installed_version, replace_runtime, version_of
from ovavel.runtime.sources.devices import Camera, Microphone

if TYPE_CHECKING:
    from rich.console import Console

    from ovavel.runtime.backends.tensorrt.library import LibraryName

__all__ = ["Doctor"]

REQUIRED = {
    "numpy": "numpy",
    "av": "av",
    "Pillow": "PIL",
    "soxr": "soxr",
    "tokenizers": "tokenizers",
    "ftfy": "ftfy",
    "msgspec": "msgspec",
    "rich": "rich",
    "tyro": "tyro",
}
"""Distributions that ovavel always needs, and the modules they bring."""
_OLDEST_DRIVER = 580
_NEEDS_DRIVER = f"onnxruntime-gpu, which is for CUDA 13 and needs {_OLDEST_DRIVER} or newer"
_DRIVER = "update the NVIDIA driver"
_OPENVINO = "openvino"
"""Name of the backend, its distribution, module and extra."""
OPTIONAL = {
    "opencv-python-headless": ("cv2", "live", "cameras"),
    "sounddevice": ("sounddevice", "live", "microphones"),
    "torch": ("torch", "train", "export and training"),
    "safetensors": ("safetensors", "train", "export and training"),
    "onnx": ("onnx", "export", "export"),
    "onnxscript": ("onnxscript", "export", "export"),
}
"""Distributions of the extras: module, extra, and what needs it."""


class Problem(Struct, frozen=True, kw_only=True):
    """Something that is missing or does not work."""

    what: str
    fix: str
    """What to do about it, a command where there is one; empty where nothing is known."""


class EngineLibrary(Struct, frozen=True, kw_only=True):
    """A library besides ONNX Runtime that can run a bundle. Each is optional on every machine."""

    version: str | None
    """None where it is not installed."""
    problem: str | None
    """Why it cannot run here; None where it can."""
    extra: str
    """Extra that installs it."""


class Findings(Struct, frozen=True, kw_only=True):
    """What this machine has."""

    ovavel: str | None
    python: str
    system: str
    processor: str
    cpu_features: tuple[str, ...]
    cpu_precisions: tuple[str, ...]
    """Precisions that this CPU computes exactly; the first that a bundle has runs by default."""
    cores: int | None
    cameras: tuple[Camera, ...]
    microphones: tuple[Microphone, ...]
    gpus: list[dict[str, str]]
    """As nvidia-smi names them: name, memory.total, driver_version."""
    providers: list[str]
    """ONNX Runtime's execution providers."""
    engine_libraries: dict[str, EngineLibrary]
    libraries: dict[str, str | None]
    """Distribution → version; null where it is not installed."""
    problems: list[Problem]
    can_localize: bool
    """Whether `ovavel localize` can run here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doctor:
    """Check this machine's hardware and libraries, or a camera, and show what is missing and what to change.

    Lists the CPU's features and the precisions that it computes exactly, cameras, microphones, ONNX Runtime's execution
    providers, the GPU, OpenVINO, TensorRT, and the libraries' versions.
    Exits with 0 if `ovavel localize` can run here, and with 1 if it cannot.

    With --camera it watches that camera for ten seconds instead: codecs, size, rates, key frames, sound, time stamps,
    and how many seconds came whole. Exits with 1 where no events can be found in what it sends.

    Examples:
        ovavel doctor --json
        ovavel doctor --camera rtsp://camera.local/1
        ovavel doctor --camera 0 --microphone "USB Audio"
    """

    json: bool = False
    """Print one JSON object instead of tables."""
    camera: Maybe[str] = None
    """Address or file to watch, or index or device file of a camera of this machine; "@FILE" reads it from the first
    line of a file, "env:NAME" from a variable."""
    microphone: Maybe[str] = None
    """Index, name or part of the name of the microphone that listens beside the camera, or "default"."""

    def run(self) -> int:
        """Check the machine or the camera, and print the findings."""
        if self.camera is not None:
            from ovavel.runtime.commands.doctor_camera import examine_camera

            return examine_camera(self.camera, self.microphone, as_json=self.json)
        if self.microphone is not None:
            raise UsageError("--microphone listens beside a camera; give --camera as well")
        report = _examine()
        if self.json:
            from ovavel.runtime.sinks.as_json import to_json_bytes

            print(to_json_bytes(report, indent=2).decode())
        else:
            from ovavel.runtime.reporting.console import OutputConsole

            _print_tables(report, OutputConsole())
        return 0 if report.can_localize else 1


def _examine() -> Findings:
    import os
    import platform

    from ovavel.runtime.backends.tensorrt.library import EXTRAS
    from ovavel.runtime.bundle.precision import exact_precisions
    from ovavel.runtime.sources.devices import list_devices
    from ovavel.runtime.system.hardware import cpu_features

    devices = list_devices()
    required = {name: version_of(name, module) for name, module in REQUIRED.items()}
    optional = {name: version_of(name, module) for name, (module, _, _) in OPTIONAL.items()}
    runtimes = {name: installed_version(name) for name in RUNTIMES}
    providers, broken = _providers()
    problems = [
        Problem(what=f"{name} is not installed", fix=install_command()) for name, at in required.items() if not at
    ]
    gpus = _gpus()
    if not any(runtimes.values()):
        fix = install_command("gpu" if gpus else "cpu")
        problems.append(Problem(what="ONNX Runtime is not installed", fix=fix))
    elif all(runtimes.values()):
        fix = f"{replace_runtime('gpu')}   # or [cpu]"
        problems.append(
            Problem(what="onnxruntime and onnxruntime-gpu are both installed and overwrite each other", fix=fix)
        )
    elif broken:
        fix = replace_runtime(next(RUNTIMES[name] for name, at in runtimes.items() if at))
        problems.append(Problem(what=f"ONNX Runtime cannot be loaded: {broken}", fix=fix))
    missing: dict[tuple[str, str], list[str]] = {}
    for name, (_, extra, need) in OPTIONAL.items():
        if not optional[name]:
            missing.setdefault((extra, need), []).append(name)
    for (extra, need), names in missing.items():
        problems.append(Problem(what=f"{', '.join(names)} not installed ({need})", fix=install_command(extra)))
    if not any("sounddevice" in name for names in missing.values() for name in names):
        problems += [_split(problem) for problem in devices.problems]
    if gpus and providers and "CUDAExecutionProvider" not in providers:
        problems.append(Problem(what="there is a GPU, but this ONNX Runtime cannot use it", fix=replace_runtime("gpu")))
    if "CUDAExecutionProvider" in providers:
        problems += [
            Problem(
                what=f"the driver {gpu['driver_version']} of {gpu['name']} is too old for {_NEEDS_DRIVER}", fix=_DRIVER
            )
            for gpu in gpus
            if _major(gpu.get("driver_version", "")) < _OLDEST_DRIVER
        ]
    engines: dict[str, EngineLibrary] = {
        _OPENVINO: _openvino(),
        **{name: _engine_library(name, extra) for name, extra in EXTRAS.items()},
    }
    problems += [
        Problem(what=f"{name} {library.problem}", fix=install_command(library.extra))
        for name, library in engines.items()
        if (gpus or name == _OPENVINO) and library.version and library.problem
    ]
    return Findings(
        ovavel=installed_version("ovavel"),
        python=platform.python_version(),
        system=platform.platform(),
        processor=_processor(),
        cpu_features=cpu_features(),
        cpu_precisions=exact_precisions("onnxruntime-cpu", cpu_features()),
        cores=os.cpu_count(),
        cameras=devices.cameras,
        microphones=devices.microphones,
        gpus=gpus,
        providers=providers,
        engine_libraries=engines,
        libraries={**required, **runtimes, **optional},
        problems=problems,
        can_localize=all(required.values()) and "CPUExecutionProvider" in providers,
    )


def _major(version: str) -> float:
    """The first number of a version; where there is none, nothing is known against it."""
    number = version.partition(".")[0]
    return int(number) if number.isdecimal() else float("inf")


def _split(message: str) -> Problem:
    """What is wrong, and the command after "with: "."""
    what, _, fix = message.partition(" Install it with: ")
    return Problem(what=what, fix=fix)


def _providers() -> tuple[list[str], str | None]:
    """Execution providers of the installed ONNX Runtime, or why it cannot be loaded."""
    try:
        import onnxruntime

        return list(onnxruntime.get_available_providers()), None
    except (ImportError, OSError, AttributeError) as error:
        return [], str(error)


def _openvino() -> EngineLibrary:
    from ovavel.runtime.backends.openvino import load_openvino

    version = version_of(_OPENVINO, _OPENVINO)
    if version is None:
        return EngineLibrary(version=None, problem="is not installed", extra=_OPENVINO)
    try:
        load_openvino()
    except (ImportError, OSError) as error:
        return EngineLibrary(version=version, problem=f"cannot be loaded: {error}", extra=_OPENVINO)
    return EngineLibrary(version=version, problem=None, extra=_OPENVINO)


def _engine_library(name: LibraryName, extra: str) -> EngineLibrary:
    from importlib.util import find_spec

    from ovavel.runtime.backends.tensorrt.cuda import Cuda
    from ovavel.runtime.backends.tensorrt.library import load_library
    from ovavel.runtime.errors import OvavelError

    if find_spec(name.replace("-", "_")) is None:
        return EngineLibrary(version=None, problem="is not installed", extra=extra)
    version = "unknown"
    try:
        version = load_library(name).version
        Cuda(name, 0)
    except OvavelError as error:
        return EngineLibrary(version=version, problem=f"cannot run here: {error}", extra=extra)
    return EngineLibrary(version=version, problem=None, extra=extra)


def _gpus() -> list[dict[str, str]]:
    """What nvidia-smi lists; empty where there is none."""
    import subprocess

    fields = ["name", "memory.total", "driver_version"]
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [dict(zip(fields, line.split(", "), strict=False)) for line in done.stdout.splitlines() if line.strip()]


def _processor() -> str:
    import platform
    from pathlib import Path

    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _print_tables(report: Findings, console: Console) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("", "", show_header=False, box=None, pad_edge=False)

    def row(title: str, *values: str) -> None:
        for index, value in enumerate(values or ("none found",)):
            table.add_row("" if index else f"[bold]{title}", escape(value))

    row("ovavel", f"{report.ovavel}, Python {report.python}")
    row("Machine", f"{report.processor}, {report.cores} cores, {report.system}")
    row("CPU features", ", ".join(report.cpu_features) or "none that matter to ovavel, or hidden ones")
    by_default = "the first that a bundle has runs by default, pooled sound only if asked for"
    row("CPU precisions", f"{', '.join(report.cpu_precisions)}: {by_default}")
    row("GPU", *(", ".join(gpu.values()) for gpu in report.gpus))
    row("Providers", *report.providers)
    row(
        "Engines",
        *(
            f"{name} {library.version} – {library.problem or 'can run here'}"
            if library.version
            else f"{name} – {library.problem}; {install_command(library.extra)}"
            for name, library in report.engine_libraries.items()
        ),
    )
    row("Cameras", *(f"{camera.index}: {camera.name}" for camera in report.cameras))
    microphones = report.microphones
    row("Microphones", *(f"{each.index}: {each.name}{' (default)' if each.default else ''}" for each in microphones))
    row("Libraries", *(f"{name} {version or '– not installed'}" for name, version in report.libraries.items()))
    console.print(table)
    console.print()
    for problem in report.problems:
        console.print(f"[yellow]![/] {escape(problem.what)}", soft_wrap=True)
        if problem.fix:
            console.print(f"    {escape(problem.fix)}", soft_wrap=True)
    if report.can_localize:
        console.print("[green]ovavel localize can run here.")
    else:
        console.print("[red]ovavel localize cannot run here; see above.")
