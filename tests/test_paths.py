"""A path that no file can have is refused in one line by every command, and by all that reads or writes a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from ovavel.eval.bench.read import read_report
from ovavel.eval.datasets.clip_media import frame_paths, read_frame, read_sound
from ovavel.eval.datasets.feature_cache import FeatureCache
from ovavel.eval.datasets.ovavebench import OVAVEBench
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.signatures import PublicKey
from ovavel.runtime.cli import main
from ovavel.runtime.errors import OvavelError
from ovavel.runtime.results.document import read_json
from ovavel.runtime.sinks.jsonl import JsonlSink
from ovavel.runtime.sources.access import address_of
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.system.files import atomic_write, make_folder, output_folder, report_folder

ASSETS = Path(__file__).parents[1] / "eval" / "demo" / "assets"
ODD = {
    "long": "x" * 300,
    "deep": "/".join(["y" * 200] * 30),
    "long-below": f"gone/{'z' * 256}/x",
    "zero": "a\0b",
    "surrogate": "a\ud800b",
}


@pytest.fixture(params=ODD)
def odd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return f"{tmp_path}/here/{ODD[request.param]}"


def write_in_folder(path: Path) -> None:
    with output_folder(path):
        pass


OPENED: dict[str, Callable[[Path], object]] = {
    "bundle": Bundle.open,
    "key": lambda path: PublicKey.read(str(path)),
    "recording": lambda path: MediaSource(path),
    "address": lambda path: address_of(f"@{path}"),
    "document": read_json,
    "report": read_report,
    "cache": FeatureCache.open,
    "dataset": OVAVEBench.open,
    "frames": frame_paths,
    "frame": read_frame,
    "sound": read_sound,
    "jsonl": lambda path: JsonlSink(path, listener=print),
    "file": lambda path: atomic_write(path, b""),
    "folder": make_folder,
    "folder of a report": lambda path: report_folder(path, "x"),
    "folder of results": write_in_folder,
}


def read_with_torch(kind: str, path: Path) -> object:
    from ovavel.runtime.pipeline.texts import read_names
    from ovavel.training.fit.recipes import read_recipe
    from ovavel.training.heads.temporal import TemporalHead
    from ovavel.training.models.checkpoint import read_checkpoint, read_metadata
    from ovavel.training.models.imagebind.model import read_config

    readers: dict[str, Callable[[Path], object]] = {
        "names": read_names,
        "recipe": read_recipe,
        "head": TemporalHead.load,
        "checkpoint": read_checkpoint,
        "metadata": read_metadata,
        "config": lambda path: read_config(f"{path}.json"),
    }
    return readers[kind](path)


@pytest.mark.parametrize("kind", OPENED)
def test_what_is_opened_or_written_has_a_path_that_can_be(kind: str, odd: str, tmp_path: Path) -> None:
    with pytest.raises(OvavelError):
        OPENED[kind](Path(odd))
    assert [*(tmp_path / "here").iterdir()] == []


@pytest.mark.parametrize("kind", ["names", "recipe", "head", "checkpoint", "metadata", "config"])
def test_what_training_reads_has_a_path_that_can_be(kind: str, odd: str) -> None:
    pytest.importorskip("torch")
    with pytest.raises(OvavelError):
        read_with_torch(kind, Path(odd))


def takes_path(hint: Any) -> bool:
    return hint is Path or any(map(takes_path, get_args(hint)))


def flat(kind: Any) -> Iterator[tuple[str, Any, bool]]:
    """Name, type and whether it must be given of each option, those of shared groups among them."""
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        inside = next(
            (
                each
                for each in (hints[field.name], *get_args(hints[field.name]))
                if isinstance(each, type) and dataclasses.is_dataclass(each)
            ),
            None,
        )
        if inside is not None:
            yield from flat(inside)
            continue
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        yield field.name, hints[field.name], required


def fields_with_paths() -> list[str]:
    """Each command with each of its options that takes a path."""
    commands = entry_points(group="ovavel.commands")
    return sorted(f"{each.name} {name}" for each in commands for name, hint, _ in flat(each.load()) if takes_path(hint))


def refused(words: list[str], said: Callable[[], tuple[str, str]], folder: Path) -> str:
    try:
        assert main(words) in (1, 2)
    except SystemExit as stop:
        raise AssertionError(said()) from stop
    _, err = said()
    *before, last = err.splitlines()
    assert last.startswith("ovavel: ")
    assert last.isprintable()
    assert not [line for line in before if line.startswith(("ovavel: ", "Traceback"))]
    assert [*(folder / "here").iterdir()] == []
    return last


@pytest.mark.parametrize("where", fields_with_paths())
def test_a_command_refuses_a_path_that_cannot_be(
    where: str, odd: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name, chosen = where.split()
    command = next(entry for entry in entry_points(group="ovavel.commands") if entry.name == name).load()
    words = name.split(".")
    for option, hint, required in flat(command):
        if required or option == chosen:
            flag = [] if "Positional" in repr(hint) else [f"--{option.replace('_', '-')}"]
            words += [*flag, odd if option == chosen else "given"]
    assert "check the path" in refused(words, capfd.readouterr, tmp_path)


NAMING = [
    "live ODD --bundle BUNDLE",
    "live @ODD --bundle BUNDLE",
    "live --bundle BUNDLE --no-audio --view none --camera @ODD",
    "live CLIP --bundle BUNDLE --require-signature ODD",
    "localize CLIP --bundle BUNDLE --require-signature ODD",
    "train head --data GONE --features GONE --out OUT --recipe ODD.toml",
    "train table --data GONE --features GONE --out OUT --recipes ODD.toml",
]
"""Where a path is one of several things that an option takes."""


@pytest.mark.parametrize("line", NAMING)
def test_an_option_that_may_name_a_file_refuses_such_a_path(
    line: str, odd: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if line.startswith(("train", "export")):
        pytest.importorskip("torch")
    places = {"BUNDLE": ASSETS / "bundle", "CLIP": ASSETS / "clip.mp4", "GONE": "/gone", "OUT": tmp_path / "out"}
    words = [str(places.get(word, word)).replace("ODD", odd) for word in line.split()]
    refused(words, capfd.readouterr, tmp_path)
