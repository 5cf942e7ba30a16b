"""A small dataset that the tests of this folder share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.ovavebench_factory import make_bench

from ovavel.eval.datasets.ovavebench import OVAVEBench


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    """Annotation files, to be changed at will."""
    return make_bench(tmp_path / "annotated", clips=4, media=False) / "annotations"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dataset that is undamaged. Do not change it."""
    return make_bench(tmp_path_factory.mktemp("whole") / "bench", clips=1)


@pytest.fixture
def bench(tmp_path: Path, whole: Path) -> OVAVEBench:
    """Copy of the dataset, to be changed at will."""
    return OVAVEBench.open(shutil.copytree(whole, tmp_path / "bench"))
