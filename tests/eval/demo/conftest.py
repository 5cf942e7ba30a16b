"""A small world that stands for any other."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from support.eval.demo import SECONDS, write_truth
from support.media_factory import make_clip

from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.results import Localization
from ovavel.runtime.results.recording import localize_recording
from ovavel.runtime.sources.media.source import MediaSource


@pytest.fixture(scope="session")
def localization(exported_bundle: Path, clip: Path) -> Localization:
    """What the tiny model makes of the clip."""
    bundle = Bundle.open(exported_bundle)
    backend = open_backend(bundle, device="cpu")
    return localize_recording(bundle, MediaSource(clip), backend=backend)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    noise = np.random.default_rng(0).standard_normal((1, 16_000 * SECONDS)).astype(np.float32) / 8
    path = tmp_path_factory.mktemp("demo") / "clip.mp4"
    return make_clip(path, duration_s=SECONDS, fps=5, waveform=noise, codec="libx264")


@pytest.fixture(scope="session")
def world(
    tmp_path_factory: pytest.TempPathFactory, exported_bundle: Path, clip: Path, localization: Localization
) -> Path:
    """A folder of assets whose truth is what the tiny model says."""
    folder = tmp_path_factory.mktemp("world")
    shutil.copytree(exported_bundle, folder / "bundle")
    shutil.copyfile(clip, folder / "clip.mp4")
    labels = tuple("" if label == "other" else label for label in (s.label for s in localization.scores))
    write_truth(folder, labels=labels)
    return folder
