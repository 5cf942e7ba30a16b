"""The temporal head against the original implementation, its files, and its graph."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from support.golden_weights import GOLDEN, golden_head_inputs, golden_head_state
from support.rounding import exact_fusion
from torch import Tensor

from ovavel.runtime.errors import CheckpointError, OutputError, UsageError
from ovavel.training.heads.temporal import HeadGraph, TemporalHead, fuse
from ovavel.training.models.checkpoint import read_metadata

TOLERANCE = 1e-4


def write(path: Path, state: dict[str, Tensor]) -> Path:
    if path.suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    return path


@pytest.mark.parametrize("blocks", [1, 2])
def test_matches_the_original(tmp_path: Path, blocks: int) -> None:
    with np.load(GOLDEN / "dev_head.npz") as file:
        expected = {name.removeprefix(f"L{blocks}_"): file[name] for name in file if name.startswith(f"L{blocks}_")}
    head = TemporalHead.load(write(tmp_path / "head.pth", golden_head_state(blocks)))
    assert head.blocks == blocks
    audio, vision, text = golden_head_inputs()
    with torch.no_grad():
        audio_features, vision_features = head(audio, vision)
        decision = HeadGraph(head)(audio, vision, text, text)
        gt = torch.from_numpy(expected["gt"])
        loss = torch.nn.functional.cross_entropy(decision.score.flatten(0, 1), gt.flatten())
    got = {
        "audio": audio_features[..., ::16],
        "vision": vision_features[..., ::16],
        "sim_audio": decision.audio_similarity,
        "sim_vision": decision.vision_similarity,
        "logits": decision.score,
        "loss": loss,
    }
    assert got.keys() | {"gt"} == expected.keys()
    for name, value in got.items():
        np.testing.assert_allclose(value.numpy(), expected[name], atol=TOLERANCE, rtol=0, err_msg=name)


def test_published_size() -> None:
    assert sum(tensor.numel() for tensor in golden_head_state().values()) == 8_418_316
    used = sum(parameter.numel() for parameter in TemporalHead().parameters())
    assert used == 2 * (3 * (1024 * 256 + 256) + (256 * 1024 + 1024) + (1024 * 512 + 512) + (512 * 1024 + 1024) + 4096)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_reads_the_head_inside_a_full_checkpoint(tmp_path: Path, suffix: str) -> None:
    state = golden_head_state(2)
    full = {f"temporal_av_layer.{name}": tensor for name, tensor in state.items()}
    full["image_bind.modality_heads.audio.0.bias"] = torch.zeros(3)
    head = TemporalHead.load(write(tmp_path / f"full{suffix}", full))
    assert head.blocks == 2
    for name, tensor in head.state_dict().items():
        assert torch.equal(tensor, state[name])


@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_saved_head_can_be_loaded(tmp_path: Path, blocks: int) -> None:
    head = TemporalHead(blocks, dim=12, hidden=5, ffn=7)
    path = tmp_path / "new folder" / "head.safetensors"
    for _ in range(2):  # also onto itself
        head.save(path)
    again = TemporalHead.load(path)
    assert not again.training
    assert (again.blocks, again.dim, again.hidden, again.ffn) == (blocks, 12, 5, 7)
    assert again.state_dict().keys() == head.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(head.state_dict().values(), again.state_dict().values(), strict=True))
    assert json.loads(read_metadata(path)["config"])["blocks"] == blocks
    assert [file.name for file in path.parent.iterdir()] == ["head.safetensors"]
    again.save(path)  # a loaded head must not depend on the file it came from
    assert load_file(path).keys() == head.state_dict().keys()


def test_failed_save_keeps_the_existing_file(tmp_path: Path) -> None:
    (tmp_path / "head").mkdir()
    with pytest.raises(OutputError, match="head"):
        TemporalHead(1, 4, 2, 3).save(tmp_path / "head")
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError):
        TemporalHead(1, 4, 2, 3).save(tmp_path / "file" / "head.safetensors")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "head"]


def test_without_blocks_only_the_scale_remains() -> None:
    audio, vision, _ = golden_head_inputs()
    audio_features, vision_features = TemporalHead(0)(audio, vision)
    assert torch.equal(audio_features, audio * 20)
    assert torch.equal(vision_features, vision)


def test_dropout_applies_only_in_training() -> None:
    torch.manual_seed(0)
    audio, vision, _ = golden_head_inputs()
    head = TemporalHead().eval()
    assert torch.equal(head(audio, vision)[1], head(audio, vision)[1])
    head.train()
    assert not torch.equal(head(audio, vision)[1], head(audio, vision)[1])


def test_segments_have_no_position() -> None:
    torch.manual_seed(0)
    audio, vision, _ = golden_head_inputs()
    head = TemporalHead(2).eval()
    order = torch.randperm(10)
    with torch.no_grad():
        for mixed, straight in zip(head(audio[:, order], vision[:, order]), head(audio, vision), strict=True):
            torch.testing.assert_close(mixed, straight[:, order], atol=1e-5, rtol=0)


def broken(**changes: Tensor | None) -> dict[str, Tensor]:
    state = golden_head_state() | {name.replace("__", "."): tensor for name, tensor in changes.items()}
    return {name: tensor for name, tensor in state.items() if tensor is not None}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (broken(a_sa_blocks__0__ffn__w_2__bias=None), r"lacks 1 .*a_sa_blocks\.0\.ffn\.w_2\.bias"),
        (broken(a_sa_blocks__0__self_attn__q__weight=None), r"a_sa_blocks\.0\.self_attn\.q\.weight"),
        (broken(v_sa_blocks__0__norm1__bias=torch.zeros(5)), r"v_sa_blocks\.0\.norm1\.bias is \(5,\)"),
        (broken(position=torch.zeros(5)), "does not have: position"),
        (broken(a_sa_blocks__1__norm1__bias=torch.zeros(1024)), r"a_sa_blocks\.1\.self_attn\.q\.weight"),
        ({"weight": torch.zeros(3)}, "not a temporal head"),
        ({"a_sa_blocks.99999999.norm1.bias": torch.zeros(3)}, "not a temporal head"),
        (broken(a_sa_blocks__99999999__norm1__bias=torch.zeros(1024)), "99999999"),
        (broken(a_sa_blocks__0__self_attn__q__weight=torch.zeros(0, 1024)), "positive sizes"),
        ({}, "not a temporal head"),
    ],
)
def test_an_invalid_head_file_is_refused(tmp_path: Path, state: dict[str, Tensor], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        TemporalHead.load(write(tmp_path / "head.safetensors", state))


def test_invalid_sizes_are_refused(tmp_path: Path) -> None:
    for sizes in ((-1, 4, 4, 4), (1, 0, 4, 4), (1, 4, 4, 0)):
        with pytest.raises(UsageError):
            TemporalHead(*sizes)
    for dim in (0, -3, "many"):
        config = {"blocks": 0, "dim": dim, "hidden": 2, "ffn": 2}
        metadata = {"format": "ovavel head 1", "head": "temporal", "config": json.dumps(config)}
        save_file({}, tmp_path / "head.safetensors", metadata)
        with pytest.raises(CheckpointError):
            TemporalHead.load(tmp_path / "head.safetensors")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6), st.sampled_from([1.0, 1e-3, 1e-7, 0.0]))
@example(3, 3, 1.0)
@example(1439, 3, 1.0)  # two classes differ in the last digits
def test_fused_scores_follow_the_formula(seed: int, classes: int, size: float) -> None:
    g = np.random.default_rng(seed)
    audio, vision = (size * g.standard_normal((2, 4, classes), dtype=np.float32) for _ in range(2))
    audio, vision = np.float32(audio), np.float32(vision)
    expected, bound = exact_fusion(audio, vision)
    score = fuse(torch.from_numpy(audio), torch.from_numpy(vision)).numpy()
    assert (np.abs(score - expected) <= bound).all()
    assert score.min() >= 0
    assert score.max() <= 1


def test_gradient_is_finite_where_similarities_disagree() -> None:
    audio = torch.tensor([[0.2, -0.1, 0.0, 0.3]], requires_grad=True)
    vision = torch.tensor([[0.1, 0.4, 0.5, 0.2]], requires_grad=True)
    fuse(audio, vision)[0, 3].backward()
    assert audio.grad is not None
    assert vision.grad is not None
    assert audio.grad.isfinite().all()
    assert vision.grad.isfinite().all()


@pytest.mark.parametrize("blocks", [0, 2])
def test_graph_exports_to_onnx_for_any_length_and_vocabulary(tmp_path: Path, blocks: int) -> None:
    torch.manual_seed(blocks)
    graph = HeadGraph(TemporalHead(blocks, dim=32, hidden=16, ffn=24)).eval()

    def example(batch: int, segments: int, classes: int) -> tuple[Tensor, ...]:
        shapes = ((batch, segments, 32), (batch, segments, 32), (classes, 32), (classes, 32))
        return tuple(torch.nn.functional.normalize(torch.randn(shape), dim=-1) for shape in shapes)

    b, t, c = (torch.export.Dim(name) for name in ("batch", "segments", "classes"))
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph,
            example(2, 10, 3),
            dynamo=True,
            opset_version=20,
            input_names=["audio", "vision", "audio_text", "vision_text"],
            dynamic_shapes=({0: b, 1: t}, {0: b, 1: t}, {0: c}, {0: c}),
            verbose=False,
        )
    program.save(tmp_path / "head.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "head.onnx", providers=["CPUExecutionProvider"])
    same = torch.eye(32)[:2]
    opposed = (torch.eye(32)[None, :1], -torch.eye(32)[None, :1], same, same)  # nothing in common: all scores 0
    for x in (example(2, 10, 3), example(1, 1, 2), example(3, 13, 70), opposed):
        with torch.no_grad():
            expected = graph(*x)
        names = ("audio", "vision", "audio_text", "vision_text")
        got = session.run(None, {name: value.numpy() for name, value in zip(names, x, strict=True)})
        for mine, theirs in zip(got, expected, strict=True):
            np.testing.assert_allclose(mine, theirs.numpy(), atol=1e-4, rtol=0)
    if blocks == 0:
        assert np.array_equal(got[2], np.zeros((1, 1, 2)))
