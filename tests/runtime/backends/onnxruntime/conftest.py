"""A bundle of small graphs. What imports ONNX is imported where it is needed: this file is read without it too."""

from __future__ import annotations

from pathlib import Path

import pytest

from ovavel.runtime.bundle.bundle import Bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    from support.runtime.small_graphs import bundle_of, write_head, write_vision

    write_vision(tmp_path / "vision.onnx")
    write_head(tmp_path / "head.onnx")
    return bundle_of(tmp_path)
