"""A process of its own adds names, one after another: what cannot be added is refused in one line."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from support.renamed import DOG, DRUM, bundle_without
from support.service import until

from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.manifest import MANIFEST
from ovavel.runtime.errors import BundleError, InputError, OutputError, OvavelError, VocabularyError
from ovavel.service.names.editor import Editor, KnownNameError, has_text_encoder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return bundle_without(tmp_path, DOG, DRUM)


def names(bundle: Path) -> tuple[str, ...]:
    return Bundle.open(bundle).vocabulary.names


def test_what_is_added_is_what_was_there(bundle: Path) -> None:
    """The demo's text encoder gives a name that was removed the embedding it had."""
    before = Bundle.open(bundle).vocabulary
    assert Editor(bundle).add(f"  {DOG} ") == DOG
    after = Bundle.open(bundle).vocabulary
    assert after.names == (*before.names[:-1], DOG, before.background)
    assert after.agrees_with(before)
    Editor(bundle).remove(DOG)
    assert names(bundle) == before.names


def test_what_cannot_be_added_is_refused_in_one_line(bundle: Path) -> None:
    editor, before = Editor(bundle), names(bundle)
    first = before[0]
    refused: dict[str, type[OvavelError]] = {
        "": VocabularyError,
        "   ": VocabularyError,
        "a\x00b": VocabularyError,
        "a\nb": VocabularyError,
        "a\u202eb": VocabularyError,
        "\u3164": VocabularyError,
        "word " * 200: VocabularyError,
        first: KnownNameError,
        f" {first.upper()}  ": KnownNameError,
        before[-1]: VocabularyError,
    }
    for name, kind in refused.items():
        with pytest.raises(kind) as caught:
            editor.add(name)
        assert "\n" not in str(caught.value)
    for name in ("no such name", before[-1], first.upper(), ""):
        with pytest.raises(VocabularyError):
            editor.remove(name)
    assert names(bundle) == before


@pytest.mark.parametrize("name", ["--help", "-x", "<script>alert(1)</script>", "../../etc/passwd", "a/b?c#d", "{}"])
def test_a_name_is_a_name_whatever_it_looks_like(bundle: Path, name: str) -> None:
    assert Editor(bundle).add(name) == name
    assert names(bundle)[-2] == name


def test_a_bundle_without_a_text_encoder_and_one_that_cannot_be_written_say_so(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_: False)
        for act in (lambda: Editor(bundle).add(DOG), lambda: Editor(bundle).remove(names(bundle)[0])):
            with pytest.raises(OutputError, match=r"may not write to the bundle's folder .*ReadWritePaths="):
                act()
    opened = Bundle.open(bundle)
    assert has_text_encoder(opened)
    graphs = {name: each for name, each in opened.manifest.graphs.items() if "text" not in name}
    (bundle / MANIFEST).write_bytes(msgspec.structs.replace(opened.manifest, graphs=graphs).encode())
    assert not has_text_encoder(Bundle.open(bundle))
    with pytest.raises(BundleError, match="no text encoder"):
        Editor(bundle).add(DOG)


def test_additions_at_once_come_one_after_another(bundle: Path) -> None:
    editor, wanted = Editor(bundle), [DOG, DRUM, "a third"]
    with ThreadPoolExecutor() as pool:
        added = list(pool.map(editor.add, wanted))
    assert added == wanted
    assert set(wanted) < set(names(bundle))
    with ThreadPoolExecutor() as pool:
        outcomes = list(pool.map(lambda _: _try(editor, "a fourth"), range(2)))
    assert sorted(outcomes) == ["KnownNameError", "added"]


def _try(editor: Editor, name: str) -> str:
    try:
        editor.add(name)
    except OvavelError as error:
        return type(error).__name__
    return "added"


def test_a_crowd_is_sent_away(bundle: Path) -> None:
    editor = Editor(bundle)
    with editor._turn:  # somebody's text encoder runs
        threads = [threading.Thread(target=_try, args=(editor, f"name {number}"), daemon=True) for number in range(8)]
        for each in threads:
            each.start()
        until(lambda: editor._waiting == 8)
        with pytest.raises(InputError, match="try again"):
            editor.add("one more")
        editor.stop()
    for each in threads:
        each.join(60)
    assert DOG not in names(bundle)


def test_what_ends_or_dies_meanwhile_leaves_the_bundle_as_it_was(bundle: Path) -> None:
    editor, before, outcome = Editor(bundle), names(bundle), list[str]()
    thread = threading.Thread(target=lambda: outcome.append(_try(editor, DOG)))
    thread.start()
    until(lambda: editor._child)
    child = editor._child
    assert child
    child.process.kill()
    thread.join(60)
    assert (outcome, names(bundle)) == (["OutputError"], before)
    assert editor.add(DOG) == DOG

    thread = threading.Thread(target=lambda: outcome.append(_try(editor, DRUM)))
    thread.start()
    until(lambda: editor._child)
    child = editor._child
    assert child
    child.process.send_signal(signal.SIGSTOP)  # a text encoder that hangs does not hold up the end
    editor.stop()
    thread.join(60)
    assert (outcome[1:], DRUM in names(bundle)) == (["OutputError"], False)
    assert child.process.returncode is not None
    with pytest.raises(InputError, match="ending"):
        editor.add(DRUM)
