"""Ids: of a recording the same each time, of anything live never."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import made_up_session as fake

from ovavel.runtime.backends import Backend, open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.pipeline.tracker import EventRules
from ovavel.runtime.results.document import to_json
from ovavel.runtime.results.recording import localize_recording
from ovavel.runtime.session import Session
from ovavel.runtime.session_info import new_id, recording_id
from ovavel.runtime.sources.media.fingerprint import BLOCK, BLOCKS, fingerprint
from ovavel.runtime.sources.media.source import MediaSource

DEMO = Path(__file__).parents[2] / "eval" / "demo" / "assets"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open(DEMO / "bundle")


@pytest.fixture(scope="module")
def backend(bundle: Bundle) -> Any:
    opened = open_backend(bundle, device="cpu")
    yield opened
    opened.close()


def id_of(bundle: Bundle, backend: Backend, source: MediaSource, **options: Any) -> str:
    with Session(bundle, source, backend=backend, **options) as session:
        return session.info.id


def test_a_recording_has_one_id_wherever_it_lies(bundle: Bundle, backend: Backend, tmp_path: Path) -> None:
    first = id_of(bundle, backend, MediaSource(DEMO / "clip.mp4"))
    elsewhere = tmp_path / "another name.mp4"
    shutil.copyfile(DEMO / "clip.mp4", elsewhere)
    assert id_of(bundle, backend, MediaSource(elsewhere)) == first
    assert uuid.UUID(first).version == 8
    elsewhere.write_bytes(elsewhere.read_bytes() + b"\0")
    assert id_of(bundle, backend, MediaSource(elsewhere)) != first


def test_results_of_a_recording_are_the_same_bytes_each_time(bundle: Bundle, backend: Backend, tmp_path: Path) -> None:
    clip = MediaSource(DEMO / "clip.mp4"), MediaSource(DEMO / "clip.mp4")
    one, other = (to_json(localize_recording(bundle, source, backend=backend)) for source in clip)
    assert one == other


def test_whatever_decides_makes_another_id(bundle: Bundle, backend: Backend) -> None:
    options: list[dict[str, Any]] = [
        {},
        {"lag": 3},
        {"fusion": "published" if bundle.manifest.fusion.decision == "positive" else "positive"},
        {"channel": "first"},
        {"rules": EventRules(min_duration_s=2)},
        {"rules": EventRules(start_margin=0.5, keep_margin=0.5)},
    ]
    ids = [id_of(bundle, backend, MediaSource(DEMO / "clip.mp4"), **each) for each in options]
    ids.append(id_of(bundle, backend, MediaSource(DEMO / "clip.mp4", audio=False)))
    assert len(set(ids)) == len(ids)


def test_what_is_played_live_has_a_new_id_each_time(bundle: Bundle, backend: Backend) -> None:
    """Windows may be dropped: two runs are not the same."""
    ids = [id_of(bundle, backend, MediaSource(DEMO / "clip.mp4", realtime=True)) for _ in range(2)]
    assert ids[0] != ids[1]
    assert [uuid.UUID(each).version for each in ids] == [7, 7]


def test_new_ids_are_unique_and_ordered_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = []
    for milliseconds in (1_700_000_000_000, 1_700_000_000_001, 1_900_000_000_000):
        monkeypatch.setattr("ovavel.runtime.session_info.time.time_ns", lambda now=milliseconds: now * 1_000_000)
        ids += [sorted(new_id() for _ in range(50))]
    assert len({each for group in ids for each in group}) == 150
    assert [each for group in ids for each in group] == sorted(each for group in ids for each in group)
    assert all(uuid.UUID(each).variant == uuid.RFC_4122 for group in ids for each in group)


@given(st.lists(st.text() | st.integers() | st.none(), max_size=4), st.lists(st.text() | st.integers(), max_size=4))
def test_an_id_of_a_recording_is_that_of_its_facts(one: list[object], other: list[object]) -> None:
    assert (recording_id(one) == recording_id(other)) == (one == other)
    assert uuid.UUID(recording_id(one)).variant == uuid.RFC_4122


def test_events_of_two_sessions_have_two_ids(bundle: Bundle, backend: Backend) -> None:
    event = fake.event(1, "dog barking", 0.0, 1.0)
    ids = []
    for _ in range(2):
        with Session(bundle, MediaSource(DEMO / "clip.mp4", realtime=True), backend=backend) as session:
            ids.append(session.info.event_id(event))
    assert ids[0] != ids[1]
    assert all(each.endswith("-1") for each in ids)


@pytest.mark.parametrize("size", [0, 1, BLOCK * BLOCKS, BLOCK * BLOCKS + 1, 3 * BLOCK * BLOCKS])
def test_the_fingerprint_is_of_beginning_end_and_size(tmp_path: Path, size: int) -> None:
    path = tmp_path / "recording"
    path.write_bytes(bytes(size))
    found = {fingerprint(path)}
    path.write_bytes(bytes(size + 1))
    found.add(fingerprint(path))
    for at in {0, size}:
        with path.open("r+b") as file:
            file.seek(at)
            file.write(b"\1")
        found.add(fingerprint(path))
    assert len(found) == (4 if size else 3)


def test_what_is_no_file_has_no_fingerprint(tmp_path: Path) -> None:
    assert fingerprint(tmp_path) is None
    assert fingerprint(tmp_path / "missing") is None
    assert fingerprint(Path("\0")) is None
