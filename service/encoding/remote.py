"""The encoder child as seen by the service: asks, waits with a deadline, and starts another child where one is lost."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.backends import HeadOutput
from ovavel.runtime.backends.turns import Turns
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.errors import DeviceError
from ovavel.service.encoding.messages import Answer, Contexts, Encode, Failed, Head, Load, Ready, Results
from ovavel.service.link import Array, Child, LinkClosed

__all__ = ["EncoderLost", "RemoteEncoder"]

_LOAD_S = 600.0
"""Loading may build TensorRT engines."""
_AGAIN_S = 60.0
_SLOWER = 3.0
"""A child that takes this much longer to load than the first one did, and longer than `_AGAIN_S`, hangs."""
_ANSWER_S = 30.0
"""An encoder that needs longer for a batch hangs."""
_MOST_FAILURES = 3
"""A device that fails so often in a row fails for ever in this process, as CUDA does after some errors."""


_log = logging.getLogger(__name__)


class EncoderLost(Exception):  # noqa: N818 - the supervisor catches it
    """The encoder child died, hung or failed at this question. The next question starts another child."""


class RemoteEncoder:
    """One backend in a process of its own. Methods may be called from several threads; they take turns."""

    def __init__(self, bundle: Path, options: Mapping[str, Any], *, answer_s: float = _ANSWER_S) -> None:
        """Open `bundle` in a child with the `options` of `open_verified`.

        Raises:
            DeviceError: it cannot be opened; says why.
        """
        self._load = Load(bundle=str(bundle), options=dict(options))
        self._answer_s = answer_s
        self._turn = Turns()
        self._child: Child | None = None
        self._failures, self._closed = 0, False
        self._load_s = _LOAD_S
        self.encoded: Callable[[int], object] = lambda _: None
        """Called with how many windows, or sounds or pictures of them, were asked for together."""
        self.restarts = 0
        """How often a child was lost."""
        began_s = time.monotonic()
        try:
            self.ready = self._start()
            """What runs."""
        except EncoderLost as error:
            raise DeviceError(f"the encoder process did not start: {error}") from error
        self._load_s = min(_LOAD_S, max(_AGAIN_S, _SLOWER * (time.monotonic() - began_s)))

    @property
    def pid(self) -> int | None:
        """Process of the present child."""
        return self._child.process.pid if self._child else None

    def encode(
        self, frames: Sequence[NDArray[np.float32]], sounds: Sequence[NDArray[np.float32]]
    ) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
        """Prepared frames and sounds, any number of each → their embeddings (D,), in order.

        Raises:
            EncoderLost: nothing of it was encoded.
        """
        most = max(len(frames), len(sounds))
        rounds = math.ceil(most / max(self.ready.info.batch, 1))
        answer = self._ask(Encode(frames=_stacked(frames), sounds=_stacked(sounds)), rounds=max(rounds, 1))
        self.encoded(most)
        vision, audio = (list(each.values) if each else [] for each in answer.arrays)
        return vision, audio

    def head(self, audio: NDArray[np.float32], vision: NDArray[np.float32], text: TextEmbeddings) -> HeadOutput:
        """As `Backend.head`. Raises EncoderLost."""
        answer = self._ask(
            Head(
                audio=Array.of(audio),
                vision=Array.of(vision),
                text_audio=Array.of(text.audio),
                text_vision=None if text.is_shared else Array.of(text.vision),
            )
        )
        return HeadOutput(*(each.values for each in answer.arrays if each is not None))

    def contexts(self, audio: NDArray[np.float32], vision: NDArray[np.float32]) -> HeadOutput:
        """(1, T, D) each → the head's answer to the identity matrix as texts, whose similarities are vectors.

        Raises:
            EncoderLost: it could not be asked.
        """
        answer = self._ask(Contexts(audio=Array.of(audio), vision=Array.of(vision)))
        return HeadOutput(*(each.values for each in answer.arrays if each is not None))

    def close(self) -> None:
        """End the child and start none again; a question that waits for its answer ends with EncoderLost."""
        self._closed = True
        if child := self._child:
            child.link.close()
        with self._turn:
            self._drop()

    def _ask(self, question: Encode | Head | Contexts, *, rounds: int = 1) -> Results:
        """Ask, and wait for an answer for as long as so many batches may take."""
        with self._turn:
            if self._closed:
                raise EncoderLost("the service is ending")
            if self._child is None:
                self._start()
            assert self._child
            try:
                self._child.link.send(question)
                answer: Results | Failed | Ready = self._child.link.receive(Answer, timeout_s=self._answer_s * rounds)
            except LinkClosed as error:
                self._replace(str(error))
                raise EncoderLost(str(error)) from error
            if isinstance(answer, Results):
                self._failures = 0
                return answer
            why = answer.error if isinstance(answer, Failed) else "it answered out of turn"
            self._failures += 1
            if self._failures >= _MOST_FAILURES:
                self._replace(f"it failed {self._failures} times in a row: {why}")
            raise EncoderLost(why)

    def _replace(self, why: str) -> None:
        """Drop a child that is lost; the next question starts another."""
        self._drop()
        self._failures = 0
        if not self._closed:
            self.restarts += 1
            _log.error("the encoder was lost and is started again: %s", why, extra={"cause": "encoder failed"})

    def _start(self) -> Ready:
        try:
            self._child = Child("ovavel.service.encoding.child")
            self._child.link.send(self._load)
            answer: Results | Failed | Ready = self._child.link.receive(Answer, timeout_s=self._load_s)
        except LinkClosed as error:
            self._drop()
            raise EncoderLost(str(error)) from error
        if isinstance(answer, Ready):
            return answer
        self._drop()
        raise EncoderLost(answer.error if isinstance(answer, Failed) else "it answered out of turn")

    def _drop(self) -> None:
        if self._child:
            self._child.stop()
            self._child = None


def _stacked(arrays: Sequence[NDArray[np.float32]]) -> Array | None:
    return Array.of(np.stack(list(arrays))) if arrays else None
