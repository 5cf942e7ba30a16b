"""Object storage in one process: the same records and results as on a disk, and what goes wrong with a store."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.scaled import BUNDLE, REQUEST, contents, identity, make_recordings, store_contents

from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.errors import InputError, MediaError, MissingExtraError, OutputError, StorageError, UsageError
from ovavel.runtime.pipeline.tracker import EventRules
from ovavel.runtime.scale import objects
from ovavel.runtime.scale.actor import SlotActor
from ovavel.runtime.scale.done import Done, ResultFolder, Summary, output_name, recording_id
from ovavel.runtime.scale.job import Job, Recording, recordings_below
from ovavel.runtime.scale.media import opened
from ovavel.runtime.scale.worker import Worker
from ovavel.runtime.sources.media.fingerprint import WHOLE, fingerprint

obstore: Any = pytest.importorskip("obstore", reason="needs the extra 'objects'")

from obstore.exceptions import GenericError, PermissionDeniedError  # noqa: E402
from obstore.store import MemoryStore  # noqa: E402

RAW, OUT = "s3://test/raw", "s3://test/out/"
SUMMARY = Summary(duration_s=1.0, events={}, lost_s={})


@pytest.fixture
def stores() -> Iterator[Callable[[str], MemoryStore]]:
    """A store in memory for each URL."""
    with pytest.MonkeyPatch.context() as patch:
        yield in_memory(patch)


def in_memory(patch: pytest.MonkeyPatch) -> Callable[[str], MemoryStore]:
    made: dict[str, MemoryStore] = {}

    def store(url: str) -> MemoryStore:
        objects.check_url(url)
        return made.setdefault(url.rstrip("/"), MemoryStore())

    patch.setattr("ovavel.runtime.scale.objects.object_store", store)
    patch.setattr("ovavel.runtime.scale.media.object_store", store)
    return store


def upload(folder: Path, store: MemoryStore) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            obstore.put(store, path.relative_to(folder).as_posix(), path.read_bytes())


def an_object(name: str) -> Recording:
    return Recording(file=name, path=name, name=name, store=RAW)


PARTS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="/"), min_size=1, max_size=8
)
NAMES = st.builds(
    lambda folders, file: "/".join([*(f"in {each}" for each in folders), f"at {file}"]),
    st.lists(PARTS, max_size=2),
    PARTS,
)
KEYS = st.sampled_from(["a", "b", "c"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), KEYS, st.dictionaries(NAMES, st.binary(max_size=20), max_size=3)),
        st.tuples(st.just("fail"), KEYS, st.text(max_size=8)),
        st.tuples(st.just("mark"), KEYS, st.none()),
        st.tuples(st.just("remove"), KEYS, st.none()),
        st.tuples(st.just("spoil"), NAMES, st.binary(max_size=20)),
    ),
    max_size=12,
)


@settings(max_examples=40)
@given(steps=STEPS)
def test_whatever_is_done_the_store_holds_what_the_disk_holds(steps: list[tuple[str, str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        store = in_memory(patch)(OUT)
        disk, remote = ResultFolder(Path(folder)), ResultFolder(OUT)
        seen = []
        for results in (disk, remote):
            results.prepare()
            seen.append([taken(results, *step) for step in steps])
        assert seen[0] == seen[1]
        files = {path for path in Path(folder).rglob("*") if path.is_file()}
        assert {path.relative_to(folder).as_posix(): path.read_bytes() for path in files} == store_contents(store)
        assert list(disk.records()) == list(remote.records())
        assert disk.count_done() == remote.count_done()
        for suffixes in ((), ("a", ".json")):
            assert set(disk.place.names("", *suffixes)) == set(remote.place.names("", *suffixes))


def taken(results: ResultFolder, verb: str, name: str, what: Any) -> object:
    """Take one step; return what can be seen of it."""
    if verb == "write":
        outputs = {output_name(Path(each)): hashlib.sha256(data).hexdigest() for each, data in what.items()}
        record = Done(id=name, recording=name, request=REQUEST, outputs=outputs, summary=SUMMARY)
        results.write(name, record, {Path(each): data for each, data in what.items()}, replace=True)
        return results.done(name), results.intact(record, map(Path, what))
    if verb == "fail":
        return results.fail(name, an_object(name), what)
    if verb == "mark":
        return results.place.mark(f"aside/.{name}.part")
    if verb == "remove":
        results.place.remove(f"aside/.{name}.part")
    else:
        results.place.write(name, what)
    return [results.intact(record, map(Path, record.outputs)) for record in map(results.done, "abc") if record]


def test_of_two_records_at_once_equal_ones_are_kept_and_another_is_an_error(
    stores: Callable[[str], MemoryStore],
) -> None:
    results = ResultFolder(OUT)
    record = Done(id="a", recording="a.mp4", request=REQUEST, outputs={}, summary=SUMMARY)
    results.write("a", record, {})
    results.write("a", record, {})
    other = msgspec.structs.replace(record, outputs={"a.json": "00"})
    with pytest.raises(InputError, match=r"other results in s3://test/out/done/a\.json"):
        results.write("a", other, {})
    assert results.done("a") == record
    results.write("a", other, {}, replace=True)
    assert results.done("a") == other


@pytest.mark.parametrize("size", [0, 1, WHOLE, WHOLE + 1, 2 * WHOLE + 12_345])
def test_the_content_of_an_object_is_that_of_a_file(
    size: int, stores: Callable[[str], MemoryStore], tmp_path: Path
) -> None:
    data = os.urandom(size)
    obstore.put(stores(RAW), "a b/clip.MP4", data, use_multipart=False)
    (tmp_path / "clip").write_bytes(data)
    with opened(an_object("a b/clip.MP4")) as media:
        assert media.fingerprint == fingerprint(tmp_path / "clip")
        path = media.path()
        assert path.read_bytes() == data
        assert path.suffix == ".MP4"
        assert path.stat().st_nlink == 0, "it is gone when this process is killed"
    assert not path.is_symlink()


def test_an_object_that_goes_or_changes_meanwhile_fails_alone(stores: Callable[[str], MemoryStore]) -> None:
    store = stores(RAW)
    with opened(an_object("gone.mp4")) as media:
        assert media.fingerprint is None
        with pytest.raises(MediaError, match=r"gone\.mp4 is not there any more"):
            media.path()
    big = bytes(WHOLE + 1)
    obstore.put(store, "clip.mp4", big, use_multipart=False)
    with opened(an_object("clip.mp4")) as media:
        obstore.put(store, "clip.mp4", big + b"1", use_multipart=False)
        with pytest.raises(MediaError, match=r"clip\.mp4 was replaced while it was read"):
            media.path()


def test_a_recording_larger_than_the_disk_fails_and_a_full_disk_ends_the_run(
    stores: Callable[[str], MemoryStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    obstore.put(stores(RAW), "clip.mp4", bytes(1000))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage(999, 0, 999))
    with opened(an_object("clip.mp4")) as media, pytest.raises(MediaError, match="more than the disk"):
        media.path()
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage(9999, 9000, 999))
    with pytest.raises(OutputError, match="set TMPDIR"), opened(an_object("clip.mp4")):
        pass


def test_recordings_are_found_as_in_a_folder(stores: Callable[[str], MemoryStore]) -> None:
    store = stores(RAW)
    for name in ("b/x.MP4", "a.wav", "a.txt", ".hidden/y.mp4", "b/._x.mp4", "mp4"):
        obstore.put(store, name, b"1")
    found, skipped = objects.recordings_at(RAW, {".mp4", ".wav"})
    assert found == [an_object("a.wav"), an_object("b/x.MP4")]
    assert skipped == {"hidden": 2}


def job(**changes: Any) -> Job:
    options: dict[str, Any] = {
        "bundle": str(BUNDLE),
        "bundle_sha256": Bundle.open(BUNDLE).sha256,
        "out": OUT,
        "formats": ("json",),
        "engine": {"name": "onnxruntime", "precision": None, "device": "cpu", "threads": 1},
        "lag": 2,
        "rules": EventRules(),
    }
    return Job(**{**options, **changes})


def test_a_worker_writes_to_a_store_what_it_writes_to_a_disk(
    stores: Callable[[str], MemoryStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_recordings(tmp_path / "in", 1)
    (folder / "notes.mp4").write_text("no media")
    (folder / "empty.mp4").write_text("")
    upload(folder, stores(RAW))
    monkeypatch.chdir(folder)
    files = recordings_below(sorted(Path().rglob("*.mp4")), folder)
    found, _ = objects.recordings_at(RAW, {".mp4"})
    assert [each.name for each in found] == [each.name for each in files]
    ResultFolder(tmp_path / "out").prepare()
    with closing(Worker(job())) as remote, closing(Worker(job(out=str(tmp_path / "out")))) as local:
        for file, each in zip(files, found, strict=True):
            one, other = local.process(file), remote.process(each)
            assert one.state == other.state
            with opened(each) as media:
                assert recording_id(each, media.fingerprint) == identity(file)
        held = store_contents(stores(OUT))
        said = {name: data.replace(f"{folder}/".encode(), b"") for name, data in contents(tmp_path / "out").items()}
        assert held == said
        assert remote.process(found[0]).state == "kept"
        obstore.delete(stores(OUT), f"{found[0].name}.ovavel.json")
        assert remote.process(found[0]).state == "done"
        assert store_contents(stores(OUT)) == held
        refused = remote.process(Recording(file="a", path=found[0].path, name="a\tb/x.mp4", store=RAW))
        assert "has control characters" in refused.text
        assert (
            "too long"
            in remote.process(Recording(file="a", path=found[0].path, name=f"{'x' * 1100}/a", store=RAW)).text
        )


def test_marks_of_dead_actors_are_counted_in_a_store(
    stores: Callable[[str], MemoryStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(self: Worker, recording: Recording) -> None:
        raise SystemExit

    monkeypatch.setattr(Worker, "process", die)
    with monkeypatch.context() as patch:
        patch.setattr(objects.ObjectPlace, "remove", lambda self, name: None)  # as if it had been killed
        for _ in range(3):
            with pytest.raises(SystemExit):
                SlotActor(Worker, job(), "run").work_on(an_object("clip.mp4"))
    failed = SlotActor(Worker, job(), "run").work_on(an_object("clip.mp4"))
    assert failed.state == "failed"
    assert "ended 3 processes" in failed.text
    (name,) = store_contents(stores(OUT))
    assert name.startswith("failed/")


def test_a_slot_that_lacks_the_library_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "find_spec", lambda name: None)
    objects.object_store.cache_clear()
    outcome = SlotActor(Worker, job(), "run").work_on(an_object("clip.mp4"))
    assert (outcome.state, "obstore" in outcome.text) == ("unusable", True)


def test_old_marks_are_removed(stores: Callable[[str], MemoryStore], monkeypatch: pytest.MonkeyPatch) -> None:
    place = ResultFolder(OUT).place
    assert place.mark("aside/.a.part")
    place.prepare()
    assert not place.mark("aside/.a.part")
    monkeypatch.setattr(objects, "STALE_S", -1)
    place.prepare()
    assert not store_contents(stores(OUT))


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("s3://user:secret@bucket/a", "leave the login"),
        ("s3://secret@bucket/a", "leave the login"),
        ("abfs://c:secret@account/a", "leave the login"),
        ("az://bucket/a?sig=secret", "leave the login"),
        ("s3://bucket/a#secret", "leave the login"),
        ("s3:///a", "neither a path"),
        ("s3://[/a", "neither a path"),
        ("https://user:secret@example.org/a", "neither a path"),
        ("memory:///a", "neither a path"),
    ],
)
def test_urls_that_are_no_place_or_have_a_login_are_refused(url: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as found:
        objects.check_url(url)
    assert "secret" not in str(found.value)


def test_places_in_object_storage_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in (
        "s3://bucket",
        "s3://bucket/a b/",
        "gs://bucket/a",
        "az://c/a",
        "abfs://c@account.dfs.core.windows.net/a",
    ):
        objects.check_url(url)
    monkeypatch.setattr(objects, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="objects"):
        objects.check_url("s3://bucket")


def answer(code: str, message: str = "") -> str:
    parts = f"<Code>{code}</Code><Message>{message}</Message><AWSAccessKeyId>secret</AWSAccessKeyId>"
    return f"Error performing GET http://h/b in 2ms - Server returned non-2xx status code: 4: <Error>{parts}</Error>"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            PermissionDeniedError(answer("AccessDenied", "No.")),
            "access denied (AccessDenied: No); check the credentials",
        ),
        (FileNotFoundError(answer("NoSuchBucket")), "there is no such bucket"),
        (GenericError(answer("SlowDown", "Reduce\nyour rate")), "SlowDown: Reduce"),
        (
            GenericError("Error performing GET https://a/b?sig=secret in 2s - HTTP error: error sending request"),
            "HTTP error: error sending request; check the network",
        ),
        (GenericError("Error performing PUT http://169.254.169.254/latest in 2s - x"), "there are no credentials"),
    ],
)
def test_what_a_store_says_becomes_one_line_without_keys(error: Exception, said: str) -> None:
    with pytest.raises(StorageError) as found, objects.plain_errors("cannot x"):
        raise error
    assert str(found.value).startswith(f"cannot x: {said}")
    assert "secret" not in str(found.value)
    assert "\n" not in str(found.value)
