"""`ovavel vocab` on a bundle."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from ovavel.runtime.bundle.bundle import Bundle, file_entry
from ovavel.runtime.cli import main


def test_vocab_commands_go_through_the_text_graph(
    tiny_bundle: Path, exported_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["vocab", "remove", "--bundle", str(tiny_bundle), "race car"]) == 0
    assert "2 names and the background" in capsys.readouterr().out
    assert main(["vocab", "add", "--bundle", str(tiny_bundle), "glass breaking", "race car"]) == 0
    reported = capsys.readouterr()
    assert "4 names and the background" in reported.out
    assert reported.err == ""
    assert main(["vocab", "list", "--bundle", str(tiny_bundle)]) == 0
    names = capsys.readouterr().out.splitlines()[-5:]
    assert names == ["dog barking", "bird chirping", "glass breaking", "race car", "other"]
    added, exported = Bundle.open(tiny_bundle).vocabulary, Bundle.open(exported_bundle).vocabulary
    np.testing.assert_allclose(
        added.embeddings.vision[added.index("race car")],
        exported.embeddings.vision[exported.index("race car")],
        atol=2e-5,
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["add", " dog barking"], "already has 'dog barking'"),
        (["add", "glass", "glass"], "is given twice"),
        (["add", "Dog Barking"], "already has 'dog barking'; leave 'Dog Barking' out"),
        (["add", "glass", "other"], "is the background"),
        (["add", ""], "is empty"),
        (["add", "glass\u202e"], "holds U+202E (RIGHT-TO-LEFT OVERRIDE)"),
        (["add", "word " * 80], "80 tokens"),
        (["remove", "bird chriping"], "did you mean 'bird chirping'?"),
        (["remove", "dog barking", "other"], "cannot be removed"),
    ],
)
def test_refused_names_change_nothing(
    tiny_bundle: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = file_entry(tiny_bundle / "manifest.json")
    action, *names = arguments
    assert main(["vocab", action, "--bundle", str(tiny_bundle), *names]) == 2
    assert re.search(re.escape(words), capsys.readouterr().err)
    assert file_entry(tiny_bundle / "manifest.json") == before
