"""A store of gates for one test, and the backend that gates are for."""

from __future__ import annotations

from pathlib import Path

import pytest

from ovavel.runtime.backends import BackendInfo, open_backend
from ovavel.runtime.bundle.bundle import Bundle


@pytest.fixture
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def info(exported_bundle: Path) -> BackendInfo:
    backend = open_backend(Bundle.open(exported_bundle), device="cpu")
    backend.close()
    return backend.info
