"""Which channel of the sound is listened to.

The encoders take one channel. In the published pipeline it is the first one, and data sets keep to it. Recordings and
microphones may have their sound elsewhere: a lapel microphone on the second input, an empty left track.

Shapes: C channels; n samples (one second, 16 000).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np

from ovavel.runtime.errors import MediaError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MOST_CHANNELS", "Channel", "ChannelChooser", "Heard", "channel_news"]

Channel: TypeAlias = int | Literal["auto", "first", "mix"]
"""Index from 0 on, or how to choose; see `ChannelChooser`."""

MOST_CHANNELS = 64

FLOOR = 1e-4
"""Root mean square up to which a second is silent, of full scale (-80 dB)."""
LEAK = 1e-2
"""A channel this much below the loudest one (-40 dB) holds only what compression or a cable leaks into it."""
NOISE = 1e-1
"""Below `FLOOR`, so much is enough (-20 dB): an input with nothing plugged in has its noise."""


class Heard(NamedTuple):
    """One second of sound, the channel to listen to first."""

    waveform: NDArray[np.float32] | None
    """(C, n) float32; None where the channel asked for is not there."""
    channel: int | None
    """Index, in the source, of the first row; None for a mix, or without sound."""


class ChannelChooser:
    """Puts the channel to listen to first, second by second. Pure and causal: a second depends on none after it.

    - `first`: nothing changes.
    - `auto`: the first channel, until a second in which it is silent and another is not. From then on the one that has
      been loudest since, until the first one sounds again.
    - `mix`: the mean of all channels.
    - a number: that channel.

    The other channels follow in their order: the published preparation subtracts the mean of them all.
    """

    def __init__(self, wanted: Channel = "first") -> None:
        self._wanted = wanted
        self._power = np.zeros(0)  # of each channel, summed since the first one has been silent
        self._first = True  # second with sound

    def choose(self, waveform: NDArray[np.float32] | None) -> Heard:
        """Choose for the next second (C, n); None is a second without sound.

        Raises:
            MediaError: the sound does not have the channel asked for; said of its first second only.
        """
        if waveform is None:
            return Heard(None, None)
        if self._wanted == "mix":
            return Heard(waveform.mean(axis=0, keepdims=True, dtype=np.float32), None)
        channel = self._choice(waveform)
        first, self._first = self._first, False
        if channel >= len(waveform):
            if first:
                raise MediaError(
                    f"the sound has {len(waveform)} {'channel' if len(waveform) == 1 else 'channels'} and no channel "
                    f"{channel}: they count from 0. Give --channel another number, or auto"
                )
            return Heard(None, None)
        if channel == 0:
            return Heard(waveform, 0)
        return Heard(waveform[[channel, *(c for c in range(len(waveform)) if c != channel)]], channel)

    def _choice(self, waveform: NDArray[np.float32]) -> int:
        if isinstance(self._wanted, int):
            return self._wanted
        if self._wanted == "first":
            return 0
        if len(self._power) != len(waveform):  # another format: what was known of the channels holds no more
            self._power = np.zeros(len(waveform))
        level = waveform.std(axis=1, dtype=np.float64)
        first, loudest = level[0], level.max()
        if loudest > FLOOR:
            if first <= (NOISE if first <= FLOOR else LEAK) * loudest:
                self._power += level**2
            elif first > FLOOR:
                self._power[:] = 0
        return int(self._power.argmax())


def channel_news(channel: int) -> str:
    """Say that `auto` has left the first channel for `channel`."""
    return f"the first channel of the sound is silent: listening to channel {channel} (--channel first keeps to it)"
