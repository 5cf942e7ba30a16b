"""What is dear to make and shared by many tests: the tiny bundle, exported once with the golden weights.

torch is imported where it is needed: most tests of the runtime do without.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no failure; each test has its timeout.
settings.register_profile("ovavel", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ovavel")

NAMES = ("dog barking", "race car", "bird chirping")


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Golden weights of the tiny model."""
    from golden_weights import write_golden_checkpoint

    from ovavel.training.imagebind import ImageBindConfig

    return write_golden_checkpoint(tmp_path_factory.mktemp("weights") / "tiny.safetensors", ImageBindConfig.tiny())


@pytest.fixture(scope="session")
def tiny_head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random temporal head of one block for the tiny model."""
    import torch

    from ovavel.training.temporal import TemporalHead

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("head") / "head.safetensors"
    TemporalHead(1, dim=32, hidden=8, ffn=16).save(path)
    return path


@pytest.fixture(scope="session")
def exported_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path, tiny_head: Path) -> Path:
    """Tiny bundle of the vocabulary NAMES, one for all tests: do not change it."""
    from ovavel.export.bundle import write_bundle
    from ovavel.training.imagebind import ImageBindConfig

    out = tmp_path_factory.mktemp("exported") / "bundle"
    write_bundle(tiny_weights, out, NAMES, head=tiny_head, config=ImageBindConfig.tiny())
    return out


@pytest.fixture
def tiny_bundle(tmp_path: Path, exported_bundle: Path) -> Path:
    """Copy of the tiny bundle, to be changed at will."""
    return Path(shutil.copytree(exported_bundle, tmp_path / "bundle"))
