"""What runs inside Ray's actors. Ray makes actors of these classes; here they are plain ones."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ovavel.runtime.scale.job import Job, Recording
from ovavel.runtime.scale.worker import Outcome, Worker

__all__ = ["MOST_KILLS", "Kills", "SlotActor"]

MOST_KILLS = 3
"""A recording that ended so many actors is failed; Ray runs a task again as often."""


class Kills:
    """Counts for each recording how many actors began it and did not end it."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    def begin(self, name: str) -> int:
        """Count an actor that begins; returns how many began before and have not ended."""
        self._open[name] += 1
        return self._open[name] - 1

    def end(self, name: str) -> None:
        """Count that an actor ended, whatever came of it."""
        self._open[name] -= 1


class SlotActor:
    """Holds a backend, and localizes one recording after another."""

    def __init__(self, job: Job, kills: str) -> None:
        """Work for `job`; `kills` is the name of the actor of `Kills`."""
        import ray

        self._kills: Any = ray.get_actor(kills)
        self._worker = Worker(job)

    def node(self) -> str:
        """The id of the machine that this runs on."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def process(self, recording: Recording) -> tuple[str, Outcome]:
        """Return the machine, and what became of the recording."""
        import ray

        killed = ray.get(self._kills.begin.remote(recording.name))
        try:
            if killed < MOST_KILLS:
                return self.node(), self._worker.process(recording)
            return self.node(), self._worker.give_up(recording, killed)
        finally:
            self._kills.end.remote(recording.name)
