"""Recordings on a Ray cluster: one on this machine, of several raylets where nodes come and go.

Those marked `proof` take minutes.
"""

from __future__ import annotations

import random
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.raylets import add, kill_a_node, kill_actors, raylets
from support.scaled import POISON, contents, make_recordings, poisonous, run, started, wait_until

from ovavel.runtime.commands.scaled import check_outcome
from ovavel.runtime.errors import StorageError
from ovavel.runtime.pipeline.tracker import EventRules
from ovavel.runtime.scale.actor import SlotActor
from ovavel.runtime.scale.cluster import Cluster
from ovavel.runtime.scale.done import Failed, ResultFolder
from ovavel.runtime.scale.job import Job, Recording, recordings_below
from ovavel.runtime.scale.places import Folder
from ovavel.runtime.scale.work import Outcome
from ovavel.runtime.scale.worker import Worker

ray = pytest.importorskip("ray", reason="needs the extra 'cluster'")

ON = ("--on", "auto", "--backend", "poisonous")
COUNT = 16


def test_marks_of_dead_actors_are_counted_for_each_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recordings, out = make_recordings(tmp_path / "in", 1), tmp_path / "out"
    ResultFolder(out).prepare()
    (recording,) = recordings_below([recordings / "day 0" / "clip-0.mp4"], recordings)
    job = Job(
        bundle="",
        bundle_sha256="",
        out=str(out),
        formats=("json",),
        engine={"name": "onnxruntime", "precision": None},
        lag=2,
        rules=EventRules(),
    )
    done = Outcome(state="done")
    monkeypatch.setattr(Worker, "process", lambda self, recording: done)
    assert SlotActor(Worker, job, "run").work_on(recording) == done
    assert not list((out / "aside").iterdir())

    def die(self: Worker, recording: Recording) -> Outcome:
        raise SystemExit

    monkeypatch.setattr(Worker, "process", die)
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "remove", lambda self, name: None)  # as if it had been killed
        for _ in range(3):
            with pytest.raises(SystemExit):
                SlotActor(Worker, job, "run").work_on(recording)
    failed = SlotActor(Worker, job, "run").work_on(recording)
    assert failed.state == "failed"
    assert "ended 3 processes" in failed.text
    assert not list((out / "aside").iterdir())
    with pytest.raises(SystemExit):
        SlotActor(Worker, job, "another").work_on(recording)


class _Answer:
    """What a call of Ray returns, which is ready at once."""

    def __init__(self, value: Any) -> None:
        self.value = value


class _Actors:
    """Stands for Ray with one machine of some slots, the first of which answers something else."""

    exceptions = ray.exceptions

    def __init__(self, first: Outcome | Exception, *, slots: int = 2) -> None:
        self._first, self._slots, self._made = first, slots, 0

    def nodes(self) -> list[dict[str, Any]]:
        resources = {"CPU": self._slots}
        return [{"Alive": True, "NodeID": "id", "NodeManagerHostname": "lab-7", "Resources": resources}]

    def remote(self, *values: Any) -> Any:
        """Of the class of actors, or of what makes one."""
        if len(values) == 1:
            return self
        self._made += 1
        outcome = self._first if self._made == 1 else Outcome(state="done")
        answer = outcome if isinstance(outcome, Exception) else ("id", outcome)
        return SimpleNamespace(
            node=SimpleNamespace(remote=lambda: _Answer("id")),
            process=SimpleNamespace(remote=lambda item: _Answer(answer)),
        )

    def options(self, **_: object) -> Any:
        return self

    def wait(self, answers: list[_Answer], **_: object) -> tuple[list[_Answer], list[_Answer]]:
        return answers, []

    def get(self, answer: _Answer) -> Any:
        if isinstance(answer.value, Exception):
            raise answer.value
        return answer.value

    def init(self, **_: object) -> None: ...

    def shutdown(self) -> None: ...

    def kill(self, actor: object, *, no_restart: bool) -> None: ...


@pytest.fixture
def on_actors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[_Actors], tuple[dict[str, Outcome], Any]]:
    """What became of items on a made-up cluster, by name, and what was reported of its machines."""

    def run_on(actors: _Actors) -> tuple[dict[str, Outcome], list[str]]:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
        monkeypatch.setitem(sys.modules, "ray", actors)
        job: Any = SimpleNamespace(on_slot=lambda threads, gpu: None)
        items, reported = [Recording(file=name, path=name, name=name) for name in "abcdef"], list[str]()
        with Cluster("auto", threads=1, gpus=False, report=reported.append) as cluster:
            results = [each for each in cluster.process(Worker, job, items) if each]
        assert sorted(item.name for item, _ in results) == list("abcdef")
        return {item.name: outcome for item, outcome in results}, reported

    return run_on


@pytest.mark.parametrize("state", ["unusable", "unreachable"])
def test_a_slot_that_refuses_two_items_at_once_is_left_out_once(
    on_actors: Callable[[_Actors], tuple[dict[str, Outcome], Any]], state: Any
) -> None:
    results, reported = on_actors(_Actors(Outcome(state=state, text="there is no bucket 'site'")))
    assert {outcome.state for outcome in results.values()} == {"done"}
    assert reported == ["lab-7 is left out: there is no bucket 'site'"]


