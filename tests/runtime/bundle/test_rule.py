"""A decision rule in a bundle: written, read back, and strict about what it is given."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.demo_copies import BUNDLE, CLIP

from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.calibration import Background, Reference, Rule
from ovavel.runtime.bundle.manifest import Fusion, Manifest
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.errors import BundleError, UsageError, VocabularyError
from ovavel.runtime.results.document import to_json
from ovavel.runtime.results.recording import localize_recording
from ovavel.runtime.session import Session
from ovavel.runtime.sources.media.source import MediaSource
from ovavel.runtime.types import RuleKind
from ovavel.runtime.verification.self_check import self_check

numbers = st.floats(-1e6, 1e6)
rules = st.builds(
    Rule,
    kind=st.sampled_from(RuleKind.__args__),  # type: ignore[attr-defined]
    parameters=st.dictionaries(st.text(max_size=5), numbers, max_size=4),
    background=st.none() | st.builds(Background, how=st.sampled_from(["max", "logsumexp"]), offset=numbers),
    reference=st.none()
    | st.builds(
        lambda names, mean: Reference(
            names=tuple(names),
            audio_mean=(mean,) * len(names),
            audio_deviation=(0.1,) * len(names),
            vision_mean=(0.0,) * len(names),
            vision_deviation=(0.2,) * len(names),
            seconds=10,
        ),
        st.lists(st.text(max_size=5), min_size=1, max_size=4, unique=True),
        numbers,
    ),
)


@settings(max_examples=50, deadline=None)
@given(rule=rules)
def test_a_rule_survives_the_manifest(rule: Rule) -> None:
    manifest = Bundle.open(BUNDLE).manifest.decided(rule)
    again = Manifest.decode(manifest.encode(), where="here")
    assert again == manifest
    own = Rule(kind=manifest.fusion.decision)
    assert again.fusion.decides == rule
    assert again.fusion.rule == (None if rule == own else rule)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "vote"},
        {"kind": "agreement", "more": 1},
        {"kind": "agreement", "parameters": {"a": "b"}},
        {"kind": "agreement", "background": {"temperature": 0}},
        {"kind": "agreement", "background": {"how": "mean"}},
        {
            "kind": "agreement",
            "reference": {
                "names": ["a", "b"],
                "audio_mean": [0.1],
                "audio_deviation": [0.1],
                "vision_mean": [0.1],
                "vision_deviation": [0.1],
                "seconds": 3,
            },
        },
    ],
)
def test_a_rule_that_is_none_is_a_damaged_manifest(wrong: dict[str, object]) -> None:
    content = msgspec.json.decode((BUNDLE / "manifest.json").read_bytes())
    content["fusion"]["rule"] = wrong
    with pytest.raises(BundleError, match="damaged"):
        Manifest.decode(msgspec.json.encode(content), where="here")


def test_a_rule_put_into_a_bundle_decides_and_is_recorded(tmp_path: Path) -> None:
    import shutil

    bundle = Bundle.open(shutil.copytree(BUNDLE, tmp_path / "bundle"))
    calibration = bundle.manifest.calibration
    assert calibration
    bundle = bundle.save_calibration(None, Rule(kind="agreement"))
    assert Bundle.open(bundle.path).manifest.fusion.decides == Rule(kind="agreement")
    backend = open_backend(bundle, device="cpu", threads=1)
    try:
        found = {
            name: localize_recording(bundle, MediaSource(CLIP), backend=backend, fusion=name)
            for name in (None, "av2a", "positive")
        }
        gate = self_check(bundle, backend)  # of the head's own scores, whatever decides on its similarities
        with pytest.raises(UsageError, match="benchmarks only"):
            Session(bundle, CLIP, backend=backend, fusion="clip-prior")
        with pytest.raises(UsageError, match="no decision rule 'vote'"):
            Session(bundle, CLIP, backend=backend, fusion="vote")
    finally:
        backend.close()
    assert gate.passed
    assert (gate.decisions, gate.failures) == (1.0, ())
    for name, localization in found.items():
        rule = name or "agreement"
        assert localization.info.fusion == rule
        assert {s.rule for s in localization.scores} == {rule}
        assert msgspec.json.decode(to_json(localization))["fusion"] == rule
        assert localization.events
    assert len({localization.info.id for localization in found.values()}) == 3
    assert Fusion().decides == Rule(kind="published")


def unit(count: int, seed: int) -> TextEmbeddings:
    rows = np.random.default_rng(seed).standard_normal((count, 8))
    return TextEmbeddings.shared((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))


def test_further_texts_of_the_background_stay_with_the_vocabulary() -> None:
    plain = Vocabulary(names=("dog", "car", "other"), embeddings=unit(3, 0))
    words = plain.background_added(("silence", "an empty room"), unit(2, 1))
    assert words.names == plain.names
    assert words.version != plain.version
    assert words.agrees_with(plain)
    files = words.encode()
    again = Vocabulary.decode(*files.values(), where="here")
    assert (again.version, again.background_texts) == (words.version, words.background_texts)
    assert again.background_embeddings is not None
    assert words.background_embeddings is not None
    np.testing.assert_array_equal(again.background_embeddings.audio, words.background_embeddings.audio)
    np.testing.assert_array_equal(again.embeddings.audio, plain.embeddings.audio)
    added = again.added(["bell"], unit(1, 2))
    assert added.background_texts == ("silence", "an empty room")
    fewer = added.removed(["Silence", "dog"])
    assert (fewer.names, fewer.background_texts) == (("car", "bell", "other"), ("an empty room",))
    none = fewer.removed(["an empty room"])
    assert none.background_embeddings is None
    assert added.removed(["bell"]).removed(["silence", "an empty room"]).version == plain.version
    with pytest.raises(VocabularyError, match="each text once"):
        plain.background_added(("dog",), unit(1, 3))
    with pytest.raises(VocabularyError, match="do not fit together"):
        plain.background_added(("silence",), unit(2, 3))
    listing = b'{"names": ["dog", "car", "other"], "background_texts": ["silence"]}'
    with pytest.raises(BundleError, match="vocabulary"):
        Vocabulary.decode(listing, files["vocabulary.npz"], where="here")


def test_the_same_kind_with_other_parameters_is_another_rule(tmp_path: Path) -> None:
    shutil.copytree(BUNDLE, tmp_path / "bundle")
    demo = Bundle.open(tmp_path / "bundle")
    assert demo.manifest.calibration
    own = Rule(kind="cuerator", parameters={f"theta{i}": 0.1 for i in range(10)})
    bundle = demo.save_calibration(msgspec.structs.replace(demo.manifest.calibration, fusion=own.name), own)
    backend = open_backend(bundle, device="cpu", threads=1)
    ids, probable = [], []
    for asked in (None, "demo-world-training-free"):
        with Session(bundle, CLIP, backend=backend, fusion=asked) as session:
            final = [score for update in session.updates() for score in update.scores if score.final]
            ids.append(session.info.id)
            probable.append(any(score.probability is not None for score in final))
            assert session.info.fusion == "cuerator"
    backend.close()
    assert probable == [True, False], "a calibration is for the parameters that it was fitted with"
    assert ids[0] != ids[1], "another rule gives other decisions"
