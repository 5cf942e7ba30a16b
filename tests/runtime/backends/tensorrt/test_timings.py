"""TensorRT's measurements are used, or rebuilt where the library refuses them; never a reason for a build to fail."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from ovavel.runtime.backends.tensorrt import build
from ovavel.runtime.backends.tensorrt.library import Library

KEPT, NEW = b"kept before", b"measured now"


class Timings:
    """Stands for an ITimingCache."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content + NEW


class Config:
    """Stands for an IBuilderConfig that takes timing caches of the contents `takes`."""

    def __init__(self, *takes: bytes, parses: bool = True) -> None:
        self._takes, self._parses = takes, parses
        self._used: Timings | None = None

    def create_timing_cache(self, content: bytes) -> Timings | None:
        return Timings(content) if self._parses or not content else None

    def set_timing_cache(self, cache: Timings, *, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        taken = cache.content in self._takes
        self._used = cache if taken else self._used
        return taken

    def get_timing_cache(self) -> Timings | None:
        return self._used


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        (Config(b"", KEPT), KEPT + NEW),
        (Config(b""), NEW),  # another driver
        (Config(b"", parses=False), NEW),  # damaged
        (Config(), KEPT),  # nothing is taken, so nothing is written
    ],
)
def test_refused_measurements_are_repeated(config: Config, kept: bytes, tmp_path: Path) -> None:
    path = tmp_path / "timings.cache"
    path.write_bytes(KEPT)
    build._use_timings(config, path)
    build._keep_timings(config, path)
    assert path.read_bytes() == kept


def test_the_first_build_has_no_measurements(tmp_path: Path) -> None:
    config = Config(b"")
    build._use_timings(config, tmp_path / "timings.cache")
    build._keep_timings(config, tmp_path / "timings.cache")
    assert (tmp_path / "timings.cache").read_bytes() == NEW


def test_a_build_that_is_cancelled_keeps_what_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, state = Config(b""), build._State()
    network = SimpleNamespace(num_inputs=0, num_outputs=0, get_input=None, get_output=None)
    module, library = MagicMock(), MagicMock(spec=Library, rtx=False, title="TensorRT", version="1")
    library.module, library.errors, library.layers = module, MagicMock(), []
    module.NetworkDefinitionCreationFlag.STRONGLY_TYPED = 0
    module.Builder.return_value.create_network.return_value = network

    def cancelled(*_: object) -> None:
        state.cancelled = True

    module.Builder.return_value.build_serialized_network.side_effect = cancelled
    monkeypatch.setattr(build.layers, "check_network", lambda *_, **__: [])
    monkeypatch.setattr(build, "_configure", lambda *_: config)
    monkeypatch.setattr(build, "_monitor", lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        build._build(Path("head.onnx"), MagicMock(), library, None, tmp_path / "timings.cache", state)
    assert (tmp_path / "timings.cache").read_bytes() == NEW
