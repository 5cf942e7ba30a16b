"""`ovavel eval score --llm`: the whole command, with a server on loopback that looks and listens."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support import chat_endpoint as chat
from support.chat_endpoint import ChatEndpoint, SeesAndHears
from support.ovavebench_factory import SEEN, UNSEEN, make_bench

from ovavel.runtime.cli import main

CLASSES = sorted([*SEEN, *UNSEEN])
KEY = "sk-not-for-anybody-123"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bench(tmp_path_factory.mktemp("bench"), clips=1)


def score(data: Path, out: Path, *more: str) -> int:
    return main(["eval", "score", "--data", str(data), "--out", str(out), *more])


def test_the_rows_of_a_model_stand_in_the_report(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVAVEL_LLM_KEY", KEY)
    with ChatEndpoint(SeesAndHears.of_bench(CLASSES), [chat.says("who knows")]) as server:
        code = score(data, tmp_path, "--llm", server.url, "--model", "toy<b>", "--controls", "--concurrency", "1")
    shown = capsys.readouterr()
    assert code == 0, shown.err
    assert all(headers["Authorization"] == f"Bearer {KEY}" for headers in server.headers)
    for name in ("seen and heard", "sight only", "sound only"):
        assert f"toy<b>, {name}" in shown.out
    assert "Invalid and refused answers are scored as background" in shown.out
    document = json.loads((tmp_path / "ovave-test.json").read_text())
    assert document["bundle"] is None
    assert [each["protocol"] for each in document["results"]] == ["llm", "llm-sight-only", "llm-sound-only"]
    assert document["results"][1]["total"] == {"acc": 1.0, "seg": 1.0, "eve": 1.0, "avg": 1.0}
    assert document["results"][0]["total"]["avg"] < 1
    assert document["llm"]["figures"][0]["invalid_share"] == pytest.approx(1 / 6)
    assert document["llm"]["figures"][0]["read_as"] == {
        "json": 5, "embedded": 0, "ranges": 0, "lines": 0, "invalid": 1, "refused": 0
    }  # fmt: skip
    assert document["llm"]["answered_as"] == {"toy": 18}
    rows = list(csv.reader((tmp_path / "ovave-test.csv").open()))
    assert ["toy<b>, seen and heard", "no", "total", "invalid", str(1 / 6), "", ""] in rows
    page = (tmp_path / "ovave-test.html").read_text()
    assert "toy&lt;b&gt;, sound only" in page
    assert "<h2>Answers</h2>" in page
    everything = shown.out + shown.err + "".join(path.read_text() for path in tmp_path.iterdir())
    assert KEY not in everything
    assert "Bearer" not in everything


def test_a_part_of_the_clips_and_then_the_rest(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ChatEndpoint(SeesAndHears.of_bench(CLASSES)) as server:
        words = ("--llm", server.url, "--model", "toy")
        assert score(data, tmp_path, *words, "--clips", "2") == 0
        assert len(server.questions) == 2
        assert score(data, tmp_path, *words) == 0
        assert len(server.questions) == 6
    assert "4 answers of this run" in capsys.readouterr().out


def test_clips_without_an_answer_are_listed_and_the_exit_code_is_1(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ovavel.eval.accuracy.llm.client.ATTEMPTS", 1)
    monkeypatch.setattr("ovavel.eval.accuracy.llm.client.Client.ask.__kwdefaults__", {"attempts": 1}, raising=False)
    with ChatEndpoint(SeesAndHears.of_bench(CLASSES), [chat.status(500, "out of memory")]) as server:
        words = ("--llm", server.url, "--model", "toy", "--concurrency", "1")
        assert score(data, tmp_path, *words) == 1
        assert "out of memory" in capsys.readouterr().out
        assert score(data, tmp_path, *words) == 0


WRONG = {
    "what is scored": [],
    "--llm needs --model": ["--llm", "http://127.0.0.1:9/v1"],
    "--model is for": ["--bundle", "x", "--model", "toy"],
    "--controls is for": ["--bundle", "x", "--controls"],
    "--key-file is for": ["--bundle", "x", "--key-file", "x"],
    "--features is for a bundle": ["--llm", "http://127.0.0.1:9/v1", "--model", "toy", "--features", "x"],
    "--rules is for a bundle": ["--llm", "http://127.0.0.1:9/v1", "--model", "toy", "--rules", "positive"],
    "not supported": ["--llm", "ftp://127.0.0.1:9/v1", "--model", "toy"],
    "takes an http or https address": ["--llm", "127.0.0.1:9", "--model", "toy"],
    "holds no API key": ["--llm", "http://127.0.0.1:9/v1", "--model", "toy", "--key-file", "/dev/null"],
}


@pytest.mark.parametrize("said", WRONG)
def test_what_cannot_be_asked_is_refused_in_one_line(
    said: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = list(WRONG[said])
    if "/dev/null" in words:
        (tmp_path / "empty").write_text("")
        words[-1] = str(tmp_path / "empty")
    assert score(data, tmp_path / "out", *words) in (1, 2)
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


def test_without_a_folder_nothing_is_asked(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ChatEndpoint() as server:
        assert main(["eval", "score", "--data", str(data), "--llm", server.url, "--model", "toy"]) == 2
    assert "--llm needs --out" in capsys.readouterr().err
    assert not server.bodies


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_continues(
    number: signal.Signals, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reached = threading.Event()

    def stuck(handler: chat.Handler, body: chat.Body) -> None:
        reached.set()
        handler.endpoint.stopped.wait()

    server = ChatEndpoint(SeesAndHears.of_bench(CLASSES))
    brain = server.brain

    def three_and_then_stuck(handler: chat.Handler, body: chat.Body) -> None:
        if chat.is_probe(body) or len(server.questions) <= 3:
            handler.answer(brain(body))
        else:
            stuck(handler, body)

    server.always = three_and_then_stuck
    words = ["--llm", server.url, "--model", "toy", "--concurrency", "1"]
    code = "import sys; from ovavel.runtime.cli import program; program()"
    command = [sys.executable, "-c", code, "eval", "score", "--data", str(data), "--out", str(tmp_path), *words]
    with server, subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ.copy()) as process:
        while not reached.wait(0.1):
            assert process.poll() is None, process.stderr and process.stderr.read()
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
        if number != signal.SIGKILL:
            assert process.returncode == 130
            assert "the same command continues" in error
            assert "Traceback" not in error
        kept = tmp_path / "answers.jsonl"
        assert len(kept.read_text().splitlines()) == 4 + 3
        kept.write_bytes(kept.read_bytes() + b'{"key": "torn')
        server.always = None
        assert score(data, tmp_path, *words) == 0
    out = capsys.readouterr().out
    assert "3 answers of this run" in out
    assert "3 of earlier runs" in out
    assert "an incomplete line at its end was removed" in out
