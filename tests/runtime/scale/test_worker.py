"""One recording after another in one process, and what goes wrong with one of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.scaled import BUNDLE, identity, make_recordings

from ovavel.runtime.backends.graph_backend import GraphBackend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.errors import DeviceError
from ovavel.runtime.pipeline.tracker import EventRules
from ovavel.runtime.scale.done import Failed, ResultFolder
from ovavel.runtime.scale.job import Job, Recording, recordings_below
from ovavel.runtime.scale.worker import Worker


def job(out: Path, **changes: Any) -> Job:
    options: dict[str, Any] = {
        "bundle": str(BUNDLE),
        "bundle_sha256": Bundle.open(BUNDLE).sha256,
        "out": str(out),
        "formats": ("json",),
        "engine": {"name": "onnxruntime", "precision": None, "device": "cpu", "threads": 1},
        "lag": 2,
        "rules": EventRules(),
    }
    return Job(**{**options, **changes})


@pytest.fixture
def recordings(tmp_path: Path) -> list[Recording]:
    folder = make_recordings(tmp_path / "in", 2)
    return recordings_below(sorted(folder.rglob("*.mp4")), folder)


@pytest.fixture
def folder(tmp_path: Path) -> ResultFolder:
    folder = ResultFolder(tmp_path / "out")
    folder.prepare()
    return folder


@pytest.fixture
def worker(folder: ResultFolder) -> Iterator[Worker]:
    with closing(Worker(job(folder.place.path))) as worker:
        yield worker


def test_an_engine_that_fails_once_costs_one_recording(
    worker: Worker, recordings: list[Recording], folder: ResultFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: GraphBackend, frames: object) -> None:
        raise DeviceError("the GPU fell off the bus")

    with monkeypatch.context() as patch:
        patch.setattr("ovavel.runtime.backends.graph_backend.GraphBackend.vision", fail)
        first = worker.process(recordings[0])
    assert first.state == "failed"
    assert "fell off the bus" in first.text
    assert worker.process(recordings[1]).state == "done"
    (failed,) = [record for record in folder.records() if isinstance(record, Failed)]
    assert failed.cause == first.text
    assert worker.process(recordings[0]).state == "done", "another run tries again"
    assert not list((folder.place.path / "failed").iterdir())


def test_an_engine_that_cannot_be_opened_is_no_fault_of_a_recording(
    recordings: list[Recording], folder: ResultFolder
) -> None:
    for changes, why in (
        ({"bundle_sha256": "0"}, "not the bundle that the run began with"),
        ({"engine": {"name": "nothing", "precision": None}}, "no backend 'nothing'"),
    ):
        outcome = Worker(job(folder.place.path, **changes)).process(recordings[0])
        assert outcome.state == "unusable"
        assert why in outcome.text
    assert not list(folder.records())


def test_a_damaged_record_is_reported_or_overwritten(
    worker: Worker, recordings: list[Recording], folder: ResultFolder
) -> None:
    record = folder.place.path / "done" / f"{identity(recordings[0])}.json"
    record.write_text("{")
    outcome = worker.process(recordings[0])
    assert outcome.state == "unequal"
    assert record.name in outcome.text
    with closing(Worker(job(folder.place.path, overwrite=True))) as overwriting:
        assert overwriting.process(recordings[0]).state == "done"
    assert worker.process(recordings[0]).state == "kept"


def test_what_is_no_file_is_not_opened(worker: Worker, tmp_path: Path) -> None:
    gone = Recording(file="gone.mp4", path=str(tmp_path / "gone.mp4"), name="gone.mp4")
    assert "gone.mp4 is not there; each machine needs" in worker.process(gone).text
    os.mkfifo(tmp_path / "pipe.mp4")
    pipe = Recording(file="pipe.mp4", path=str(tmp_path / "pipe.mp4"), name="pipe.mp4")
    assert "pipe.mp4 is a pipe" in worker.process(pipe).text
