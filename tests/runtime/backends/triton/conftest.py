"""The demo's bundle as a repository, and a server that has it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.demo_copies import BUNDLE

pytest.importorskip("tritonclient.grpc")

from support.triton_server import TritonServer

from ovavel.runtime.cli import main


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("triton") / "repository"
    assert (
        main(["bundle", "triton", "--bundle", str(BUNDLE), "--out", str(out), "--processor", "cpu", "--max-batch", "4"])
        == 0
    )
    return out


@pytest.fixture
def server(repository: Path) -> Iterator[TritonServer]:
    server = TritonServer(repository)
    yield server
    server.stop()


@pytest.fixture
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No gates but those that the test makes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
