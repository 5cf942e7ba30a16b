"""Which recordings a shard holds, and what results depend on."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovavel.runtime.errors import UsageError
from ovavel.runtime.pipeline.tracker import EventRules
from ovavel.runtime.scale.job import Job, Recording, Shard, recordings_below


def recording(name: str) -> Recording:
    return Recording(file=name, path=f"/{name}", name=name)


@given(names=st.lists(st.from_regex(r"[a-zé\udc80/]{1,20}", fullmatch=True), unique=True), count=st.integers(1, 9))
def test_each_recording_is_in_one_shard_however_they_are_counted(names: list[str], count: int) -> None:
    for first in (0, 1):
        shards = [Shard.parse(f"{number}/{count}") for number in range(first, first + count)]
        for name in names:
            assert sum(shard.holds(recording(name)) for shard in shards) == 1


@pytest.mark.parametrize("text", ["", "1", "1/", "/2", "3/2", "0/0", "-1/2", "1/2/3", "١/٢", "a/b", "1 / 2", "1/2\n"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--shard"):
        Shard.parse(text)


def test_names_are_below_the_folder_of_all(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    found = recordings_below([tmp_path / "link" / "b" / "clip.mp4", tmp_path / "a" / "x.mp4"], tmp_path)
    assert [each.name for each in found] == ["a/b/clip.mp4", "a/x.mp4"]
    assert found[0].file == str(tmp_path / "link" / "b" / "clip.mp4")


def job(**changes: object) -> Job:
    options: dict[str, object] = {
        "bundle": "/bundle",
        "bundle_sha256": "ab",
        "out": "/out",
        "formats": ("json", "html"),
        "engine": {"name": "onnxruntime", "precision": None, "device": "cpu", "threads": 2},
        "lag": 2,
        "rules": EventRules(),
    }
    return Job(**{**options, **changes})  # type: ignore[arg-type]


def test_where_it_runs_is_no_part_of_the_request() -> None:
    engine = {"name": "onnxruntime", "precision": None, "device": "cuda", "threads": 8}
    other = job(engine=engine, formats=("html", "json"), out="/elsewhere", bundle="/copy")
    assert job().request == other.request
    assert job().request.differences(job(bundle_sha256="cd", lag=3).request) == ["bundle", "lag"]
