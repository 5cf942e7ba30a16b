"""Load the CUDA libraries that ONNX Runtime needs from where pip installed them."""

from __future__ import annotations

import contextlib
import io
import logging
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["load_cuda_libraries", "missing_libraries"]

_log = logging.getLogger(__name__)


def load_cuda_libraries(onnxruntime: Any) -> tuple[str, ...]:
    """Load the CUDA libraries that pip installed, from every part of the namespace `nvidia`.

    By itself, ONNX Runtime only looks beside its own folder, and prints missing libraries to standard output.

    Returns:
        Names of the libraries that could not be loaded.
    """
    if not hasattr(onnxruntime, "preload_dlls"):
        return ()
    printed = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()):
        for folder in _folders():
            onnxruntime.preload_dlls(directory=str(folder))
    with contextlib.redirect_stdout(printed):  # libraries loaded above are found by name
        onnxruntime.preload_dlls()
    if printed.getvalue():
        _log.debug("%s", printed.getvalue())
    names = re.findall(r"Failed to load (\S+?):", printed.getvalue())
    return tuple(dict.fromkeys(name for name in names if "/" not in name))


def missing_libraries(onnxruntime: Any) -> str:
    """Return advice on libraries that did not load, as the beginning of a sentence."""
    if missing := load_cuda_libraries(onnxruntime):
        return f"Install {', '.join(missing)}, or the version of CUDA that has it"
    return "Check the driver with nvidia-smi (CUDA 13 needs 580 or newer)"


def _folders() -> list[Path]:
    spec = find_spec("nvidia")
    entries = (spec.submodule_search_locations or ()) if spec else ()
    return sorted({file.parent for entry in entries for file in Path(entry).glob("*/lib/lib*.so*")})
