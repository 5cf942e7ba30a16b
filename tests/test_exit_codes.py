"""Every command follows the table of docs/exit-codes.md."""

import ast
import inspect
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from support.command_surface import kinds

from ovavel.eval.demo import play
from ovavel.runtime import cli, errors
from ovavel.runtime.cli import main

DEMO = Path(__file__).parents[1] / "eval" / "demo" / "assets"
PLACES = {"BUNDLE": str(DEMO / "bundle"), "CLIP": str(DEMO / "clip.mp4")}

MISSING = [
    "localize GONE --bundle BUNDLE",
    "localize EMPTY --bundle BUNDLE",
    "localize CLIP --bundle GONE",
    "localize CLIP --bundle GONE --out NEW --shard 1/2",
    "report GONE",
    "report EMPTY",
    "search siren --archive GONE --bundle BUNDLE",
    "relabel --archive GONE --bundle BUNDLE",
    "archive check GONE",
    "live --bundle GONE",
    "serve GONE",
    "live GONE --bundle BUNDLE",
    "vocab list --bundle GONE",
    "vocab add glass --bundle GONE",
    "vocab remove glass --bundle GONE",
    "vocab try GONE.mp4 --bundle BUNDLE --phrases glass",
    "bench run --bundle GONE",
    "bench run GONE --bundle BUNDLE --windows 1 --scenarios single",
    "bench compare GONE GONE",
    "bench economy --bundle GONE --out NEW",
    "bench gpu --bundle GONE --weights GONE --device cpu --out NEW",
    "eval data --data GONE",
    "eval score --data GONE --bundle BUNDLE",
    "eval lag --data GONE --bundle BUNDLE --out NEW",
    "eval economy --data GONE --bundle BUNDLE --out NEW",
    "eval economy GONE --bundle BUNDLE --out NEW",
    "eval calibrate --data GONE --bundle BUNDLE --out NEW",
    "eval parity CLIP --bundle GONE",
    "eval parity GONE --bundle BUNDLE",
    "eval parity CLIP --bundle BUNDLE --weights GONE",
    "bundle check --bundle GONE",
    "train prepare --videos GONE --annotations GONE --out NEW",
    "train features --data GONE --bundle BUNDLE --out NEW",
    "train head --data GONE --features GONE --out NEW",
    "train table --data GONE --features GONE --out NEW",
    "bundle export --weights GONE --vocabulary GONE --out NEW",
    "bundle export --weights GONE --vocabulary NAMES --out NEW",
    "bundle export --weights GONE --vocabulary NAMES --config GONE.json --out NEW",
    "bench cpu --weights GONE --out NEW",
    "bundle engine --bundle GONE",
    "bundle triton --bundle GONE --out NEW",
    "bundle triton --bundle BUNDLE --out NAMES/below",
    "bundle check --bundle BUNDLE --backend triton --device grpc://127.0.0.1:1",
    "serve backup GONE --out NEW",
    "serve restore GONE --backup GONE",
    "serve doctor GONE",
    "doctor --camera GONE",
    "demo --out NAMES/below",
    "demo-site --out NAMES/below",
]
"""What is missing, or cannot be written: exit code 1."""

SENSELESS = [
    "nonsense",
    "localize",
    "localize --bundle BUNDLE",
    "localize CLIP --bundle BUNDLE --no-video --no-audio",
    "localize CLIP --bundle BUNDLE --lag 10",
    "localize CLIP --bundle BUNDLE --threads 2000",
    "localize CLIP --bundle BUNDLE --channel left",
    "localize CLIP --bundle BUNDLE --backend nonsense",
    "live",
    "serve",
    "live CLIP --bundle BUNDLE --no-video --no-audio",
    "live CLIP --bundle BUNDLE --camera 0",
    "doctor --camera gopher://camera.local/1",
    "vocab add other --bundle BUNDLE",
    "vocab add zero\u200bwidth --bundle BUNDLE",
    "vocab remove other --bundle BUNDLE",
    "search --archive GONE --bundle BUNDLE",
    "search siren --like yard@now --archive GONE --bundle BUNDLE",
    "search siren --from never --archive GONE --bundle BUNDLE",
    "relabel --archive GONE --bundle BUNDLE --start-margin 2",
    "vocab try --bundle BUNDLE",
    "bench run --bundle BUNDLE --backend torch",
    "eval parity --bundle BUNDLE",
    "bundle check --bundle BUNDLE --backend nonsense",
    "bundle check --bundle BUNDLE --backend triton",
    "bundle triton --bundle BUNDLE --out BUNDLE",
    "eval calibrate --data GONE --bundle BUNDLE --out NEW --held-out val",
    "eval lag --data GONE --bundle BUNDLE --out NEW --seeds 0 0",
    "eval economy --out NEW",
    "eval economy --days sparse --data GONE --bundle BUNDLE --out NEW",
    "train features --data GONE",
    "train head --data GONE --features GONE --out NEW --recipe nonsense",
    "bundle export --weights GONE --vocabulary NAMES --config nonsense --out NEW",
]
"""Command lines that make no sense: exit code 2."""


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    folder = tmp_path
    (folder / "empty").mkdir()
    (folder / "names.txt").write_text("dog barking\n")
    here = {name: str(folder / name.lower()) for name in ("GONE", "GONE.mp4", "GONE.json", "EMPTY", "NEW")}
    return {**PLACES, **here, "NAMES": str(folder / "names.txt"), "NAMES/below": str(folder / "names.txt" / "below")}


