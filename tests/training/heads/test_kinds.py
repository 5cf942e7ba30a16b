"""Heads of every kind: their computation and their files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ovavel.runtime.errors import CheckpointError, UsageError
from ovavel.training.heads.layers import Draw, Dropout
from ovavel.training.heads.temporal import HeadGraph, TemporalHead
from ovavel.training.models.checkpoint import read_metadata
from ovavel.training.models.unit import unit_norm

KINDS = ("temporal", "linear", "cross-modal")


def embeddings(seed: int = 0, clips: int = 3, dim: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return tuple(unit_norm(torch.randn(shape, generator=g)) for shape in ((clips, 10, dim), (clips, 10, dim), (5, dim)))


def make(**options: object) -> TemporalHead:
    torch.manual_seed(1)
    return TemporalHead(1, 16, 8, 12, **options).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("score", ["geometric", "prob-avg", "feature-avg"])
@pytest.mark.parametrize("gate", [None, 0.3])
def test_every_kind_can_be_saved_and_loaded(tmp_path: Path, kind: str, score: str, gate: float | None) -> None:
    head = make(kind=kind, score=score, gate=gate, learn_gate=gate is not None, audio_scale=3.5)
    head.save(tmp_path / "head.safetensors", {"recipe": "{}", "format": "not this"})
    again = TemporalHead.load(tmp_path / "head.safetensors")
    assert (again.kind, again.score, again.audio_scale, again.blocks) == (kind, score, 3.5, 1)
    assert read_metadata(tmp_path / "head.safetensors")["recipe"] == "{}"
    assert not again.training
    x = embeddings()
    with torch.no_grad():
        for mine, theirs in zip(HeadGraph(again)(*x, x[2]), HeadGraph(head)(*x, x[2]), strict=True):
            assert torch.equal(mine, theirs)


def test_a_file_that_claims_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    make().save(path)
    good, state = read_metadata(path), load_file(path)
    config = json.loads(good["config"])
    for field, value, message in (
        ("kind", "convolution", "kind"),
        ("score", "median", "kind"),
        ("blocks", 1000000000, "1000000000 blocks"),
        ("blocks", -1, "blocks"),
        ("dim", 17, r"is \("),
        ("kind", "cross-modal", "a_xa_blocks"),
        ("audio_scale", "loud", "loud"),
    ):
        save_file(state, path, {**good, "config": json.dumps({**config, field: value})})
        with pytest.raises(CheckpointError, match=message):
            TemporalHead.load(path)


def test_attention_across_modalities_and_segments() -> None:
    audio, vision, _ = embeddings()
    other = vision.clone()
    other[:, 4] = -other[:, 4]
    with torch.no_grad():
        for kind, answers in (("temporal", False), ("cross-modal", True)):
            head = make(kind=kind)
            assert torch.equal(head(audio, vision)[0], head(audio, other)[0]) != answers
        linear = make(kind="linear")
        changed = (linear(audio, vision)[1] != linear(audio, other)[1]).any(dim=-1)
    assert changed[:, 4].all()
    assert changed.sum() == len(audio)  # no other segment


def test_linear_head_sees_scaled_audio() -> None:
    audio, vision, _ = embeddings()
    head = make(kind="linear")
    state = head.state_dict()
    with torch.no_grad():
        got_audio, got_vision = head(audio, vision)
    weight, bias = state["a_linears.0.linear.weight"], state["a_linears.0.linear.bias"]
    torch.testing.assert_close(got_audio, 20 * audio @ weight.T + bias)
    weight, bias = state["v_linears.0.linear.weight"], state["v_linears.0.linear.bias"]
    torch.testing.assert_close(got_vision, vision @ weight.T + bias)


def test_gate_blends_the_embedding_with_the_blocks() -> None:
    audio, vision, text = embeddings()
    plain = make()
    with torch.no_grad():
        blocks = plain(audio, vision)
        for share in (0.0, 0.25, 1.0):
            head = make(gate=share)
            head.load_state_dict(plain.state_dict(), strict=False)
            for got, block, embedding in zip(head(audio, vision), blocks, (audio, vision), strict=True):
                torch.testing.assert_close(got, (1 - share) * embedding + share * unit_norm(block))
        free = HeadGraph(make(gate=0.0))(audio, vision, text, text)
        for mine, theirs in zip(free, HeadGraph(TemporalHead(0, 16))(audio, vision, text, text), strict=True):
            torch.testing.assert_close(mine, theirs)


def test_gate_is_learned_only_on_request() -> None:
    assert "gate" not in dict(make(gate=0.5).named_parameters())
    assert "gate" in dict(make(gate=0.5, learn_gate=True).named_parameters())
    with pytest.raises(UsageError, match="starting value"):
        make(learn_gate=True)


def test_scores_follow_their_formulas() -> None:
    audio, vision, text = (x.numpy() for x in embeddings())

    def scaled(p: np.ndarray) -> np.ndarray:
        low, high = p.min(-1, keepdims=True), p.max(-1, keepdims=True)
        return (p - low) / (high - low + 1e-8)

    sa, sv, mean = audio @ text.T, vision @ text.T, (20 * audio + vision) / 2
    both = mean / np.linalg.norm(mean, axis=-1, keepdims=True) @ text.T
    expected = {
        "geometric": scaled(np.sqrt(np.maximum(sa * sv, 0))),
        "prob-avg": scaled((sa + sv) / 2),
        "feature-avg": scaled(both),
    }
    for score, value in expected.items():
        head = TemporalHead(0, 16, score=score)  # type: ignore[arg-type]
        np.testing.assert_allclose(HeadGraph(head)(*embeddings(), embeddings()[2]).score, value, atol=2e-6)


def test_processes_drop_together_what_one_would() -> None:
    x = torch.ones(7, 3, 2)
    dropout = Dropout(0.5)

    def drop(*clips: slice) -> Tensor:
        parts = []
        for mine in clips:
            dropout.draw = Draw(torch.Generator().manual_seed(3), len(x), mine)
            parts.append(torch.cat([dropout(x[mine]), dropout(x[mine])], dim=1))  # the second one draws on
        return torch.cat(parts)

    whole = drop(slice(0, 7))
    assert set(whole.unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(whole[:, :3], whole[:, 3:])
    assert torch.equal(drop(slice(0, 4), slice(4, 4), slice(4, 7)), whole)
    assert torch.equal(dropout.eval()(x), x)
