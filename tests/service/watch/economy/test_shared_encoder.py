"""What the cameras ask the shared encoder."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest

from ovavel.service.encoding.remote import EncoderLost
from ovavel.service.watch.economy.run import SharedEncoder


class Lost:
    """An encoder that fails at every picture."""

    def __init__(self) -> None:
        self.asked = 0

    def encode(self, frames: list[np.ndarray], sounds: list[np.ndarray]) -> None:
        self.asked += 1
        raise EncoderLost("it is gone")


@pytest.mark.parametrize("together", [True, False])
def test_a_picture_that_fails_is_asked_for_twice_alone_or_together(together: bool) -> None:
    """A third failure in a row would start the process again, for every camera, with every picture."""
    lost, frame = Lost(), np.zeros((3, 8, 8), np.float32)
    shared = SharedEncoder(lost)  # type: ignore[arg-type]
    with shared.together([frame]) if together else nullcontext(), pytest.raises(EncoderLost):
        shared.look([frame])
    assert lost.asked == 2
