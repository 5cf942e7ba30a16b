"""Graphs that are broken, or have other shapes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.errors import BundleError

pytest.importorskip("onnx")
from onnx import helper
from support.runtime.small_graphs import HEAD_INPUTS, SIZE, bundle_of, save


def without_weights(folder: Path) -> None:
    (folder / "vision.onnx.data").unlink()


def cut_weights(folder: Path) -> None:
    os.truncate(folder / "vision.onnx.data", 16)


def not_a_graph(folder: Path) -> None:
    (folder / "vision.onnx").write_text("no graph at all")


def empty(folder: Path) -> None:
    (folder / "vision.onnx").write_bytes(b"")


def unknown_operator(folder: Path) -> None:
    save(folder / "vision.onnx", [helper.make_node("Unheard", ["x"], ["y"])], {"x": [1]}, ["y"], {})


@pytest.mark.parametrize("spoil", [without_weights, cut_weights, not_a_graph, empty, unknown_operator, None])
def test_a_broken_graph_is_a_bundle_error(bundle: Bundle, spoil: Callable[[Path], None] | None) -> None:
    if spoil:
        spoil(bundle.path)
    else:
        (bundle.path / "vision.onnx").unlink()
    for each in (bundle, bundle_of(bundle.path)):  # the latter lists what is there now
        with pytest.raises(BundleError, match=r"vision\.onnx.*again") as caught:
            open_backend(each, device="cpu", graphs=("vision",))
        assert "\n" not in str(caught.value)


def wide_head(folder: Path) -> None:
    """Its similarities have 64 columns, for however many names."""
    weights = {"names": np.eye(SIZE, 64, dtype=np.float32)}
    nodes = [
        helper.make_node("MatMul", ["audio", "names"], ["audio_similarity"]),
        helper.make_node("MatMul", ["vision", "names"], ["vision_similarity"]),
        helper.make_node("Mul", ["audio_similarity", "vision_similarity"], ["score"]),
    ]
    save(folder / "head.onnx", nodes, HEAD_INPUTS, ["audio_similarity", "vision_similarity", "score"], weights)


def flat_head(folder: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", [name], [f"of {name}"], keepdims=0) for name in ("audio", "vision", "audio_text")
    ]
    save(folder / "head.onnx", nodes, HEAD_INPUTS, ["of audio", "of vision", "of audio_text"], {})


def lone_head(folder: Path) -> None:
    nodes = [helper.make_node("MatMul", ["audio", "names"], ["score"])]
    save(folder / "head.onnx", nodes, HEAD_INPUTS, ["score"], {"names": np.eye(SIZE, 2, dtype=np.float32)})


def head_of_one_text(folder: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["text"], ["columns"], perm=[1, 0]),
        helper.make_node("MatMul", ["audio", "columns"], ["audio_similarity"]),
        helper.make_node("MatMul", ["vision", "columns"], ["vision_similarity"]),
        helper.make_node("Mul", ["audio_similarity", "vision_similarity"], ["score"]),
    ]
    inputs = {"audio": ["B", "T", SIZE], "vision": ["B", "T", SIZE], "text": ["C", SIZE]}
    save(folder / "head.onnx", nodes, inputs, ["audio_similarity", "vision_similarity", "score"], {})


@pytest.mark.parametrize("spoil", [wide_head, flat_head, lone_head, head_of_one_text])
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_head_of_other_shapes_is_refused_when_it_is_opened(
    bundle: Bundle, spoil: Callable[[Path], None], name: str
) -> None:
    pytest.importorskip(name)
    spoil(bundle.path)
    with pytest.raises(BundleError, match=r"(?s)the head graph .*do not trust this bundle"):
        open_backend(bundle_of(bundle.path), name=name, device="cpu", precision="fp32", graphs=("head",))


def test_an_encoder_of_another_size_is_refused(bundle: Bundle) -> None:
    nodes = [helper.make_node("ReduceMean", ["frames"], ["embedding"], axes=None, keepdims=1)]
    save(bundle.path / "vision.onnx", nodes, {"frames": ["B", 3, 224, 224]}, ["embedding"], {})
    backend = open_backend(bundle_of(bundle.path), device="cpu", graphs=("vision",))
    with pytest.raises(BundleError, match=r"the vision graph of the bundle returns \(1, 1, 1, 1\)"):
        backend.vision(np.zeros((1, 3, 224, 224), np.float32))
