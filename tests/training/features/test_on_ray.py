"""A cache that a Ray cluster fills: one on this machine, of several raylets where nodes come and go.

Those marked `proof` take minutes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.raylets import add, kill_a_node, kill_actors, raylets
from support.scaled import wait_until
from support.training.caches import contents, demo_command, poisoned, run, started

from ovavel.eval.datasets.feature_cache import FeatureCache

pytest.importorskip("ray", reason="needs the extra 'cluster'")

ALL = ("--splits", "train", "val", "test", "--shard-clips", "1")


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, str], list[str]]:
    """See `poisoned`."""
    return poisoned(tmp_path_factory.mktemp("material"))


@pytest.mark.proof
@pytest.mark.timeout(900)
def test_clips_that_end_three_actors_are_damaged_and_the_others_are_encoded(
    material: tuple[Path, Path, dict[str, str], list[str]], tmp_path: Path
) -> None:
    _, bad, variables, names = material
    done = run(demo_command(bad, tmp_path / "out", "--on", "auto"), variables | {"RAY_TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "4 clips encoded now" in done.stdout
    cache = FeatureCache.open(tmp_path / "out")
    assert sorted(name for _, name in cache.damaged) == names
    assert {damage.kind for damage in cache.damaged.values()} == {"ended its process"}


@pytest.fixture
def cluster(material: tuple[Path, Path, dict[str, str], list[str]]) -> Iterator[Any]:
    with raylets(material[2]) as cluster:
        yield cluster


@pytest.mark.proof
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", [kill_actors, kill_a_node])
def test_whatever_dies_the_cache_is_that_of_one_process(
    fault: Callable[[Any, list[Any], random.Random], None],
    cluster: Any,
    material: tuple[Path, Path, dict[str, str], list[str]],
    tmp_path: Path,
) -> None:
    good, _, variables, _ = material
    assert run(demo_command(good, tmp_path / "plain", *ALL), variables).returncode == 0
    nodes, chance, out = [add(cluster), add(cluster)], random.Random(3), tmp_path / "out"
    with started(demo_command(good, out, *ALL, "--on", "auto"), variables) as process:
        for wanted in (1, 6):
            wait_until(lambda wanted=wanted: len(list(out.glob("*/*-*.json"))) >= wanted, process)
            fault(cluster, nodes, chance)
        assert process.wait(600) == 0
    assert contents(out) == contents(tmp_path / "plain")
