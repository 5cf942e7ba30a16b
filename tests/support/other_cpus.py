"""Other kinds of CPU, emulated by qemu-user, which run this Python or one for ARM.

`PYTHONPATH=tests python -m support.other_cpus` brings what ARM needs into .arm/: Debian's arm64 packages of Python 3.11
and wheels. It needs Debian's apt and dpkg, and 300 MB; x86-64 needs nothing but qemu-user.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

from support.needed import missing

HERE = Path(__file__).resolve().parents[2]
ARM = HERE / ".arm"
_DONE = ARM / "done"
_PACKAGES = (
    *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libc6", "libstdc++6", "libgcc-s1"),
    *("libexpat1", "zlib1g", "libssl3", "libffi8", "libbz2-1.0", "liblzma5", "libuuid1"),
)
_WHEELS = (
    "onnxruntime==1.26.0",  # 1.32 crashes under QEMU 7.2 when it is imported
    *("msgspec", "rich", "tyro", "tokenizers", "Pillow", "soxr", "ftfy", "numpy"),
)
_SOURCES = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main\n"


def x86_command(cpu: str) -> list[str]:
    """What runs this Python on another x86-64 CPU; skips the test where it cannot."""
    if platform.machine() != "x86_64":
        pytest.skip("this Python is not for x86-64, so QEMU cannot run it as such")
    return [_qemu("x86_64"), "-cpu", cpu, sys.executable]


def arm_command(cpu: str) -> list[str]:
    """What runs a Python for ARM; skips the test where its parts are missing."""
    qemu = _qemu("aarch64")
    if not _DONE.is_file():
        pytest.skip("no Python for ARM: `PYTHONPATH=tests python -m support.other_cpus` fetches one on Debian")
    root = ARM / "root"
    return [qemu, "-cpu", cpu, "-L", str(root), str(root / "usr/bin/python3.11")]


def environment(command: list[str], folder: Path) -> dict[str, str]:
    """The variables for `command`, with a store of its own in `folder`."""
    variables = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "COLUMNS": "200"}
    if "aarch64" not in command[0]:
        return variables
    ours = distribution("ovavel")
    metadata = folder / "metadata" / f"ovavel-{ours.version}.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    (metadata / "METADATA").write_text(ours.read_text("METADATA") or ours.read_text("PKG-INFO") or "")
    (metadata / "entry_points.txt").write_text(ours.read_text("entry_points.txt") or "")
    paths = [ARM / "site", HERE / "namespace", metadata.parent]
    return {**variables, "PYTHONHOME": str(ARM / "root/usr"), "PYTHONPATH": os.pathsep.join(map(str, paths))}


def _qemu(architecture: str) -> str:
    found = shutil.which(f"qemu-{architecture}")
    if found is None:
        missing("QEMU", "qemu-user")
    return found


def _fetch() -> None:
    """Fill .arm/ with apt and pip, without touching the system's packages."""
    apt, debs, root = ARM / "apt", ARM / "debs", ARM / "root"
    shutil.rmtree(ARM, ignore_errors=True)
    for folder in (apt / "state/lists/partial", apt / "cache/archives/partial", debs, root):
        folder.mkdir(parents=True)
    (apt / "state/status").touch()
    (apt / "sources.list").write_text(_SOURCES)
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "root",
        "Dir::State": apt / "state",
        "Dir::State::status": apt / "state/status",
        "Dir::Cache": apt / "cache",
        "Dir::Etc::SourceList": apt / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    subprocess.run(["apt-get", *options, "-qq", "update"], check=True)
    subprocess.run(["apt-get", *options, "-qq", "download", *_PACKAGES], check=True, cwd=debs)
    for package in sorted(debs.glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(root)], check=True)
    platforms = [f"--platform=manylinux{kind}_aarch64" for kind in ("2014", "_2_17", "_2_27", "_2_28")]
    tags = ["--python-version=3.11", "--implementation=cp", "--abi=cp311", "--abi=abi3", "--abi=none"]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "--only-binary=:all:", "--target", str(ARM / "site"), *platforms, *tags, *_WHEELS], check=True
    )
    shutil.rmtree(apt)
    shutil.rmtree(debs)
    _DONE.touch()


if __name__ == "__main__":
    if not _DONE.is_file():
        _fetch()
