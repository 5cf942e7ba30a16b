"""A bundle, a backend, a clip and a clock for the tests of the session."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.media_factory import make_clip
from support.runtime.scripted import Clock, changing_sound, textured

from ovavel.runtime.backends import Backend, open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Vocabulary


@pytest.fixture(scope="session")
def bundle(exported_bundle: Path) -> Bundle:
    """The tiny bundle with a vocabulary that its untrained encoders distinguish."""
    bundle = Bundle.open(exported_bundle)
    rng = np.random.default_rng(3)
    embeddings = rng.standard_normal((9, bundle.manifest.encoders.vision.embedding_size))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    names = (*(f"event {i}" for i in range(8)), "other")
    return replace(
        bundle, vocabulary=Vocabulary(names=names, embeddings=TextEmbeddings.shared(embeddings.astype(np.float32)))
    )


@pytest.fixture(scope="session")
def backend(bundle: Bundle) -> Iterator[Backend]:
    opened = open_backend(bundle, device="cpu")
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return make_clip(path, duration_s=11, picture=textured, waveform=changing_sound(11))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the session, so that who took how long does not depend on the machine."""
    clock = Clock()
    for module in ("session", "pipeline.window_queue", "system.timing"):
        monkeypatch.setattr(f"ovavel.runtime.{module}.time", clock)
    return clock
