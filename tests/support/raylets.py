"""A Ray cluster of several raylets on this machine, which a test adds and kills."""

from __future__ import annotations

import contextlib
import os
import random
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import psutil

__all__ = ["add", "kill_a_node", "kill_actors", "raylets"]


@contextlib.contextmanager
def raylets(variables: Mapping[str, str]) -> Iterator[Any]:
    """A cluster whose first machine has no cores; each added one has one. Other processes find it as "auto"."""
    from ray.cluster_utils import Cluster

    # Paths of sockets are short.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        (Path(folder) / "ray").mkdir()
        with mock.patch.dict(os.environ, {**variables, "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": folder}):
            options = {"num_cpus": 0, "object_store_memory": 100_000_000, "include_dashboard": False}
            cluster = Cluster(initialize_head=True, head_node_args=options)
            try:
                yield cluster
            finally:
                cluster.shutdown()


def add(cluster: Any) -> Any:
    """Add a machine of one core."""
    return cluster.add_node(num_cpus=1, object_store_memory=100_000_000)


def actors() -> list[psutil.Process]:
    """The processes that work, on the machines of this test."""
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::SlotActor")
    ]


def kill_actors(cluster: Any, nodes: list[Any], chance: random.Random) -> None:
    """Kill one of the actors."""
    with contextlib.suppress(psutil.NoSuchProcess, IndexError):
        chance.choice(actors()).kill()


def kill_a_node(cluster: Any, nodes: list[Any], chance: random.Random) -> None:
    """Another one comes instead."""
    cluster.remove_node(nodes.pop(), allow_graceful=False)
    nodes.append(add(cluster))
