"""Runs over object storage, on an S3 server in this process: killed, at once, without a bucket, without a server."""

from __future__ import annotations

import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.scaled import BUNDLE, contents, make_recordings, run, started, store_contents, wait_until

from ovavel.runtime.cli import main
from ovavel.runtime.scale import objects
from ovavel.runtime.scale.done import ResultFolder
from ovavel.runtime.scale.worker import Worker

pytest.importorskip("obstore", reason="needs the extra 'objects'")
pytest.importorskip("moto.server", reason="needs the extra 'dev'")

import obstore
from support.object_server import SECRET, S3Server

ODD = "100% #é/a+b &c.mp4"
RAW = "s3://test/raw"


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_recordings(tmp_path_factory.mktemp("in"), 3)
    (folder / ODD).parent.mkdir()
    shutil.copy(folder / "day 0" / "clip-0.mp4", folder / ODD)
    (folder / "notes.txt").write_text("no recording")
    return folder


@pytest.fixture(scope="module")
def undisturbed(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process writes on a disk, of recordings that it names as they are named in the store."""
    out = tmp_path_factory.mktemp("undisturbed")
    assert run(".", out, "--shard", "1/1", folder=recordings).returncode == 0
    return contents(out)


@pytest.fixture(scope="module")
def server(recordings: Path) -> Iterator[S3Server]:
    server = S3Server("test")
    server.upload(recordings, "raw")
    yield server
    server.stop()


@pytest.fixture
def here(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process, and those it starts, find the server, and do not try again."""
    for name, value in server.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(objects, "RETRIES", {"max_retries": 0})
    objects.object_store.cache_clear()
    yield
    objects.object_store.cache_clear()


@pytest.mark.usefixtures("here")
def test_shards_in_object_storage_write_what_is_written_on_a_disk(
    server: S3Server, undisturbed: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = server.store("out")
    for shard in ("1/2", "2/2"):
        done = run(RAW, "s3://test/out/", "--shard", shard)
        assert done.returncode == 0, done.stderr
        assert SECRET not in done.stdout + done.stderr
    assert store_contents(out) == undisturbed
    obstore.put(out, "day 0/clip-0.mp4.ovavel.json", b"{}")
    obstore.delete(out, f"{ODD}.ovavel.html")
    again = run(RAW, "s3://test/out", "--shard", "1/1")
    assert "2 already done" in again.stdout
    assert "2 localized" in again.stdout
    assert store_contents(out) == undisturbed
    for name, data in undisturbed.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert main(["report", str(tmp_path)]) == 0
    assert main(["report", "s3://test/out"]) == 0
    assert "4 recordings done, 0 failed" in capsys.readouterr().out
    held = store_contents(out)
    assert held["report.json"] == (tmp_path / "report.json").read_bytes()
    assert b'href="day%200/clip-0.mp4.ovavel.html"' in held["report.html"]
    assert obstore.get(out, "report.html").attributes["Content-Type"] == "text/html"


@pytest.mark.usefixtures("here")
def test_a_killed_run_resumes_and_two_at_once_do_no_harm(server: S3Server, undisturbed: dict[str, bytes]) -> None:
    folder, out = ResultFolder("s3://test/killed"), "s3://test/killed"
    with started(RAW, out, "--shard", "1/1") as process:
        wait_until(lambda: folder.count_done() >= 1, process)
        process.kill()
    with started(RAW, out, "--shard", "1/1") as one, started(RAW, out, "--shard", "1/1") as other:
        assert (one.wait(100), other.wait(100)) == (0, 0)
    assert store_contents(server.store("killed")) == undisturbed


def job(out: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The job of `run`."""
    made: list[Any] = []
    monkeypatch.setattr("ovavel.runtime.commands.localize.run_scaled", lambda job, *_: made.append(job) or 0)
    words = ["--shard", "1/1", "--device", "cpu", "--threads", "1", "--format", "json", "html"]
    assert main(["localize", RAW, "--bundle", str(BUNDLE), "--out", out, *words]) == 0
    return made[0]


@pytest.mark.usefixtures("here")
def test_a_server_that_goes_between_results_and_record_leaves_no_record(
    server: S3Server, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    (first, *others), _ = objects.recordings_at(RAW, {".mp4"})
    record = objects.ObjectPlace.record

    def unplug(self: objects.ObjectPlace, name: str, data: bytes) -> None:
        server.stop()
        record(self, name, data)

    with closing(Worker(job("s3://test/lost", monkeypatch))) as worker:
        with monkeypatch.context() as patch:
            patch.setattr(objects.ObjectPlace, "record", unplug)
            try:
                lost = worker.process(first)
                assert lost.state == "unreachable"
                assert "cannot write s3://test/lost/done/" in lost.text
                next_one = worker.process(others[0])
                assert next_one.state == "unreachable"
                assert f"cannot read {RAW}/{others[0].name}" in next_one.text
            finally:
                server.start()
        held = store_contents(server.store("lost"))
        assert held
        assert not [name for name in held if name.startswith(("done/", "failed/"))]
        assert {worker.process(each).state for each in (first, *others)} == {"done"}
    assert store_contents(server.store("lost")) == undisturbed


def test_ctrl_c_ends_the_wait_for_a_server_that_does_not_answer(server: S3Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        variables = server.variables | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        with started(RAW, "s3://test/out", "--shard", "1/1", variables=variables) as process:
            connected, _ = silent.accept()
            with connected:
                process.send_signal(signal.SIGINT)
                assert process.wait(60) == 130


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("raw", "out", "said"),
    [
        (RAW, "s3://nobody/out", "cannot list s3://nobody/out/aside: there is no such bucket; check the URL"),
        ("s3://nobody/raw", "s3://test/none", "there is no such bucket"),
        ("s3://test/nothing", "s3://test/none", "there are no media files below s3://test/nothing"),
    ],
)
def test_what_is_not_there_is_one_line(
    raw: str, out: str, said: str, server: S3Server, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["localize", raw, "--bundle", str(BUNDLE), "--out", out, "--shard", "1/1"]) == 1
    line = capfd.readouterr().err.strip()
    assert said in line
    assert "\n" not in line
    assert not store_contents(server.store("none"))


def test_the_command_line_says_what_object_storage_needs(
    recordings: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bundle = ["--bundle", str(BUNDLE)]
    for words, said in (
        ([RAW], "give --shard 1/1"),
        ([str(recordings), "--out", "s3://test/out"], "give --shard 1/1"),
        ([RAW, str(recordings), "--shard", "1/1", "--out", "x"], "name one prefix"),
        (["s3://user:hidden@test/raw", "--shard", "1/1", "--out", "x"], "leave the login"),
        ([RAW, "--shard", "1/1", "--out", "https://user:hidden@example.org/x"], "neither a path nor object storage"),
    ):
        assert main(["localize", *words, *bundle]) == 2
        shown = capsys.readouterr().err
        assert said in shown
        assert "hidden" not in shown
    url = f"file://{recordings}"
    assert main(["localize", url, *bundle, "--shard", "7/7", "--out", f"file://{tmp_path}/out"]) == 0
    assert (tmp_path / "out" / "done").is_dir()
