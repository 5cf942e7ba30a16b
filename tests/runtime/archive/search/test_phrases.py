"""Embeddings of phrases are kept between searches, a limited number of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.demo_copies import BUNDLE

from ovavel.runtime.archive.search import phrases
from ovavel.runtime.archive.search.phrases import embed_phrases
from ovavel.runtime.bundle.bundle import Bundle


def test_the_oldest_phrases_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(phrases, "_MOST_KEPT", 3)
    bundle, folder = Bundle.open(BUNDLE), tmp_path / "ovavel" / "phrases"
    embed_phrases(bundle, ["one bell", "two bells"])
    first = set(folder.iterdir())
    assert len(first) == 2
    for file in first:
        os.utime(file, (1, 1))
    embed_phrases(bundle, ["three bells", "four bells"])
    left = set(folder.iterdir())
    assert len(left) == 3
    assert len(left & first) == 1, "one of the two oldest went"
