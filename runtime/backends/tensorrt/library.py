"""TensorRT and TensorRT-RTX: two libraries with nearly the same interface, imported on demand."""

from __future__ import annotations

import functools
import importlib
import platform
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

from ovavel.runtime.errors import DeviceError, MissingExtraError, UsageError
from ovavel.runtime.install import install_command

__all__ = ["EXTRAS", "Library", "LibraryName", "load_library", "this_platform"]

LibraryName = Literal["tensorrt", "tensorrt-rtx"]

EXTRAS: dict[LibraryName, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "rtx"}
"""Library → the extra that installs it."""

_TITLES: dict[LibraryName, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
_KEPT_ERRORS = 20
_LAYERS = "Layers:\n"
_ERROR = 1
"""Of the severities 0 (internal error), 1 (error), 2 (warning), 3 (information) and 4 (verbose)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """One of the two libraries, imported."""

    name: LibraryName
    title: str
    version: str
    module: Any
    """`tensorrt` or `tensorrt_rtx`."""
    logger: Any
    """An ILogger; each library keeps the first one it gets for the lifetime of the process."""
    errors: deque[str]
    """The library's latest warnings and errors, oldest first."""
    layers: list[str]
    """Layer lists that the library logged while building, one text per engine."""

    @property
    def rtx(self) -> bool:
        """Whether it builds for a compute capability and compiles for the GPU on loading."""
        return self.name == "tensorrt-rtx"

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Compute capabilities that TensorRT-RTX can build for without a GPU, such as "8.9"."""
        names = self.module.ComputeCapability.__members__ if self.rtx else ()
        numbers = sorted(int(name[2:]) for name in names if name.startswith("SM"))
        return tuple(f"{number // 10}.{number % 10}" for number in numbers)

    def check_capability(self, compute_capability: str) -> None:
        """Check that it can build for `compute_capability`, such as "8.9"; TensorRT builds for any installed GPU.

        Raises:
            UsageError: it cannot.
        """
        if self.rtx and compute_capability not in self.capabilities:
            raise UsageError(
                f"{self.title} {self.version} builds for the compute capabilities {', '.join(self.capabilities)}, "
                f"not {compute_capability}; use TensorRT or ONNX Runtime for such a GPU"
            )

    def complaint(self) -> str:
        """Return the latest warnings and errors on one line, and clear them."""
        said = " ".join(" ".join(self.errors).split())[:600]
        self.errors.clear()
        return said or "no reason given"


def load_library(name: LibraryName) -> Library:
    """Import the library `name`.

    Raises:
        MissingExtraError: it is not installed.
        DeviceError: it is installed but cannot be loaded.
    """
    try:
        return _load(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(name, EXTRAS[name], need=f"The backend {name!r}") from error
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise DeviceError(
            f"{_TITLES[name]} is installed but cannot be loaded ({error}); reinstall it: "
            f"{install_command(EXTRAS[name], again=True)}"
        ) from error


@functools.cache
def _load(name: LibraryName) -> Library:
    module = importlib.import_module(name.replace("-", "_"))
    errors: deque[str] = deque(maxlen=_KEPT_ERRORS)
    layers: list[str] = []

    class Logger(module.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            module.ILogger.__init__(self)  # pybind11 wants it called by name

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= _ERROR:
                errors.append(message)
            elif message.startswith(_LAYERS):
                layers.append(message)

    return Library(
        name=name,
        title=_TITLES[name],
        version=str(module.__version__),
        module=module,
        logger=Logger(),
        errors=errors,
        layers=layers,
    )


def this_platform() -> str:
    """Return operating system and processor; an engine is built for one pair."""
    return f"{platform.system()} {platform.machine()}".lower()
