"""The pictures and sounds of one run of a camera, encoded where needed, by the encoder that all cameras share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.bundle.calibration import Rule
from ovavel.runtime.economy.counts import EconomyCounts
from ovavel.runtime.economy.encoder import EconomicEncoder
from ovavel.runtime.economy.settings import Economy, EconomyPlan
from ovavel.runtime.pipeline.encoder import Encode
from ovavel.runtime.types import Notice, Segment, SegmentScores, SkipCause
from ovavel.service.encoding.remote import EncoderLost, RemoteEncoder
from ovavel.service.watch.encode import persistent

__all__ = ["Basis", "RunEconomy", "SharedEncoder"]

_TRIES = 2
"""A picture that the encoder cannot encode fails again; so often in a row costs no restart of its process."""
_MOST = 64
"""Pictures of one question: 38 MB at 224 x 224 pixels."""


class SharedEncoder:
    """Asks the encoder for pictures and sounds. Used by the thread that decides."""

    def __init__(self, encoder: RemoteEncoder) -> None:
        self._encoder = encoder
        self._known: dict[int, NDArray[np.float32]] = {}  # by the identity of pictures that are held meanwhile
        self._tries = _TRIES

    def look(self, frames: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Prepared pictures → (D,) embeddings, see `Encode`. They are asked for again where the encoder was lost.

        Raises:
            EncoderLost: it was lost again.
        """
        unknown = [frame for frame in frames if id(frame) not in self._known]
        found = iter(persistent(lambda: self._ask(unknown), self._tries))
        return [self._known[id(frame)] if id(frame) in self._known else next(found) for frame in frames]

    def listen(self, sounds: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Prepared sounds → (D,) embeddings, likewise."""
        return persistent(lambda: self._encoder.encode([], sounds)[1], _TRIES)

    @contextmanager
    def together(self, frames: Sequence[NDArray[np.float32]]) -> Iterator[None]:
        """Encode pictures of several cameras at once: larger batches may be faster. Within, `look` has them already."""
        try:
            self._known = {id(frame): each for frame, each in zip(frames, self._ask(frames), strict=True)}
        except EncoderLost:  # each camera asks for its own again
            self._tries = _TRIES - 1
        try:
            yield
        finally:
            self._known, self._tries = {}, _TRIES

    def _ask(self, frames: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        parts = [frames[at : at + _MOST] for at in range(0, len(frames), _MOST)]
        return [each for part in parts for each in self._encoder.encode(part, [])[0]]


class Basis(NamedTuple):
    """What runs, and what decides."""

    plan: EconomyPlan
    rule: Rule
    names: tuple[str, ...]


class RunEconomy:
    """Which pictures and sounds of one run of a camera are encoded (`Looking`), and what the encoder lost."""

    def __init__(self, look: Encode, listen: Encode, economy: Economy, basis: Basis, counts: EconomyCounts) -> None:
        """Encode with `look` and `listen` what `basis` leaves to encode of what `economy` asks for, and count."""
        self._listen = listen
        self.asked, self.basis, self._counts = economy, basis, counts
        self._shared_look = look
        self._worked = 0
        self._lost: set[int] = set()
        self._notices: list[Notice] = []
        self._encoder = self._made()

    def decide_by(self, basis: Basis) -> None:
        """Run another plan, or the same for other names, from now on. What waits then is decided by it, too."""
        self.basis = basis
        self._forget()

    def _made(self) -> EconomicEncoder:
        return EconomicEncoder(self._look, self._listen, *self.basis, self._counts)

    def _forget(self) -> None:
        """Begin with nothing learnt: what was learnt is of other names, or of a picture that was never encoded."""
        self._notices += self._encoder.notices()
        self._encoder = self._made()

    @property
    def waits(self) -> bool:
        """Whether pictures are sent to the encoder later than sounds, if at all."""
        return self.basis.plan.mode != "off"

    @property
    def keeps_sounds(self) -> bool:
        """Whether a sound may keep the embedding of an earlier one: `listen` decides."""
        return self.waits and self.basis.plan.still

    def listen(self, sound: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embed a prepared sound, the next second of the camera: (D,).

        Raises:
            EncoderLost: it was needed and could not be encoded.
        """
        try:
            return self._encoder.listen([sound])[0]
        except EncoderLost:
            self._forget()
            raise

    def arrived(self, segment: Segment, waveform: NDArray[np.float32] | None, channel: int | None = None) -> Segment:
        """Take a second before it is decided, as `EconomicEncoder.arrived`."""
        if not self.waits:
            seen = segment.vision is not None
            self._counts.second(picture=seen, sound=segment.audio is not None)
            self._counts.looked(encoded=int(seen))
            return segment
        try:
            return self._encoder.arrived(segment, waveform, channel)
        except EncoderLost:
            return self._unseen([segment])[0]

    def causes(self, segments: Sequence[Segment], heard: NDArray[np.float32]) -> Sequence[SkipCause | None]:
        """See `Looking`."""
        return self._encoder.causes(segments, heard) if self.waits else [None] * len(segments)

    def look(self, segments: Sequence[Segment]) -> list[Segment]:
        """See `Looking`. Where the encoder fails, the pictures are taken for not seen, and `lost` has them."""
        try:
            return self._encoder.look(segments)
        except EncoderLost:
            return self._unseen(segments)

    def decided(self, scores: Sequence[SegmentScores]) -> None:
        """Take what was decided."""
        self._encoder.decided(scores)

    def lost(self) -> frozenset[int]:
        """Seconds whose pictures were needed and could not be encoded, since the last call."""
        found, self._lost = frozenset(self._lost), set()
        return found

    def notices(self) -> tuple[str, ...]:
        """What there is to report since the last call."""
        found = [*self._notices, *self._encoder.notices()]
        self._notices = []
        return tuple(each.message for each in found)

    def worked(self) -> int:
        """Pictures that were asked for since the last call."""
        found, self._worked = self._worked, 0
        return found

    def _look(self, frames: Sequence[NDArray[np.float32]]) -> Sequence[NDArray[np.float32]]:
        self._worked += len(frames)
        return self._shared_look(frames)

    def _unseen(self, segments: Sequence[Segment]) -> list[Segment]:
        lost = {each.index for each in segments if each.frame is not None}
        self._lost |= lost
        self._counts.lost(len(lost))
        self._forget()
        return [replace(each, frame=None) for each in segments]
