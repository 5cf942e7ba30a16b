"""A repository, a server, `bundle check`, and then `localize`: the same events as on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.demo_copies import BUNDLE, CLIP, EVENTS
from support.triton_server import TritonServer

from ovavel.runtime.backends.triton import open_triton
from ovavel.runtime.cli import main

pytestmark = pytest.mark.usefixtures("own_store")


def localize(out: Path, *flags: str) -> int:
    return main(["localize", str(CLIP), "--bundle", str(BUNDLE), "--out", str(out), "--format", "json", *flags])


def result(out: Path) -> dict:
    (file,) = out.glob("*.json")
    return json.loads(file.read_text())


def test_it_decides_only_after_it_was_verified(
    server: TritonServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--backend", "triton", "--device", server.address)
    assert localize(tmp_path / "unverified", *flags) == 1
    refusal = capsys.readouterr().err
    assert "has not been verified against PyTorch on this machine" in refusal
    assert f"--backend triton --device {server.address} --precision fp32" in refusal

    assert main(["bundle", "check", "--bundle", str(BUNDLE), *flags]) == 0
    assert "passed: it agrees with PyTorch" in capsys.readouterr().out
    assert localize(tmp_path / "there", *flags) == 0
    assert localize(tmp_path / "here", "--backend", "onnxruntime", "--device", "cpu") == 0
    there, here = result(tmp_path / "there"), result(tmp_path / "here")
    for each in (*there["events"], *here["events"]):
        del each["id"]  # which says by what it was found
    assert there["events"] == here["events"]
    assert [(each["start_s"], each["end_s"], each["label"]) for each in there["events"]] == EVENTS
    assert [each["label"] for each in there["segments"]] == [each["label"] for each in here["segments"]]


def test_what_was_verified_is_one_server_with_one_configuration(
    server: TritonServer, repository: Path, tmp_path: Path
) -> None:
    flags = ("--backend", "triton", "--device", server.address)
    assert main(["bundle", "check", "--bundle", str(BUNDLE), *flags]) == 0
    server.models["vision"].config.instance_group[0].count = 2
    assert localize(tmp_path / "changed", *flags) == 1
    another = TritonServer(repository)
    try:
        assert localize(tmp_path / "another", "--backend", "triton", "--device", another.address) == 1
    finally:
        another.stop()


def test_a_server_that_computes_something_else_is_not_verified(
    server: TritonServer, capsys: pytest.CaptureFixture[str]
) -> None:
    def swapped(response) -> None:  # type: ignore[no-untyped-def]
        if response.model_name == "audio":
            for place, raw in enumerate(response.raw_output_contents):
                response.raw_output_contents[place] = raw[4:] + raw[:4]

    server.altered = swapped
    assert main(["bundle", "check", "--bundle", str(BUNDLE), "--backend", "triton", "--device", server.address]) == 1
    assert "the first failed stage is audio" in capsys.readouterr().out


def test_a_server_that_dies_ends_the_run_with_one_line(
    server: TritonServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is decided by another engine in its place, and nothing half is written."""
    monkeypatch.setitem(open_triton.__kwdefaults__, "deadline_s", 3.0)
    windows = 0

    def die_later(request) -> None:  # type: ignore[no-untyped-def]
        nonlocal windows
        windows += request.model_name == "vision"
        if windows == 3:
            server.kill()

    server.before = die_later
    flags = ("--backend", "triton", "--device", server.address, "--allow-unverified")
    assert localize(tmp_path / "out", *flags) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert f"the Triton server at {server.address}" in said
    assert not list((tmp_path / "out").glob("*.json"))
