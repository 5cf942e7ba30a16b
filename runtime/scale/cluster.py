"""A job on a Ray cluster: one actor a slot holds the models, and machines may come and go.

Ray restarts actors that die and runs their tasks again, so a task may run more than once; its effects are the same,
see `ovavel.runtime.scale.done`. This module imports ray and nothing that is heavy beside it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ovavel.runtime.errors import ClusterError, MissingExtraError
from ovavel.runtime.scale.actor import MOST_KILLS, SlotActor
from ovavel.runtime.scale.work import ItemT, JobT, Outcome, Start
from ovavel.runtime.system.interrupt import terminated_as_interrupted
from ovavel.runtime.system.parallel import default_workers

__all__ = ["Cluster"]

_IN_FLIGHT = 2
"""Tasks of a slot: one that runs, and one that waits, so that a slot is never idle."""
_LOOK_EVERY_S = 3.0
"""How often machines are counted."""
_CLIENT_PORT = "10001"
_REACH_S = 10.0
_PATIENCE_S = 120.0
"""How long a cluster may have no machine with cores at first."""
_STORE_BYTES = 100_000_000
_MOST_FAILURES = 3
_MOST_LOST = 10
"""How often an item may be lost with its actor before it is failed."""


@dataclass(slots=True, eq=False)
class _Slot:
    """An actor, where it is, and what it was given."""

    actor: Any
    found: Any
    """Reference to the id of its node, until it is there."""
    node: str | None = None
    tasks: dict[Any, Any] = field(default_factory=dict)
    failures: int = 0
    """How often it ended before it ran."""


class Cluster:
    """A Ray cluster, used in a `with` block: "auto" is the one this machine is part of, or one started for the run."""

    def __init__(self, address: str, *, threads: int | None, gpus: bool | None, report: Callable[[str], None]) -> None:
        """Connect to `address`: "auto", or "ray://HOST:PORT".

        `report` is called where machines have to be waited for, and where one is left out. `threads` is the number of
        cores of each slot, by default all cores of the smallest machine, so that no machine holds more than one copy of
        the models unless that is asked for. `gpus`: whether a slot needs a GPU; None: if there are any.

        Raises:
            MissingExtraError: ray is not installed.
            ClusterError: there is no cluster at this address, or none of its machines has what a slot needs.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError as error:
            raise MissingExtraError("ray", "cluster", need="--on") from error
        self._ray: Any = ray
        self._folder: str | None = None
        self._slots: list[_Slot] = []
        self._unusable: dict[str, int] = {}
        self._hosts: dict[str, str] = {}
        self._report = report
        self._looked_s = -_LOOK_EVERY_S
        self._connect(address)
        try:
            nodes = self._first_nodes(report)
            self.gpus = gpus if gpus is not None else any(node.get("GPU", 0) >= 1 for node in nodes)
            cores = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1 and self._has_gpu(node)]
            if not cores:
                raise ClusterError(f"no machine of the cluster has a core{' and a GPU' * self.gpus} for a slot")
            self.threads = threads or min(cores)
            if self._wanted(nodes) == 0:
                raise ClusterError(
                    f"no machine of the cluster has {self.threads} cores for a slot; the largest has {max(cores)}: "
                    "give fewer --threads"
                )
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def note(self) -> str:
        """Where the work runs now, in a few words."""
        ready = [slot.node for slot in self._slots if slot.node]
        machines = len(set(ready))
        if not ready:
            return "waiting for machines"
        slots = "1 slot" if len(ready) == 1 else f"{len(ready)} slots"
        out = f", {sum(self._unusable.values())} left out" if self._unusable else ""
        return f"{slots} on {'1 machine' if machines == 1 else f'{machines} machines'}{out}"

    def process(
        self, start: Start[JobT, ItemT], job: JobT, items: Sequence[ItemT]
    ) -> Generator[tuple[ItemT, Outcome] | None]:
        """Yield each item with what became of it, as they end; None now and then, so that `note` can be shown.

        Raises:
            ClusterError: the cluster was lost. Everything that is done is on record.
        """
        ray = self._ray
        actor = self._ray.remote(SlotActor).options(
            num_cpus=self.threads, num_gpus=int(self.gpus), max_restarts=-1, max_task_retries=MOST_KILLS
        )
        make = partial(actor.remote, start, job.on_slot(self.threads, gpu=self.gpus), secrets.token_hex(8))
        waiting = deque(items)
        left = len(items)
        lost: Counter[str] = Counter()
        try:
            with terminated_as_interrupted():
                while left:
                    waiting.extendleft(self._adjust(make, left))
                    self._give(waiting)
                    tasks = {task: slot for slot in self._slots for task in slot.tasks}
                    ready = list(tasks)
                    if ready:
                        ready, _ = ray.wait(ready, num_returns=len(ready), timeout=0)
                        if not ready:
                            ready, _ = ray.wait(list(tasks), num_returns=1, timeout=1.0)
                    else:
                        time.sleep(0.1)
                    for task in ready:
                        slot = tasks[task]
                        if slot not in self._slots:  # retired just now: what it was given waits for another one
                            continue
                        item = slot.tasks.pop(task)
                        outcome = self._outcome(task, slot)
                        if outcome is None:
                            lost[item.name] += 1
                            if lost[item.name] < _MOST_LOST:
                                waiting.appendleft(item)
                                continue
                            outcome = Outcome(state="failed", text=f"it was lost with its process {_MOST_LOST} times")
                        elif outcome.state == "failed":
                            outcome = replace(outcome, text=f"{outcome.text} (on {self._host(slot)})")
                        elif outcome.state == "unusable" or (outcome.state == "unreachable" and len(self._slots) > 1):
                            waiting.appendleft(item)
                            self._retire(slot, outcome.text, waiting)
                            continue
                        left -= 1
                        yield item, outcome
                    yield None
        except (ray.exceptions.RayError, ConnectionError) as error:
            raise ClusterError(
                f"the cluster was lost ({_first_line(error)}); run the command again: it resumes"
            ) from error
        finally:
            for slot in self._slots:
                self._drop(slot)
            self._slots.clear()

    def close(self) -> None:
        """Leave the cluster, and end it if it was started for this run."""
        with contextlib.suppress(Exception):  # it may be lost
            self._ray.shutdown()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _connect(self, address: str) -> None:
        ray = self._ray
        quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
        found = _running() if address == "auto" else address
        try:
            if found is None:
                self._folder = tempfile.mkdtemp(prefix="ovavel-ray-", dir="/tmp")
                ray.init(
                    address="local",
                    num_cpus=default_workers(),
                    include_dashboard=False,
                    object_store_memory=_STORE_BYTES,
                    _temp_dir=self._folder,
                    **quiet,
                )
            else:
                _reach(found)  # ray would try for minutes
                ray.init(address=found, **quiet)
        except (OSError, OverflowError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            self.close()
            raise ClusterError(
                f"cannot reach the Ray cluster {found or 'on this machine'}: {_first_line(error)}"
            ) from error

    def _nodes(self) -> list[dict[str, Any]]:
        """Resources of each machine that is alive, and its id as "id"."""
        nodes = self._ray.nodes()
        self._hosts |= {node["NodeID"]: node["NodeManagerHostname"] for node in nodes}
        return [{**node["Resources"], "id": node["NodeID"]} for node in nodes if node["Alive"]]

    def _host(self, slot: _Slot) -> str:
        return self._hosts.get(slot.node or "", "a machine that is not known")

    def _first_nodes(self, report: Callable[[str], None]) -> list[dict[str, Any]]:
        """The machines, once one of them has cores: a cluster that was just started may have none yet."""
        until_s = time.monotonic() + _PATIENCE_S
        waited = False
        while not any(node.get("CPU", 0) >= 1 for node in self._nodes()) and time.monotonic() < until_s:
            if not waited:
                report("waiting for machines of the cluster")
                waited = True
            time.sleep(1)
        return self._nodes()

    def _has_gpu(self, node: dict[str, Any]) -> bool:
        return not self.gpus or node.get("GPU", 0) >= 1

    def _wanted(self, nodes: list[dict[str, Any]]) -> int:
        """How many slots the machines have room for."""
        slots = 0
        for node in nodes:
            room = int(node.get("CPU", 0) // self.threads)
            slots += min(room, int(node.get("GPU", 0))) if self.gpus else room
        return slots

    def _adjust(self, make: Callable[[], Any], left: int) -> list[Any]:
        """Have as many slots of `make` as there is room for; return what the slots of lost machines were given."""
        for slot in list(self._slots):
            self._find(slot)
        if time.monotonic() - self._looked_s < _LOOK_EVERY_S:
            return []
        self._looked_s = time.monotonic()
        nodes = self._nodes()
        alive = {node["id"] for node in nodes}
        again: list[Any] = []
        for slot in [slot for slot in self._slots if slot.node and slot.node not in alive]:
            # Ray would start the actor again elsewhere, but only where no slot is yet.
            again += slot.tasks.values()
            self._slots.remove(slot)
            self._drop(slot)
        wanted = min(self._wanted(nodes) - sum(self._unusable.values()), left)
        while len(self._slots) < wanted:
            made = make()
            self._slots.append(_Slot(actor=made, found=made.node.remote()))
        return again

    def _find(self, slot: _Slot) -> None:
        """Note where a slot's actor is, once it runs."""
        if slot.node is None:
            ready, _ = self._ray.wait([slot.found], timeout=0)
            if ready:
                try:
                    slot.node = self._ray.get(slot.found)
                except self._ray.exceptions.RayError as error:
                    slot.failures += 1
                    if slot.failures == _MOST_FAILURES:  # for example, ovavel is not installed there
                        self._retire(slot, _first_line(error), deque())
                    else:
                        slot.found = slot.actor.node.remote()

    def _give(self, waiting: deque[Any]) -> None:
        """Give each slot that runs what it has room for, in turn."""
        for room in range(1, _IN_FLIGHT + 1):
            for slot in self._slots:
                if waiting and slot.node and len(slot.tasks) < room:
                    item = waiting.popleft()
                    slot.tasks[slot.actor.process.remote(item)] = item

    def _outcome(self, task: Any, slot: _Slot) -> Outcome | None:
        """The result of a task; None where it was lost with its actor more often than Ray tries."""
        try:
            slot.node, outcome = self._ray.get(task)
        except self._ray.exceptions.RayTaskError as error:  # a mistake in ovavel: the others go on
            cause = error.cause
            return Outcome(state="failed", text=f"{type(cause).__name__}: {cause}")
        except self._ray.exceptions.RayError:
            return None
        return outcome  # type: ignore[no-any-return]

    def _retire(self, slot: _Slot, why: str, waiting: deque[Any]) -> None:
        """Do without a slot whose machine cannot do the work.

        Raises:
            ClusterError: there is no other one.
        """
        waiting.extendleft(slot.tasks.values())
        self._slots.remove(slot)
        self._drop(slot)
        self._unusable[why] = self._unusable.get(why, 0) + 1
        self._report(f"{self._host(slot)} is left out: {why}")
        if not self._slots:
            raise ClusterError(f"no machine of the cluster can do the work: {'; '.join(self._unusable)}")

    def _drop(self, slot: _Slot) -> None:
        with contextlib.suppress(Exception):  # the cluster may be lost
            self._ray.kill(slot.actor, no_restart=True)


def _running() -> str | None:
    """The address of the cluster that this machine is part of; None if there is none.

    Ray itself would take any cluster that runs here, such as one that another `ovavel localize` started for itself.
    """
    if address := os.environ.get("RAY_ADDRESS"):
        return address
    with contextlib.suppress(OSError):
        folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
        address = Path(folder, "ray", "ray_current_cluster").read_text().strip()
        _reach(address)
        return address
    return None


def _reach(address: str) -> None:
    """Raise OSError unless something listens at `address`."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        host, port = address.removeprefix("ray://"), _CLIENT_PORT
    socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S).close()


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
