"""The command that installs an extra, matching how this ovavel was installed; used by every installation hint."""

from __future__ import annotations

import json
import shlex
from functools import cache
from importlib.metadata import PackageNotFoundError, distributions, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

__all__ = ["RUNTIMES", "install_command", "installed_runtimes", "installed_version", "replace_runtime", "version_of"]

RUNTIMES = {"onnxruntime": "cpu", "onnxruntime-gpu": "gpu"}
"""Distributions of ONNX Runtime, and the extras that bring them."""


@cache
def install_command(extra: str = "", *, again: bool = False) -> str:
    """Return the shell command that installs ovavel with `extra`, e.g. "cpu"; `again` reinstalls a broken one.

    From a checkout it names that checkout. From a package index it names the package. If neither is known, it is a
    command that works in any checkout, as ovavel is not on a package index yet.
    """
    pip = "pip install --force-reinstall" if again else "pip install"
    wanted = f"[{extra}]" if extra else ""
    origin = _origin()
    if origin is None:
        return f"{pip} {shlex.quote(f'ovavel{wanted}')}"
    url = urlsplit(origin.get("url", ""))
    folder = Path(unquote(url.path))
    if url.scheme == "file" and "dir_info" in origin and folder.is_dir():
        editable = "--editable " if origin["dir_info"].get("editable") else ""
        return f"{pip} {editable}{shlex.quote(f'{folder}{wanted}')}"
    if url.scheme and "dir_info" not in origin:  # a wheel, an archive or a repository
        kind = f"{origin['vcs_info']['vcs']}+" if "vcs_info" in origin else ""
        return f"{pip} {shlex.quote(f'ovavel{wanted} @ {kind}{url.geturl()}')}"
    return f"{pip} {shlex.quote(f'.{wanted}')}   # in a checkout of ovavel"


def installed_runtimes() -> tuple[str, ...]:
    """Return the distributions of ONNX Runtime that are installed, complete or not."""
    return tuple(name for name in RUNTIMES if any(True for _ in distributions(name=name)))


def replace_runtime(extra: str | None = None) -> str:
    """Return the shell command that leaves exactly one complete ONNX Runtime: the one of `extra`, "cpu" or "gpu".

    None means the installed one; if both are installed, the one for GPUs, which also runs on a CPU. They share files:
    removing or adding one of them breaks the other.
    """
    extra = extra or RUNTIMES[(installed_runtimes() or ("onnxruntime",))[-1]]
    return f"pip uninstall -y onnxruntime onnxruntime-gpu && {install_command(extra)}"


def _origin() -> dict[str, Any] | None:
    """Return pip's record of where ovavel was installed from (PEP 610); empty: unknown; None: a package index."""
    try:
        # In a checkout Python may find what the build left there, an .egg-info without this file, before pip's own.
        texts = [each.read_text("direct_url.json") for each in distributions(name="ovavel")]
        if not texts:  # a checkout that was never installed
            return {}
        text = next(filter(None, texts), None)
        found = json.loads(text) if text else None
    except (OSError, ValueError):  # damaged metadata
        return {}
    return found if found is None or isinstance(found, dict) else {}


def installed_version(distribution: str) -> str | None:
    """Version of an installed distribution; None if it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def version_of(distribution: str, module: str) -> str | None:
    """Version of what provides `module`; another build of `distribution` will do."""
    if find_spec(module) is None:
        return None
    if own := installed_version(distribution):
        return own  # to look for others takes long: it reads the metadata of all that is installed
    others = packages_distributions().get(module, ())
    return next((found for name in others if (found := installed_version(name))), "unknown")
