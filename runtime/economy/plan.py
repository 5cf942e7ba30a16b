"""What of the economy a session can run, and why not all of it."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from ovavel.runtime.bundle.calibration import Rule
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.economy.settings import Economy, EconomyPlan
from ovavel.runtime.economy.sound import hears_alone, why_never, why_not_exact
from ovavel.runtime.pipeline.encoder import Encode
from ovavel.runtime.pipeline.localizer import Head
from ovavel.runtime.types import BUFFER

__all__ = ["MOST_WAKE_S", "plan_economy", "wake_time"]

MOST_WAKE_S = 2.0
"""A live decision may wait so long for the pictures of a whole buffer."""


def wake_time(look: Encode, shape: tuple[int, ...], batch: int) -> float:
    """Seconds that encoding the pictures of a whole buffer takes here: the fastest of three batches, times all."""
    size = min(batch, BUFFER)
    frames = [np.zeros(shape, np.float32)] * size
    took_s = []
    for _ in range(3):
        start_s = time.perf_counter()
        look(frames)
        took_s.append(time.perf_counter() - start_s)
    return min(took_s) * BUFFER / size


def plan_economy(
    economy: Economy,
    rule: Rule,
    head: Head,
    text: TextEmbeddings,
    *,
    wake_s: Callable[[], float] | None = None,
    concurrent: bool = False,
) -> EconomyPlan:
    """Return what of `economy` a session can run.

    Args:
        economy: what is asked for.
        rule: that decides.
        head: such as `Backend.head`.
        text: of its names.
        wake_s: measures how long a live decision waits for pictures that nobody has looked at, see `wake_time`; called
            only where that decides, as it may take seconds. None: nothing waits.
        concurrent: whether the engine encodes picture and sound at once, which sound first gives up: then only a rule
            by which sound often decides alone is worth it.
    """
    if economy.mode == "off":
        return EconomyPlan()
    auto = economy.mode == "auto"
    why_not = why_never(rule) if auto else why_not_exact(rule)
    if economy.every_picture:
        why_not = f"{economy.every_picture} needs every picture"
    elif not why_not and not auto and concurrent and rule.kind != "agreement":
        why_not = (
            f"this engine encodes picture and sound at once, and by the rule {rule.name} sound seldom decides alone"
        )
    elif not why_not and wake_s and (took_s := wake_s()) > MOST_WAKE_S:
        why_not = (
            f"ten pictures take {took_s:.1f} s here, and a live decision would wait for them for more than "
            f"{MOST_WAKE_S:g} s"
        )
    elif not why_not and not hears_alone(head, text):
        why_not = "what the head of this bundle makes of sound depends on what it sees"
    return EconomyPlan(
        asked=economy.mode,
        mode="off" if why_not and not auto else economy.mode,
        sound=not why_not,
        still=auto,
        budget=economy.budget,
        why_not=why_not,
    )
