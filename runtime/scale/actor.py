"""What runs inside Ray's actors. Ray makes an actor of this class; here it is a plain one."""

from __future__ import annotations

import hashlib
import os
from typing import Generic

from ovavel.runtime.errors import OvavelError
from ovavel.runtime.scale.objects import open_place
from ovavel.runtime.scale.places import ASIDE
from ovavel.runtime.scale.work import ItemT, JobT, Outcome, Start

__all__ = ["MOST_KILLS", "SlotActor"]

MOST_KILLS = 3
"""An item that ended so many actors is given up; Ray runs a task again as often."""


class SlotActor(Generic[JobT, ItemT]):
    """Holds a worker, and does one item after another.

    While it works on an item there is a mark aside. What an actor that dies leaves is counted by the next.
    """

    def __init__(self, start: Start[JobT, ItemT], job: JobT, run: str) -> None:
        """Work for `job`; `run` tells its marks from those of other runs."""
        self._run = run
        self._unable: Outcome | None = None
        try:
            self._place = open_place(job.out)
            self._worker = start(job)
        except OvavelError as error:  # raised here, Ray would report no more than that the actor died
            self._unable = Outcome.of(error)

    def node(self) -> str:
        """The id of the machine that this runs on."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def process(self, item: ItemT) -> tuple[str, Outcome]:
        """Return the machine, and what became of the item."""
        return self.node(), self.work_on(item)

    def work_on(self, item: ItemT) -> Outcome:
        """Do the item, or give it up if it has ended too many actors."""
        if self._unable:
            return self._unable
        name = hashlib.sha256(os.fsencode(item.name)).hexdigest()
        marks = [f"{ASIDE}/.{name}.{self._run}.{number}.part" for number in range(MOST_KILLS)]
        for mark in marks:
            try:
                if not self._place.mark(mark):
                    continue
            except OvavelError as error:
                return Outcome.of(error)
            try:
                return self._worker.process(item)
            finally:
                self._place.remove(mark)  # if that is impossible, it is removed a day later
        outcome = self._worker.give_up(item, MOST_KILLS)
        for mark in marks:
            self._place.remove(mark)
        return outcome
