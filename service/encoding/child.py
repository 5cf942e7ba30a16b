"""The encoder child, `python -m ovavel.service.encoding.child FD`: opens the backend and answers questions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovavel.runtime.archive.contexts import identity_texts
from ovavel.runtime.backends import Backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.errors import OvavelError
from ovavel.runtime.verification.open import open_verified
from ovavel.service.encoding.messages import Contexts, Encode, Failed, Head, Load, Question, Ready, Results
from ovavel.service.link import Array, Child, LinkClosed

__all__ = ["main"]


def main(descriptor: str) -> int:
    """Serve the link with this descriptor."""
    link = Child.inherited(descriptor)
    try:
        load: Load = link.receive(Load)
        try:
            verified = open_verified(Bundle.open(Path(load.bundle)), **load.options)
        except OvavelError as error:
            link.send(Failed(error=str(error)))
            return 0
        with closing(verified.backend) as backend:
            backend.warm_up()
            link.send(Ready(info=backend.info, gate=verified.text))
            while True:
                question: Encode | Head | Contexts = link.receive(Question)
                try:
                    answer: Results | Failed = _answer(backend, question)
                except Exception as error:  # noqa: BLE001 - whatever a library raises, the next question may succeed
                    answer = Failed(error=f"{type(error).__name__}: {error}")
                link.send(answer)
    except LinkClosed:
        return 0  # the service is gone or wants another child


def _answer(backend: Backend, question: Encode | Head | Contexts) -> Results:
    if isinstance(question, Encode):
        most = max(backend.info.batch, 1)
        vision = None if question.frames is None else _encoded(backend.vision, question.frames, most)
        audio = None if question.sounds is None else _encoded(backend.audio, question.sounds, most)
        return Results(arrays=(vision, audio))
    if isinstance(question, Contexts):
        texts = identity_texts(*backend.encoders.sizes)
        return Results(arrays=_head(backend, question, texts))
    shared, own = question.text_audio.values, question.text_vision
    text = TextEmbeddings.shared(shared) if own is None else TextEmbeddings(shared, own.values)
    return Results(arrays=_head(backend, question, text))


def _encoded(encode: Callable[[NDArray[np.float32]], NDArray[np.float32]], inputs: Array, most: int) -> Array:
    """Encode at most so many at once, as `Encoder.look` does: so an embedding is the same, whatever it came with."""
    values = inputs.values
    return Array.of(np.concatenate([encode(values[at : at + most]) for at in range(0, len(values), most)]))


def _head(backend: Backend, question: Head | Contexts, text: TextEmbeddings) -> tuple[Array, ...]:
    return tuple(Array.of(each) for each in backend.head(question.audio.values, question.vision.values, text))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
