"""Programs that a machine may lack: a test that needs one is skipped there with a reason, and fails in CI."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

__all__ = ["missing", "program_path"]


def missing(what: str, packages: str) -> NoReturn:
    """Skip the test that needs `what`; in CI (`CI=true`) it must be there, and the test fails."""
    reason = f"{what} is not installed: apt install {packages}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def program_path(name: str, package: str = "") -> str:
    """The path of a program, also where only the superuser looks for programs; without it the test is skipped."""
    places = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin"
    return shutil.which(name, path=places) or missing(name, package or name)
