"""How many files the service may have open."""

from __future__ import annotations

import resource

__all__ = ["MOST_FILES", "raise_open_files"]

MOST_FILES = 65_536
"""Enough for some thousand cameras: each takes six for its archive, and one for its capture process. Libraries that go
through all numbers that files may have are slow where there are millions."""


def raise_open_files() -> None:
    """Let this process and its children open as many files as they may, which is more than most systems begin with."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
