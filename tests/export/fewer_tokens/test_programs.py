"""Both programs measure what they say: trained encoders, decisions, and graphs that compute what PyTorch does."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from ovavel.eval.demo.assets import Assets
from ovavel.export.fewer_tokens.fidelity import decided
from ovavel.export.fewer_tokens.fidelity import main as fidelity
from ovavel.export.fewer_tokens.speed import main as speed
from ovavel.export.fewer_tokens.speed import open_blocks, traced_way, ways
from ovavel.runtime.backends import open_backend
from ovavel.training.models.imagebind.model import ImageBindConfig


def test_a_way_with_all_tokens_is_exact_and_others_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        fidelity(
            ["--days", "worst", "--seeds", "0", "--seconds", "12", "--budgets", "32", "257", "--merged", "0", "56"]
        )
        == 0
    )
    shown = capsys.readouterr().out
    furthest = {
        (sense, way.strip()): float(value)
        for sense, way, value in re.findall(r"^all: (\w+) +(.*?) 1 - cosine: .*max ([^;]+);", shown, re.MULTILINE)
    }
    exact = {(sense, way) for sense, way in furthest if way == "changed tokens, 257" or way == "merged, 0 a block"}
    assert len(exact) == 3
    assert len(furthest) == 12
    for each, value in furthest.items():
        assert (abs(value) < 1e-6) is (each in exact), each
    assert shown.count("equal decisions 100.00 % of 12") >= 2 * len(exact)


@pytest.mark.proof
def test_sound_is_also_run_as_it_is_exported(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--days", "worst", "--seeds", "0", "--seconds", "5", "--budgets", "--merged", "--int8"]
    assert fidelity(arguments) == 0
    shown = capsys.readouterr().out
    full, pooled = (
        float(re.search(rf"^all: audio +{way} +1 - cosine: .*max ([^;]+);", shown, re.MULTILINE)[1])  # type: ignore[index]
        for way in ("int8", "int8-pooled")
    )
    assert 0 < full < 0.01
    assert 0 < pooled < 0.01
    assert full != pooled


def test_decisions_are_those_of_the_embeddings() -> None:
    bundle, random = Assets.open().bundle, np.random.default_rng(0)
    texts, (name, other) = bundle.vocabulary.embeddings, (3, 5)
    seen = np.repeat(texts.vision[[name]], 15, axis=0)
    noise = random.standard_normal(seen.shape).astype(np.float32)
    with closing(open_backend(bundle, device="cpu", graphs=("head",))) as backend:
        labels = decided(bundle, backend, seen, seen)
        assert set(labels) == {bundle.vocabulary.names[name]}
        assert len(labels) == 15
        away = decided(bundle, backend, noise / np.linalg.norm(noise, axis=1, keepdims=True), seen)
        elsewhere = decided(bundle, backend, *(np.repeat(texts.vision[[other]], 15, axis=0),) * 2)
    assert (away != labels).any()
    assert (elsewhere != labels).all()


@pytest.mark.parametrize("sense", ["vision", "audio"])
def test_graphs_compute_what_the_blocks_do(tmp_path: Path, sense: str) -> None:
    found = ways(ImageBindConfig.tiny(), sense, [40], [9], timed=1)  # type: ignore[arg-type]
    assert len(found) == (3 if sense == "vision" else 2)
    for way in found.values():
        state = [torch.randn_like(each) for each in way.state]
        with torch.no_grad():
            outputs = way.blocks(way.x, *state)
        expected = [each.numpy() for each in (outputs if isinstance(outputs, tuple) else (outputs,))]
        session = open_blocks(traced_way(way), tmp_path, "fp32")
        given = {f"s{number}": each.numpy() for number, each in enumerate(state)}
        for ours, theirs in zip(session.run(None, {"x": way.x.numpy()} | given), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.proof
def test_speed_is_printed_for_each_way(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--config", "tiny", "--senses", "vision", "--budgets", "64", "--merged", "--blocks", "2"]
    assert speed(arguments) == 0
    _, full, changed = capsys.readouterr().out.splitlines()
    for line, name in ((full, "all tokens"), (changed, "changed tokens, 64")):
        assert re.match(rf"vision {name}: .* fp32 [.\d]+ times as fast .* int8 [.\d]+ times as fast", line)
    assert ": 100.0% of the operations, state of 0 MB;" in full
    share, state = re.findall(r": ([.\d]+)% of the operations, state of (\d+) MB", changed)[0]
    assert 25 < float(share) < 100
    assert int(state) == round(2 * 8 * 257 * 64 * 4 / 1e6)  # blocks, buffers, tokens, width, bytes


@pytest.mark.proof
def test_pooled_sound_is_timed_as_a_whole_encoder(capsys: pytest.CaptureFixture[str]) -> None:
    assert speed(["--config", "tiny", "--senses", "audio", "--merged", "--turns", "2"]) == 0
    _, full, pooled = capsys.readouterr().out.splitlines()
    assert full.startswith("audio all tokens: 100.0% of the operations")
    assert re.fullmatch(
        r"audio pooled, whole encoder: 4\d\.\d% of the operations; fp32 [.\d]+ times as fast \(\d+ of \d+ ms\); "
        r"int8 [.\d]+ times as fast \(\d+ of \d+ ms\)",
        pooled,
    )
