"""The `ovavel doctor` command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ovavel.runtime.install import RUNTIMES, install_command, replace_runtime

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Doctor:
    """Check this machine's hardware and libraries, and show how to install what is missing.

    Lists the CPU's features and the precisions that it computes exactly, cameras, microphones, ONNX Runtime's execution
    providers, the GPU, OpenVINO, TensorRT, and the libraries' versions.
    Exits with 0 if `ovavel localize` can run here, and with 1 if it cannot.

    Example: ovavel doctor --json
    """

    json: bool = False
    """Print one JSON object instead of tables."""

    def run(self) -> int:
        """Check the machine and print the findings."""
        report = _examine()
        if self.json:
            from ovavel.runtime.sinks.records import to_json_bytes

            print(to_json_bytes(report, indent=2).decode())
        else:
            from ovavel.runtime.reporting.console import OutputConsole

            _print_tables(report, OutputConsole())
        return 0 if report["can_localize"] else 1


def _examine() -> dict[str, Any]:
    import os
    import platform

    from ovavel.runtime.backends.tensorrt.library import EXTRAS
    from ovavel.runtime.bundle.precision import exact_precisions
    from ovavel.runtime.sources.devices import list_devices
    from ovavel.runtime.system.hardware import cpu_features

    devices = list_devices()
    required = {name: _version(name, module) for name, module in REQUIRED.items()}
    optional = {name: _version(name, module) for name, (module, _, _) in OPTIONAL.items()}
    runtimes = {name: _installed_version(name) for name in RUNTIMES}
    providers, broken = _providers()
    problems = [_problem(f"{name} is not installed", install_command()) for name, at in required.items() if not at]
    gpus = _gpus()
    if not any(runtimes.values()):
        fix = install_command("gpu" if gpus else "cpu")
        problems.append(_problem("ONNX Runtime is not installed", fix))
    elif all(runtimes.values()):
        fix = f"{replace_runtime('gpu')}   # or [cpu]"
        problems.append(_problem("onnxruntime and onnxruntime-gpu are both installed and overwrite each other", fix))
    elif broken:
        fix = replace_runtime(next(RUNTIMES[name] for name, at in runtimes.items() if at))
        problems.append(_problem(f"ONNX Runtime cannot be loaded: {broken}", fix))
    missing: dict[tuple[str, str], list[str]] = {}
    for name, (_, extra, need) in OPTIONAL.items():
        if not optional[name]:
            missing.setdefault((extra, need), []).append(name)
    for (extra, need), names in missing.items():
        problems.append(_problem(f"{', '.join(names)} not installed ({need})", install_command(extra)))
    if not any("sounddevice" in name for names in missing.values() for name in names):
        problems += [_problem(*_split(problem)) for problem in devices.problems]
    if gpus and providers and "CUDAExecutionProvider" not in providers:
        problems.append(_problem("there is a GPU, but this ONNX Runtime cannot use it", replace_runtime("gpu")))
    if "CUDAExecutionProvider" in providers:
        problems += [
            _problem(f"the driver {gpu['driver_version']} of {gpu['name']} is too old for {_NEEDS_DRIVER}", _DRIVER)
            for gpu in gpus
            if _major(gpu.get("driver_version", "")) < _OLDEST_DRIVER
        ]
    # These are optional on every machine.
    engines: dict[str, dict[str, str | None]] = {
        _OPENVINO: {**_openvino(), "extra": _OPENVINO},
        **{name: {**_engine_library(name), "extra": extra} for name, extra in EXTRAS.items()},
    }
    problems += [
        _problem(f"{name} {state['problem']}", install_command(str(state["extra"])))
        for name, state in engines.items()
        if (gpus or name == _OPENVINO) and state["version"] and state["problem"]
    ]
    return {
        "ovavel": _installed_version("ovavel"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "cpu_features": cpu_features(),
        "cpu_precisions": exact_precisions("onnxruntime-cpu", cpu_features()),
        "cores": os.cpu_count(),
        "cameras": devices.cameras,
        "microphones": devices.microphones,
        "gpus": gpus,
        "providers": providers,
        "engine_libraries": engines,
        "libraries": {**required, **runtimes, **optional},
        "problems": problems,
        "can_localize": all(required.values()) and "CPUExecutionProvider" in providers,
    }


def _major(version: str) -> float:
    """The first number of a version; where there is none, nothing is known against it."""
    number = version.partition(".")[0]
    return int(number) if number.isdecimal() else float("inf")


def _problem(what: str, fix: str) -> dict[str, str]:
    return {"what": what, "mend": fix}


def _split(message: str) -> tuple[str, str]:
    """What is wrong, and the command after "with: "."""
    what, _, fix = message.partition(" Install it with: ")
    return what, fix


def _version(distribution: str, module: str) -> str | None:
    """Version of what provides `module`; another build of it (opencv-python for its headless one) will do."""
    from importlib.metadata import packages_distributions
    from importlib.util import find_spec

    if find_spec(module) is None:
        return None
    names = [distribution, *packages_distributions().get(module, ())]
    return next((version for name in names if (version := _installed_version(name))), "unknown")


def _installed_version(distribution: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _providers() -> tuple[list[str], str | None]:
    """Execution providers of the installed ONNX Runtime, or why it cannot be loaded."""
    try:
        import onnxruntime

        return list(onnxruntime.get_available_providers()), None
    except (ImportError, OSError, AttributeError) as error:
        return [], str(error)


def _openvino() -> dict[str, str | None]:
    """As `_engine_library`."""
    version = _version(_OPENVINO, _OPENVINO)
    if version is None:
        return {"version": None, "problem": "is not installed"}
    try:
        import openvino  # noqa: F401
    except (ImportError, OSError) as error:
        return {"version": version, "problem": f"cannot be loaded: {error}"}
    return {"version": version, "problem": None}


def _engine_library(name: LibraryName) -> dict[str, str | None]:
    """Version of the library, None where it is not installed, and why its backend cannot run here, if so."""
    from importlib.util import find_spec

    from ovavel.runtime.backends.tensorrt.cuda import Cuda
    from ovavel.runtime.backends.tensorrt.library import load_library
    from ovavel.runtime.errors import OvavelError

    if find_spec(name.replace("-", "_")) is None:
        return {"version": None, "problem": "is not installed"}
    version = "unknown"
    try:
        version = load_library(name).version
        Cuda(name, 0)
    except OvavelError as error:
        return {"version": version, "problem": f"cannot run here: {error}"}
    return {"version": version, "problem": None}


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


def _print_tables(report: dict[str, Any], console: Console) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("", "", show_header=False, box=None, pad_edge=False)

    def row(title: str, *values: str) -> None:
        for index, value in enumerate(values or ("none found",)):
            table.add_row("" if index else f"[bold]{title}", escape(value))

    row("ovavel", f"{report['ovavel']}, Python {report['python']}")
    row("Machine", f"{report['processor']}, {report['cores']} cores, {report['system']}")
    row("CPU features", ", ".join(report["cpu_features"]) or "none that matter to ovavel, or hidden ones")
    row("CPU precisions", f"{', '.join(report['cpu_precisions'])}: the first that a bundle has runs by default")
    row("GPU", *(", ".join(gpu.values()) for gpu in report["gpus"]))
    row("Providers", *report["providers"])
    row(
        "Engines",
        *(
            f"{name} {state['version']} – {state['problem'] or 'can run here'}"
            if state["version"]
            else f"{name} – {state['problem']}; {install_command(state['extra'])}"
            for name, state in report["engine_libraries"].items()
        ),
    )
    row("Cameras", *(f"{camera.index}: {camera.name}" for camera in report["cameras"]))
    microphones = report["microphones"]
    row("Microphones", *(f"{each.index}: {each.name}{' (default)' if each.default else ''}" for each in microphones))
    row("Libraries", *(f"{name} {version or '– not installed'}" for name, version in report["libraries"].items()))
    console.print(table)
    console.print()
    for problem in report["problems"]:
        console.print(f"[yellow]![/] {escape(problem['what'])}", soft_wrap=True)
        if problem["mend"]:
            console.print(f"    {escape(problem['mend'])}", soft_wrap=True)
    if report["can_localize"]:
        console.print("[green]ovavel localize can work here.")
    else:
        console.print("[red]ovavel localize cannot work here; see above.")
