"""Windows are prepared the same on one thread and on several."""

import threading
from pathlib import Path

import numpy as np
import pytest

from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.pipeline import encoder as module
from ovavel.runtime.pipeline.encoder import Encoder
from ovavel.runtime.types import Window
from ovavel.runtime.verification.samples import random_frame, random_waveform

DEMO = Path(__file__).parents[3] / "eval" / "demo" / "assets"


def windows(count: int) -> list[Window]:
    """Every third one lacks its frame, every fifth its sound."""
    return [
        Window(
            index=i,
            start_s=float(i),
            frame=None if i % 3 == 2 else random_frame(i),
            waveform=None if i % 5 == 4 else random_waveform(i),
            captured_s=0.0,
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("count", [1, 15, 16, 40])
def test_several_threads_prepare_what_one_does(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = open_backend(Bundle.open(DEMO / "bundle"), device="cpu", threads=1)
    found = []
    for preparers in (1, 3):
        monkeypatch.setattr(module, "_PREPARERS", preparers)
        encoder = Encoder(backend)
        found.append(encoder.encode(windows(count)))
        names = [thread.name for thread in threading.enumerate() if thread.name.startswith("ovavel-prepare")]
        assert bool(names) == (preparers > 1 and count >= 16)
        encoder.close()
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("ovavel-prepare")]
    backend.close()
    for one, other in zip(*found, strict=True):
        assert (one.index, one.missing) == (other.index, other.missing)
        for sense in ("vision", "audio"):
            if sense not in one.missing:
                np.testing.assert_array_equal(getattr(one, sense), getattr(other, sense))
