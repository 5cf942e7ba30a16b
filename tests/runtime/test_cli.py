from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ovavel.runtime.cli import main


def test_without_arguments_it_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "bundle export" in capsys.readouterr().out


def test_a_group_lists_its_own_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vocab"]) == 0
    out = capsys.readouterr().out
    assert "vocab add" in out
    assert "bundle export" not in out


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("ovavel ")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["locolize"], "did you mean 'ovavel localize'?"),
        (["vocab", "ad"], "did you mean 'ovavel vocab add'?"),
        (["xyzzy"], "'ovavel --help' lists them"),
    ],
)
def test_an_unknown_command_gets_a_hint(arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert hint in capsys.readouterr().err


@pytest.mark.parametrize("name", ["live", "localize", "doctor", "bench run", "demo", "vocab add", "bundle export"])
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*name.split(), "--help"])
    assert stop.value.code == 0
    assert f"usage: ovavel {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["live"], ["localize", "a.mp4"], ["bench", "run"], ["bundle", "check"]], ids=lambda words: words[-1]
)
@pytest.mark.parametrize(
    ("backend", "reported"),
    [("torch", "give --weights to 'ovavel eval parity'"), ("oxnruntime", "there is no backend")],
)
def test_a_backend_that_cannot_run_a_bundle_is_refused_before_anything_is_opened(
    arguments: list[str], backend: str, reported: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--bundle", "no-such-bundle", "--backend", backend]) == 2
    assert reported in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    ["live", "localize", "bench run", "train features", "bundle check", "eval parity", "eval score"],
)
def test_every_backend_flag_names_what_there_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*name.split(), "--help"])
    flat = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "onnxruntime, openvino, tensorrt, tensorrt-rtx, triton," in flat
    assert "'ovavel doctor' shows what this machine has" in flat


@pytest.mark.parametrize(
    "arguments",
    [["localize", "a.mp4", "--bundle", "b", "--\x1b[31mx"], ["\x1b[31mx\n"], ["live", "--lag", "\x1b[31m"]],
)
def test_what_a_user_typed_is_not_repeated_raw(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = int(stop.code or 0)
    said = capsys.readouterr().err
    assert code == 2
    assert "\x1b" not in said
    assert r"\x1b[31m" in said


def test_a_reader_that_went_away_is_no_error() -> None:
    code = (
        f"set -o pipefail; {sys.executable} -c 'from ovavel.runtime.cli import main; raise SystemExit(main())' | true"
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-"])
def test_standard_output_that_cannot_be_written_is_said(redirection: str) -> None:
    code = f"{sys.executable} -c 'from ovavel.runtime.cli import main; raise SystemExit(main())' --help {redirection}"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
    assert done.returncode == 1
    assert "standard output" in done.stderr


def test_help_beside_an_address_with_a_password_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["live", "http://admin:secret@host/", "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.count("usage: ovavel live") == 1


def test_a_failure_stays_one_though_the_reader_of_its_output_is_gone() -> None:
    code = """
import sys
from ovavel.runtime import cli
from ovavel.runtime.errors import MediaError

def fail(arguments):
    print("something")
    raise MediaError("it failed")

cli._dispatch = fail
raise SystemExit(cli.main([]))
"""
    reader, writer = os.pipe()
    os.close(reader)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", code]
    try:
        done = subprocess.run(command, env=buffered, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, "ovavel: it failed\n")
