"""No command takes a number that makes no sense."""

import dataclasses
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import pytest
import tyro

from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.cli import main
from ovavel.runtime.errors import UsageError
from ovavel.runtime.pipeline.tracker import EventRules
from ovavel.runtime.system.bounds import MOST_WORKERS, bounds_of, check_bounds

DEMO = Path(__file__).parents[3] / "eval" / "demo" / "assets"
COMMANDS = {entry.name: entry.load() for entry in entry_points(group="ovavel.commands") if "ovavel" in entry.value}


def numbers(kind: type) -> Iterator[tuple[str, Any]]:
    """Name and hint of each field that takes numbers, those of dataclasses inside among them."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        makers = [getattr(each, "constructor_factory", None) for each in getattr(hint, "__metadata__", ())]
        for nested in [each for each in (hint, *(make() for make in makers if make)) if dataclasses.is_dataclass(each)]:
            yield from numbers(nested)
        if takes_numbers(hint):
            yield name, hint


def takes_numbers(hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return False
    inside = hint.__args__ if get_origin(hint) is Annotated else get_args(hint)
    return hint in (int, float) or any(map(takes_numbers, inside))


FLAGS = [(command, name, hint) for command, kind in sorted(COMMANDS.items()) for name, hint in numbers(kind)]


def required(kind: type) -> list[str]:
    """Command-line words for the fields of `kind` that have no default; what they name is not there."""
    positional, flags = [], []
    for field in dataclasses.fields(kind):
        if field.default is field.default_factory is dataclasses.MISSING:
            hint = get_type_hints(kind, include_extras=True)[field.name]
            if dataclasses.is_dataclass(hint):
                flags += required(hint)
            elif tyro.conf.Positional[Any].__metadata__[0] in getattr(hint, "__metadata__", ()):
                positional.append("no-such-thing")
            else:
                flags += [f"--{field.name.replace('_', '-')}", "no-such-thing"]
    return [*positional, *flags]


def test_there_are_numbers_to_test() -> None:
    assert {
        ("live", "threads"),
        ("localize", "min_duration_s"),
        ("train.head", "epochs"),
        ("bench.run", "trial_s"),
    } <= {(command, name) for command, name, _ in FLAGS}


@pytest.mark.parametrize(("command", "name", "hint"), FLAGS, ids=lambda value: value if isinstance(value, str) else "")
def test_every_number_has_both_bounds(command: str, name: str, hint: Any) -> None:
    (bounds,) = bounds_of(hint)
    assert bounds.ge is not None or bounds.gt is not None
    assert bounds.le is not None or bounds.lt is not None


HUGE = "1" + "0" * 40
ALL = ("-1", "0", HUGE, "nan", "inf", "-inf", "1e300")
"""Each for a few flags; of the others, for which the same check runs, one: NaN for what may be a fraction."""


@pytest.mark.parametrize(
    ("command", "name", "value"),
    [
        *((command, name, "nan" if "float" in str(hint) else HUGE) for command, name, hint in FLAGS),
        *(("localize", "threads", value) for value in ALL),
        *(("localize", "min_duration_s", value) for value in ALL if value != "0"),
        *(("bench.run", "deadline_ms", value) for value in ALL),
    ],
)
def test_numbers_out_of_bounds_are_usage_errors(
    command: str, name: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*command.split("."), *required(COMMANDS[command]), f"--{name.replace('_', '-')}", value]
    try:
        code: Any = main(arguments)
    except SystemExit as stop:
        code = stop.code
    said = " ".join(capsys.readouterr().err.split())
    assert code == 2
    assert name.replace("_", "-") in said or name in said
    assert "required" not in said.lower()
    assert "Traceback" not in said


@pytest.mark.parametrize("threads", [0, -1, MOST_WORKERS + 1, 2000])
def test_no_backend_takes_such_a_number_of_threads_either(threads: int) -> None:
    with pytest.raises(UsageError, match="threads must be"):
        open_backend(Bundle.open(DEMO / "bundle"), device="cpu", threads=threads)


def test_what_is_within_bounds_is_taken() -> None:
    check_bounds(EventRules(start_margin=1.0, keep_margin=0.0, bridge_s=86_400.0))
    check_bounds(EventRules())
