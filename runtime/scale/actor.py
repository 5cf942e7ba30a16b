"""What runs inside Ray's actors. Ray makes an actor of this class; here it is a plain one."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from ovavel.runtime.scale.done import ASIDE
from ovavel.runtime.scale.job import Job, Recording
from ovavel.runtime.scale.worker import Outcome, Worker
from ovavel.runtime.system.files import output_error

__all__ = ["MOST_KILLS", "SlotActor"]

MOST_KILLS = 3
"""A recording that ended so many actors is failed; Ray runs a task again as often."""


class SlotActor:
    """Holds a backend, and localizes one recording after another.

    While it works on a recording there is a mark aside. What an actor that dies leaves is counted by the next.
    """

    def __init__(self, job: Job, run: str) -> None:
        """Work for `job`; `run` tells its marks from those of other runs."""
        self._aside = Path(job.out) / ASIDE
        self._run = run
        self._worker = Worker(job)

    def node(self) -> str:
        """The id of the machine that this runs on."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def process(self, recording: Recording) -> tuple[str, Outcome]:
        """Return the machine, and what became of the recording."""
        return self.node(), self.localize(recording)

    def localize(self, recording: Recording) -> Outcome:
        """Localize the recording, unless it has ended too many actors."""
        name = hashlib.sha256(os.fsencode(recording.name)).hexdigest()
        marks = [self._aside / f".{name}.{self._run}.{number}.part" for number in range(MOST_KILLS)]
        for mark in marks:
            try:
                os.close(os.open(mark, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC))
            except FileExistsError:
                continue
            except OSError as error:
                return Outcome(state="unwritable", text=str(output_error(mark, error)))
            try:
                return self._worker.process(recording)
            finally:
                _remove(mark)
        outcome = self._worker.give_up(recording, MOST_KILLS)
        for mark in marks:
            _remove(mark)
        return outcome


def _remove(mark: Path) -> None:
    with contextlib.suppress(OSError):  # it is removed a day later
        mark.unlink(missing_ok=True)
