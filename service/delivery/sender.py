"""What a sender is: it takes messages and says of each what became of it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ovavel.runtime.reporting.redaction import hide
from ovavel.runtime.sources.access import address_of
from ovavel.service.delivery.message import Message

__all__ = ["IN_FLIGHT", "LONGEST_PAUSE_S", "Outcome", "Sender", "Unavailable", "pause_s", "secret_of"]

IN_FLIGHT = 20
"""Most messages of a sink that are sent and not yet confirmed."""
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one attempt."""

    result: str
    """delivered; unavailable: nobody answers, so others wait too; refused: this one is not taken; gone: for good."""
    why: str = ""
    wait_s: float = 0.0
    """How long the receiver asked to be left alone."""


class Unavailable(Exception):  # noqa: N818 - the usual state of a receiver that is away
    """The receiver cannot be reached; its message says why, without secrets."""


class Sender(Protocol):
    """Brings messages to one receiver. All but `interrupt` is called from one thread."""

    def prepare(self) -> bool:
        """Called every second or so, also where nothing is to be sent: keep up a connection, and what it shows.

        Returns whether the receiver is known to be well without sending anything.

        Raises:
            Unavailable: it cannot be kept up now.
        """
        ...

    def send(self, messages: Sequence[Message]) -> list[Outcome]:
        """Try each once, at most `IN_FLIGHT`; an outcome for each. Never of two revisions of one event."""
        ...

    def interrupt(self) -> None:
        """Give up waiting; what is not confirmed is not delivered. Called from another thread."""
        ...

    def close(self) -> None:
        """Say goodbye, where that is usual, within a second or so."""
        ...


def pause_s(failures: int) -> float:
    """How long to wait after so many failures in a row: 1, 2, 4 … at most 60 s, each between a half and all of it."""
    longest_s = min(FIRST_PAUSE_S * 2.0 ** min(max(failures - 1, 0), 16), LONGEST_PAUSE_S)
    return longest_s * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


def secret_of(text: str) -> str:
    """The value of a secret given as itself, "@FILE" or "env:NAME"; no message shows it from now on.

    Raises:
        InputError: the file cannot be read, or its first line is empty.
        UsageError: there is no such variable.
    """
    secret = address_of(text)
    hide(secret)
    return secret
