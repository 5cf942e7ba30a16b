"""Bundles that are changed by hand, and refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ovavel.runtime.bundle.bundle import Bundle, file_entry
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.errors import BundleError


def rewrite(folder: Path, change: Callable[[dict], object]) -> None:
    """Change the manifest as text, as somebody with an editor would."""
    content = json.loads((folder / "manifest.json").read_text())
    change(content)
    (folder / "manifest.json").write_text(json.dumps(content))


def relist(folder: Path, name: str) -> None:
    """Put the true size and hash of `name` into the manifest."""
    entry = file_entry(folder / name)
    rewrite(folder, lambda m: m["files"].update({name: {"sha256": entry.sha256, "bytes": entry.bytes}}))


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder).check()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def larger(bundle: Bundle) -> Vocabulary:
    return bundle.vocabulary.added(
        ["glass breaking"],
        TextEmbeddings.shared(np.eye(1, bundle.manifest.encoders.sizes[0], dtype=np.float32)),
    )
