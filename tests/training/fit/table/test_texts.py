"""Rows of rules with several background texts, or with names in prompts."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs
from support.demo_copies import BUNDLE
from support.feature_cache_factory import write_cache
from support.ovavebench_factory import make_bench
from support.synthetic import make_data, unit

from ovavel.eval.accuracy.metrics import score_clips
from ovavel.eval.datasets.feature_cache import FeatureCache
from ovavel.eval.datasets.ovavebench import OVAVEBench
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.errors import DatasetError, UsageError
from ovavel.runtime.pipeline.fusion import cosine_similarity
from ovavel.training.fit.table.rules import measure_rules
from ovavel.training.fit.table.suites import SUITES, Row
from ovavel.training.fit.table.texts import OtherTexts, read_texts

ROWS = [row for row in SUITES["all"] if row.source == "rule" and (row.texts or row.rule == "agreement")]


def texts(seed: int, count: int, size: int) -> TextEmbeddings:
    return TextEmbeddings.shared(unit(np.random.default_rng(seed).standard_normal((count, size))))


def test_rows_decide_with_the_texts_that_they_are_about(tmp_path: Path) -> None:
    data = make_data(train=8, val=8)
    assert data.test
    size, names = data.text.sizes[0], len(data.names)
    given = OtherTexts(background=texts(1, 3, size), prompted=texts(2, names, size))
    lines = measure_rules(ROWS, data, {}, tmp_path, seeds=[0], texts=given)
    assert given.background is not None
    assert given.prompted is not None
    found = {row.texts: lines[row.name].mean for row in ROWS}

    def labels(text: TextEmbeddings) -> list[np.ndarray]:
        test = data.test
        assert test
        similar = (cosine_similarity(test.audio, text.audio), cosine_similarity(test.vision, text.vision))
        return [each.argmax(axis=-1) for each in similar]

    def avg(audio: np.ndarray, vision: np.ndarray) -> float:
        assert data.test
        return score_clips(np.where(audio == vision, audio, names - 1), data.test.truth, names).avg

    several = [np.minimum(each, names - 1) for each in labels(TextEmbeddings.joined([data.text, given.background]))]
    wanted = {"": avg(*labels(data.text)), "max": avg(*several), "prompts": avg(*labels(given.prompted))}
    for kind, value in wanted.items():
        table = found[kind]
        assert table
        assert table["total"]
        assert table["total"]["avg"] == pytest.approx(value)
    assert len({repr(table) for table in found.values()}) == 4
    [gain] = [gain for gain in lines[ROWS[1].name].gains if gain.over == "rule agreement"]
    assert gain.parts["total"]
    other = given._replace(background=texts(3, 3, size))  # other texts are measured again
    again = measure_rules(ROWS, data, {}, tmp_path, seeds=[0], texts=other)
    changed = [row.texts for row in ROWS if again[row.name].mean != lines[row.name].mean]
    assert changed == ["max", "logsumexp"]


def test_a_row_without_its_texts_is_missing(tmp_path: Path) -> None:
    data = make_data(train=8, val=8)
    lines = measure_rules(ROWS, data, {}, tmp_path, seeds=[0], texts=OtherTexts())
    for row in ROWS:
        missing = lines[row.name].missing
        assert (missing is not None) == bool(row.texts)
        assert missing is None or "--texts BUNDLE" in missing.command


def test_texts_come_from_bundles_of_the_same_encoders(tmp_path: Path) -> None:
    make_bench(tmp_path / "data", clips=3, media=False)
    bench = OVAVEBench.open(tmp_path / "data")
    write_cache(tmp_path / "features", bench, {})
    cache = FeatureCache.open(tmp_path / "features")
    bundle = Bundle.open(shutil.copytree(BUNDLE, tmp_path / "bundle"))
    with pytest.raises(DatasetError, match="of other encoders"):
        read_texts([bundle.path], bench, cache)
    cache = dataclasses.replace(
        cache, info=structs.replace(cache.info, weights_sha256=bundle.manifest.model.weights_sha256)
    )
    with pytest.raises(UsageError, match=r"no further texts of the background .* and no prompts"):
        read_texts([bundle.path], bench, cache)
    size = bundle.vocabulary.embeddings.sizes[0]
    vocabulary = Vocabulary(
        names=bench.names,
        embeddings=texts(0, len(bench.names), size),
        background_texts=("silence", "an empty scene"),
        background_embeddings=texts(1, 2, size),
        prompts=("a photo of {}",),
    )
    bundle.save_vocabulary(vocabulary)
    found = read_texts([bundle.path], bench, cache)
    assert found.background is not None
    assert found.prompted is not None
    assert np.array_equal(found.background.audio, texts(1, 2, size).audio)
    assert np.array_equal(found.prompted.vision, vocabulary.embeddings.vision)
    with pytest.raises(UsageError, match="the same kind of texts"):
        read_texts([bundle.path, bundle.path], bench, cache)
    plain = Row(name="row", group="", source="rule", rule="agreement")
    assert found.further(plain) is None
    assert found.names(plain, cache.text) is cache.text