def test_storage_that_no_machine_reaches_is_no_fault_of_machines(
    on_actors: Callable[[_Actors], tuple[dict[str, Outcome], Any]],
) -> None:
    results, reported = on_actors(_Actors(Outcome(state="unreachable", text="no answer"), slots=1))
    assert {outcome.state for outcome in results.values()} == {"unreachable"}
    with pytest.raises(StorageError, match="no answer; then run the command again"):
        check_outcome(results["a"])
    assert reported == []


@pytest.mark.parametrize(
    ("first", "text"),
    [
        (Outcome(state="failed", text="a is not there"), "a is not there (on lab-7)"),
        (ray.exceptions.RayTaskError("process", "Traceback", KeyError("rate")), "KeyError: 'rate' (on lab-7)"),
    ],
    ids=["no recording", "a mistake"],
)
def test_what_fails_on_a_machine_names_it_and_the_others_are_done(
    on_actors: Callable[[_Actors], tuple[dict[str, Outcome], Any]], first: Outcome | Exception, text: str
) -> None:
    results, _ = on_actors(_Actors(first))
    assert {outcome.text for outcome in results.values() if outcome.state == "failed"} == {text}
    assert {outcome.state for outcome in results.values()} == {"failed", "done"}


@pytest.mark.timeout(600)
def test_a_machine_alone_has_the_results_of_a_process_and_outlives_poison(tmp_path: Path) -> None:
    recordings = make_recordings(tmp_path / "in", 5, poison=True)
    variables = poisonous(tmp_path / "installed") | {"RAY_TMPDIR": str(tmp_path)}
    done = run(recordings, tmp_path / "out", *ON, variables=variables)
    assert done.returncode == 1, done.stderr
    assert "5 localized, 1 failed" in done.stdout
    assert "Traceback" not in done.stderr
    (failed,) = [record for record in ResultFolder(tmp_path / "out").records() if isinstance(record, Failed)]
    assert (failed.recording, failed.attempts) == (POISON, 3)
    (recordings / POISON).unlink()
    for path in (tmp_path / "out" / "failed").iterdir():
        path.unlink()
    shard = run(recordings, tmp_path / "one", "--shard", "0/1", "--backend", "poisonous", variables=variables)
    assert shard.returncode == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "one")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The backend "poisonous"."""
    return poisonous(tmp_path_factory.mktemp("installed") / "packages")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recordings(tmp_path_factory.mktemp("in"), COUNT)


@pytest.fixture(scope="module")
def undisturbed(
    recordings: Path, installed: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed")
    shard = run(recordings, out, "--shard", "0/1", "--backend", "poisonous", variables=installed)
    assert shard.returncode == 0
    return contents(out)


@pytest.fixture
def cluster(installed: dict[str, str]) -> Iterator[Any]:
    with raylets(installed) as cluster:
        yield cluster


@pytest.mark.proof
@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", [kill_actors, kill_a_node])
def test_whatever_dies_the_results_are_those_of_one_process(
    fault: Callable[[Any, list[Any], random.Random], None],
    cluster: Any,
    recordings: Path,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
) -> None:
    folder, chance = ResultFolder(tmp_path), random.Random(3)
    nodes = [add(cluster), add(cluster)]
    with started(recordings, tmp_path, *ON) as process:
        for wanted in (2, 6, 10):
            wait_until(lambda wanted=wanted: folder.count_done() >= wanted, process)
            fault(cluster, nodes, chance)
        assert process.wait(300) == 0
    assert contents(tmp_path) == undisturbed


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_a_node_that_comes_takes_part_and_the_last_one_may_go(
    cluster: Any, recordings: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    folder = ResultFolder(tmp_path)
    node = add(cluster)
    with started(recordings, tmp_path, *ON) as process:
        wait_until(lambda: folder.count_done() >= 2, process)
        cluster.remove_node(node, allow_graceful=False)
        add(cluster)
        assert process.wait(300) == 0
    assert contents(tmp_path) == undisturbed


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_drivers_that_die_and_two_at_once(
    cluster: Any, recordings: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    folder = ResultFolder(tmp_path)
    add(cluster)
    add(cluster)
    for number, wanted in ((signal.SIGKILL, 2), (signal.SIGINT, 4), (signal.SIGTERM, 6)):
        with started(recordings, tmp_path, *ON) as process:
            wait_until(lambda wanted=wanted: folder.count_done() >= wanted, process)
            process.send_signal(number)
            assert process.wait(100) in (-signal.SIGKILL, 130)
    with started(recordings, tmp_path, *ON) as one, started(recordings, tmp_path, *ON) as other:
        assert (one.wait(300), other.wait(300)) == (0, 0)
    assert contents(tmp_path) == undisturbed


def test_a_cluster_that_is_not_there_is_an_error(recordings: Path, tmp_path: Path) -> None:
    lost = run(recordings, tmp_path, "--on", "auto", variables={"RAY_ADDRESS": "127.0.0.1:1"})
    assert lost.returncode == 1
    assert "cannot reach the Ray cluster" in lost.stderr
    assert "Traceback" not in lost.stderr
