"""A bundle that is read again: the names may be others, and whatever else has changed is refused by its name."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from support.renamed import DOG, DRUM, bundle_without

from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.calibration import Reference, Rule
from ovavel.runtime.bundle.manifest import MANIFEST, Manifest
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.errors import BundleError, InputError, UsageError
from ovavel.service.names.adopt import check_rule_with, read_again


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.open(bundle_without(tmp_path, DOG))


def rewrite(bundle: Bundle, manifest: Manifest) -> None:
    (bundle.path / MANIFEST).write_bytes(manifest.encode())


def test_what_is_the_same_is_not_replaced(bundle: Bundle) -> None:
    assert read_again(bundle) is bundle
    rewrite(bundle, bundle.manifest.gated(()))
    assert read_again(bundle) is bundle, "a comparison with PyTorch changes no decision"


def test_a_name_less_is_taken(bundle: Bundle) -> None:
    changed = bundle.save_vocabulary(bundle.vocabulary.removed([DRUM]))
    assert read_again(bundle).vocabulary.version == changed.vocabulary.version


def test_another_model_rule_or_graph_is_refused_by_name(bundle: Bundle) -> None:
    manifest = bundle.manifest
    graph = manifest.graphs["head"]["fp32"]
    entry = msgspec.structs.replace(manifest.files[graph], sha256="0" * 64)
    others = {
        "model": msgspec.structs.replace(manifest, model=msgspec.structs.replace(manifest.model, name="another")),
        "fusion": manifest.decided(Rule(kind="agreement")),
        graph: msgspec.structs.replace(manifest, files={**manifest.files, graph: entry}),
    }
    for what, other in others.items():
        rewrite(bundle, other)
        with pytest.raises(InputError, match=f"^{what} of the bundle .* restart the service"):
            read_again(bundle)
    rewrite(bundle, manifest)
    assert read_again(bundle) is bundle
    (bundle.path / MANIFEST).write_text("{")
    with pytest.raises(BundleError):
        read_again(bundle)


def test_names_that_stay_must_mean_the_same(bundle: Bundle) -> None:
    old = bundle.vocabulary
    turned = np.roll(old.embeddings.audio, 1, axis=0)
    bundle.save_vocabulary(Vocabulary(names=old.names, embeddings=TextEmbeddings.shared(turned)))
    with pytest.raises(InputError, match="text embeddings of names that stay"):
        read_again(bundle)


def test_a_rule_that_knows_no_other_names_keeps_them(bundle: Bundle) -> None:
    names = bundle.vocabulary.names
    means, ones = tuple(0.0 for _ in names), tuple(1.0 for _ in names)
    reference = Reference(
        names=names, audio_mean=means, audio_deviation=ones, vision_mean=means, vision_deviation=ones, seconds=1
    )
    rule = Rule(kind="agreement", reference=reference)
    decided = Bundle.open(bundle.save_calibration(None, rule).path)
    with pytest.raises(UsageError, match="reference"):
        check_rule_with(decided, DOG)
