"""What an engine computes in, read from the lists of layers that the libraries give."""

from __future__ import annotations

import json

import pytest

from ovavel.runtime.backends.tensorrt.layers import (
    EngineLayer,
    MatrixProduct,
    check_engine,
    engine_layers,
    logged_layers,
)
from ovavel.runtime.errors import EngineError


def tensor(name: str, sizes: str, kind: str) -> str:
    return (
        f"{{ Name: {name}, Dimensions: [{sizes}], Strides: [1], Datatype: {kind}, Format: (Linear) Row major linear }}"
    )


LOG = f"""Layers:
Name: __myl_Move_0, LayerType: kgen, Inputs: [ {tensor("frames", "1,3,224,224", "Float")}], Constants: [], Outputs: \
[ {tensor("x", "1,64", "Half")}], TacticName: __myl_Move_0x1, StreamId: 0, Metadata:\x20
Name: node_MatMul_1 [profile 1]_myl1_2, LayerType: gemm, Inputs: [ {tensor("x", "1,64", "Half")}], Constants: \
[ {tensor("w", "64,64", "Half")}, {tensor("alpha", "1", "Float")}], Outputs: [ {tensor("y", "1,64", "Half")}], \
TacticName: stub, StreamId: 0, Metadata: [ONNX Layer: node_MatMul_1 [profile 1]]\x1f[ONNX Layer: node_add]

I/O Tensors:
 Name: frames, IOMode: Input, DataType: Float, Dimensions: [1,3,224,224]
"""


def test_layers_are_parsed_from_the_build_log() -> None:
    move, product = logged_layers(LOG)
    assert (move.name, move.taken, move.origins) == ("__myl_Move_0", {"fp32"}, frozenset())
    assert product.taken == {"fp16"}  # a single number does not count
    assert product.origins == {"node_MatMul_1", "node_add"}


@pytest.mark.parametrize(
    ("tensor", "precision"),
    [
        ({"Format/Datatype": "Row major linear FP32"}, "fp32"),  # version 10
        ({"Format/Datatype": "Row major linear FP16 format"}, "fp16"),
        ({"Format/Datatype": "Row major Int8 format"}, "int8"),
        ({"Format": "Row major linear BF16 format", "DataType": "BFloat16"}, "bf16"),  # version 11
        ({"Format": "Row major linear FP16 format", "DataType": "Half"}, "fp16"),
        ({"Format": "Row major linear format", "DataType": "FP8"}, "fp8"),
        ({"Format": "Row major linear format", "DataType": "Float"}, "fp32"),
    ],
)
def test_layers_are_parsed_from_the_inspector(tensor: dict, precision: str) -> None:
    layer = {
        "Name": "fused",
        "LayerType": "gemm",
        "Inputs": [{"Name": "x", "Dimensions": [1, 64], **tensor}],
        "Constants": [{"Name": "alpha", "Dimensions": [1], "DataType": "Float", "Format/Datatype": "FP32"}],
        "Outputs": [],
        "Metadata": "[ONNX Layer: node_MatMul_1]\u001e[ONNX Layer: node_gelu]",
    }
    (read,) = engine_layers(json.dumps({"Layers": [layer], "Bindings": ["frames"]}))
    assert read == EngineLayer(
        name="fused", origins=frozenset({"node_MatMul_1", "node_gelu"}), taken=frozenset({precision})
    )


def test_an_inspector_with_only_names_is_ignored() -> None:
    assert engine_layers('{"Layers": ["node_MatMul_1", "node_MatMul_2"]}') == []
    products = [MatrixProduct(name="node_MatMul_1", precision="fp16", weights=True)]
    assert check_engine([], products, "fp16", where="vision") is None


def layers_of(*precisions: str) -> list[EngineLayer]:
    return [
        EngineLayer(name=f"layer {i}", origins=frozenset({f"node_{i}"}), taken=frozenset({each}))
        for i, each in enumerate(precisions)
    ]


def products_of(count: int, precision: str) -> list[MatrixProduct]:
    return [MatrixProduct(name=f"node_{i}", precision=precision, weights=True) for i in range(count)]


def test_an_engine_that_computes_in_something_else_is_an_error() -> None:
    assert check_engine(layers_of(*["fp16"] * 10), products_of(10, "fp16"), "fp16", where="vision") == 10
    with pytest.raises(EngineError, match=r"requested in fp16, .* 6 of 10 .*\(node_4: fp32\)"):
        check_engine(layers_of(*["fp16"] * 4, *["fp32"] * 6), products_of(10, "fp16"), "fp16", where="vision")
    with pytest.raises(EngineError, match=r"requested in fp32, .* 1 of 10 "):
        check_engine(layers_of(*["fp32"] * 9, "fp16"), products_of(10, "fp32"), "fp32", where="vision")


def test_an_engine_that_exposes_few_products_is_inconclusive() -> None:
    products = products_of(130, "fp16")
    assert check_engine(layers_of("fp16"), products, "fp16", where="vision") is None
    assert check_engine(layers_of(*["fp16"] * 64), products, "fp16", where="vision") is None
    assert check_engine(layers_of(*["fp16"] * 65), products, "fp16", where="vision") == 65


def test_products_in_other_precisions_on_purpose_are_not_held_against_an_engine() -> None:
    products = [*products_of(9, "bf16"), MatrixProduct(name="node_9", precision="fp32", weights=True)]
    assert check_engine(layers_of(*["bf16"] * 9, "fp32"), products, "bf16", where="vision") == 9


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"Layers": null}', '{"Layers": [{"Inputs": 3}]}', "nan"])
def test_an_inspector_that_cannot_be_read_discards_no_engine(text: str, caplog: pytest.LogCaptureFixture) -> None:
    assert engine_layers(text) == []
    assert "cannot be read" in caplog.text
