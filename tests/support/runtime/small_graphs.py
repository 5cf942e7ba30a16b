"""Small graphs as a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ovavel.runtime.bundle.bundle import Bundle, file_entry
from ovavel.runtime.bundle.manifest import Fusion, Manifest, Model, Parity
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Vocabulary
from support.encoders import encoders

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

SIZE = 8  # of the embeddings


def save(path: Path, nodes: list, inputs: dict, outputs: list[str], weights: dict, *, external: bool = False) -> None:
    def value(name: str, shape: list | None, kind: int = TensorProto.FLOAT) -> object:
        return helper.make_tensor_value_info(name, kind, shape)

    graph = helper.make_graph(
        nodes,
        "graph",
        [value(name, shape) for name, shape in inputs.items()],
        [value(name, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(
        model, path, save_as_external_data=external, location=path.name + ".data", size_threshold=64
    ) if external else onnx.save(model, path)


def write_vision(path: Path) -> None:
    projection = np.random.default_rng(0).standard_normal((3, SIZE)).astype(np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["frames", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "projection"], ["raw"]),
        helper.make_node("LpNormalization", ["raw"], ["embedding"], axis=-1, p=2),
    ]
    weights = {"axes": np.array([2, 3]), "projection": projection}
    save(path, nodes, {"frames": ["B", 3, 224, 224]}, ["embedding"], weights, external=True)


HEAD_INPUTS = {
    "audio": ["B", "T", SIZE],
    "vision": ["B", "T", SIZE],
    "audio_text": ["C", SIZE],
    "vision_text": ["C", SIZE],
}


def write_head(path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["audio_text"], ["heard"], perm=[1, 0]),
        helper.make_node("Transpose", ["vision_text"], ["seen"], perm=[1, 0]),
        helper.make_node("MatMul", ["audio", "heard"], ["audio_similarity"]),
        helper.make_node("MatMul", ["vision", "seen"], ["vision_similarity"]),
        helper.make_node("Mul", ["audio_similarity", "vision_similarity"], ["score"]),
    ]
    save(path, nodes, HEAD_INPUTS, ["audio_similarity", "vision_similarity", "score"], {})


def bundle_of(tmp_path: Path) -> Bundle:
    """The graphs in a folder as a bundle, whatever they are."""
    manifest = Manifest(
        format_version=1,
        ovavel_version="0",
        model=Model(name="test", weights_sha256="0" * 64, licence="none", config={}, head_layers=0),
        encoders=encoders(SIZE),
        graphs={"vision": {"fp32": "vision.onnx"}, "head": {"fp32": "head.onnx"}},
        precision={},
        files={file.name: file_entry(file) for file in tmp_path.iterdir() if file.is_file()},
        fusion=Fusion(),
        opset=20,
        parity=Parity(versions={}, checks=()),
        exact_on={},
        vocabulary="",
    )
    vocabulary = Vocabulary(names=("dog", "other"), embeddings=TextEmbeddings.shared(np.eye(2, SIZE, dtype=np.float32)))
    return Bundle(path=tmp_path, manifest=manifest, sha256="", vocabulary=vocabulary)
