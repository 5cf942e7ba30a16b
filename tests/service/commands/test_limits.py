"""The service may open more files than systems begin with."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from ovavel.service.commands.limits import MOST_FILES

HARD = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
MOST = MOST_FILES if HARD == resource.RLIM_INFINITY else min(HARD, MOST_FILES)
PROGRAM = """
import resource, sys
from ovavel.service.commands.limits import raise_open_files
before = tuple(map(int, sys.argv[1:]))
resource.setrlimit(resource.RLIMIT_NOFILE, before)
raise_open_files()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(("soft", "hard", "wanted"), [(100, HARD, MOST), (100, 200, 200), (100, 100, 100)])
def test_as_many_files_as_are_allowed(soft: int, hard: int, wanted: int) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(soft), str(hard)], capture_output=True, text=True, check=True, timeout=60
    )
    assert tuple(map(int, ran.stdout.split())) == (wanted, hard)
