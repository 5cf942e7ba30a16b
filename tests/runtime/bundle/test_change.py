"""A change of a bundle's vocabulary, and what is left when it is cut short."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from support.runtime.bundles import larger, refused

from ovavel.runtime.bundle import bundle as bundle_module
from ovavel.runtime.bundle import hashed
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.errors import BundleError, OutputError, UsageError


def test_a_change_of_the_manifest_reads_no_graph_again(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(tiny_bundle)
    precision = dict.fromkeys(("vision", "audio", "head"), "fp32")
    before = bundle.graphs_sha256(precision)

    def no_more(*_: object) -> None:
        raise AssertionError("a graph was read again")

    monkeypatch.setattr(hashed, "external_data", no_more)
    assert bundle.graphs_sha256(precision) == before
    saved = bundle.save_gates(()).save_vocabulary(larger(bundle))
    assert saved.graphs_sha256(precision) == before


def test_a_saved_vocabulary_is_read_back(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    saved = bundle.save_vocabulary(larger(bundle))
    again = Bundle.open(tiny_bundle)
    assert again.vocabulary.names == saved.vocabulary.names
    assert again.sha256 == saved.sha256 != bundle.sha256
    assert not [
        file.name for file in tiny_bundle.iterdir() if file.name not in {*again.manifest.files, "manifest.json"}
    ]


def test_a_vocabulary_of_another_size_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(UsageError, match="size 8"):
        Bundle.open(tiny_bundle).save_vocabulary(
            Vocabulary(names=("dog", "other"), embeddings=TextEmbeddings.shared(np.eye(2, 8, dtype=np.float32)))
        )


def test_a_change_by_another_process_is_detected(tiny_bundle: Path) -> None:
    first, second = Bundle.open(tiny_bundle), Bundle.open(tiny_bundle)
    first.save_vocabulary(larger(first))
    with pytest.raises(BundleError, match="somebody else"):
        second.save_vocabulary(second.vocabulary.removed(["race car"]))


_STEPS = ["write 0", "write 1", "write 2", "move 0", "move 1", "move 2", "never"]


def _save_and_die(folder: Path, step: str) -> None:
    """Save a larger vocabulary and kill this process right before `step`."""
    kind, _, number = step.partition(" ")
    left = int(number or 0)

    def dying(action: Callable[..., object]) -> Callable[..., object]:
        def run(*arguments: object) -> object:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return action(*arguments)

        return run

    bundle = Bundle.open(folder)
    if kind == "write":
        bundle_module.atomic_write = dying(bundle_module.atomic_write)  # type: ignore[assignment]
    elif kind == "move":

        def move(root: Path) -> None:
            Path.replace = dying(Path.replace)  # type: ignore[method-assign,assignment]
            original(root)

        original = bundle_module.move_in_place
        bundle_module.move_in_place = move
    bundle.save_vocabulary(larger(bundle))


@pytest.mark.parametrize("step", _STEPS)
def test_killed_at_any_point_the_vocabulary_is_the_old_or_the_new_one(tiny_bundle: Path, step: str) -> None:
    old = Bundle.open(tiny_bundle)
    child = multiprocessing.get_context("fork").Process(target=_save_and_die, args=(tiny_bundle, step))
    child.start()
    child.join(100)
    assert child.exitcode == (0 if step == "never" else -signal.SIGKILL)
    found = Bundle.open(tiny_bundle)
    expected = old.vocabulary if step.startswith("write") or step == "move 0" else larger(old)
    assert found.vocabulary.version == expected.version
    again = found.save_vocabulary(found.vocabulary.removed(["race car"]))
    assert Bundle.open(tiny_bundle).sha256 == again.sha256


def test_opening_moves_nothing_in_a_whole_bundle(tiny_bundle: Path) -> None:
    """Whoever packed a folder may have put a second manifest into it."""
    old = Bundle.open(tiny_bundle)
    changed = old.save_vocabulary(larger(old))
    for name in ("vocabulary.json", "vocabulary.npz", "manifest.json"):
        shutil.move(tiny_bundle / name, tiny_bundle / f"{name}.new")
    old.vocabulary.save(tiny_bundle)
    (tiny_bundle / "manifest.json").write_bytes(old.manifest.encode())
    before = {file.name: file.read_bytes() for file in tiny_bundle.iterdir()}
    assert Bundle.open(tiny_bundle).sha256 == old.sha256 != changed.sha256
    assert {file.name: file.read_bytes() for file in tiny_bundle.iterdir()} == before
    shutil.move(tiny_bundle / "vocabulary.json.new", tiny_bundle / "vocabulary.json")  # it was cut short here
    assert Bundle.open(tiny_bundle).sha256 == changed.sha256


def test_a_second_manifest_completes_nothing_but_a_vocabulary(tiny_bundle: Path) -> None:
    old = Bundle.open(tiny_bundle)
    changed = old.save_vocabulary(larger(old))
    (tiny_bundle / "manifest.json").write_bytes(old.manifest.encode())
    model = msgspec.structs.replace(changed.manifest.model, licence="none at all")
    other = msgspec.structs.replace(changed.manifest, model=model)
    (tiny_bundle / "manifest.json.new").write_bytes(other.encode())
    refused(tiny_bundle, "vocabulary.json has")
    assert (tiny_bundle / "manifest.json.new").exists()


def test_a_full_disk_leaves_the_old_vocabulary(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes, **_: object) -> None:
        if path.name.startswith("manifest"):
            raise OutputError("disk full")
        path.write_bytes(data)

    bundle = Bundle.open(tiny_bundle)
    monkeypatch.setattr(bundle_module, "atomic_write", full)
    with pytest.raises(OutputError):
        bundle.save_vocabulary(larger(bundle))
    assert Bundle.open(tiny_bundle).sha256 == bundle.sha256
    assert not list(tiny_bundle.glob("*.new"))