def code_of(line: str, places: dict[str, str]) -> int:
    try:
        return main([places.get(word, word) for word in line.split()])
    except SystemExit as stop:
        return int(stop.code or 0)


@pytest.mark.parametrize("line", MISSING)
def test_what_is_missing_is_1(line: str, places: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    if line.startswith(("train", "bundle export", "eval parity", "bench gpu", "bench cpu")):
        pytest.importorskip("torch")
    assert code_of(line, places) == 1
    said = capsys.readouterr().err
    *progress, last = said.splitlines()
    assert last.startswith("ovavel: ")
    assert not [line for line in progress if line.startswith(("ovavel: ", "Traceback"))]


@pytest.mark.parametrize("line", SENSELESS)
def test_what_makes_no_sense_is_2(line: str, places: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    if line.startswith(("train", "bundle export")):
        pytest.importorskip("torch")
    assert code_of(line, places) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_every_command_is_in_the_lists() -> None:
    commands = {entry.name.replace(".", " ") for entry in entry_points(group="ovavel.commands")}
    tested = {command for command in commands for line in MISSING if f"{line} ".startswith(f"{command} ")}
    assert commands - tested == {"bundle weights", "train demo-world"}, "these read nothing"


PRINTING = [
    "--help",
    "--version",
    "live --help",
    "live --list-devices",
    "doctor --json",
    "vocab list --bundle BUNDLE",
    "localize CLIP --bundle BUNDLE",
    "live CLIP --bundle BUNDLE --view lines",
    "live CLIP --bundle BUNDLE --jsonl -",
    "bundle check --bundle BUNDLE --device cpu",
]


@pytest.mark.parametrize("line", PRINTING)
def test_results_that_nobody_can_receive_are_1(line: str, places: dict[str, str]) -> None:
    words = " ".join(places.get(word, word) for word in line.split())
    run = f"{sys.executable} -c 'from ovavel.runtime.cli import main; raise SystemExit(main())' {words}"
    done = subprocess.run(["bash", "-c", f"{run} >&-"], capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert "standard output" in done.stderr
    assert "Traceback" not in done.stderr


TABLE = [
    (int(code), text)
    for code, text in re.findall(
        r"^\| (\d+) \| (.*) \|$", (DEMO.parents[2] / "docs" / "exit-codes.md").read_text(encoding="utf-8"), re.MULTILINE
    )
]
"""Each row: exit code, and when."""


def returned(scope: object) -> set[int]:
    """The numbers that the functions `-> int` of a class or module return, and 0 and 1 for what `int(...)` makes."""
    codes: set[int] = set()
    for function in ast.walk(ast.parse(inspect.cleandoc(inspect.getsource(scope)))):  # type: ignore[arg-type]
        if isinstance(function, ast.FunctionDef) and ast.unparse(function.returns or ast.Constant(0)) == "int":
            for node in ast.walk(function):
                if isinstance(node, ast.Return) and node.value:
                    codes |= numbers(node.value, scope)
    return codes


def numbers(value: ast.expr, scope: object) -> set[int]:
    if isinstance(value, ast.Constant):
        return {value.value} if isinstance(value.value, int) else set()
    if isinstance(value, ast.IfExp):
        return numbers(value.body, scope) | numbers(value.orelse, scope)
    if isinstance(value, ast.Name):
        return {found} if isinstance(found := getattr(scope, value.id, None), int) else set()
    return {0, 1} if isinstance(value, ast.Call) and ast.unparse(value.func) == "int" else set()


def test_the_table_has_every_code_that_a_command_returns() -> None:
    codes = {code for code, _ in TABLE}
    assert codes == {0, 1, 2, 130}
    assert {getattr(errors, name).exit_code for name in errors.__all__} <= codes
    assert returned(cli) <= codes
    for command, kind in kinds().items():
        own = returned(kind) | (returned(play) if command == "demo" else set())
        own |= returned(kinds()["serve"]) if command == "demo-site" else set()
        assert 0 in own, command
        for code in own - {0}:
            assert f"`{command}`" in " ".join(text for each, text in TABLE if each == code), (command, code)


def test_the_table_names_no_command_that_cannot_end_so() -> None:
    for code, text in TABLE:
        for command in set(re.findall(r"`([a-z -]+)`", text)) & kinds().keys() if code in (1, 130) else ():
            assert code in returned(kinds()[command]) | (returned(play) if command == "demo" else set()), command
