"""The fields of an ONNX file that a bundle's graphs have; a file with any other field is refused.

The numbers are those of onnx.proto. Everything that no exported graph needs is left out: nested graphs (and with them
endless loops), functions, training, sparse tensors, sequences and maps, distribution over devices.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["FIELDS", "Field"]


class Field(NamedTuple):
    """How a field is encoded."""

    kind: str
    """Name of the message in it, or "int64", "int32" (also enumerations), "float", "string" or "bytes"; "packed "
    before it means all its numbers in one run."""
    repeated: bool


def _fields(**fields: tuple[int, str]) -> dict[int, Field]:
    return {number: Field(kind.removesuffix("*"), kind.endswith("*")) for number, kind in fields.values()}


FIELDS: dict[str, dict[int, Field]] = {
    "Model": _fields(
        ir_version=(1, "int64"),
        producer_name=(2, "string"),
        producer_version=(3, "string"),
        domain=(4, "string"),
        model_version=(5, "int64"),
        doc_string=(6, "string"),
        graph=(7, "Graph"),
        opset_import=(8, "OperatorSetId*"),
        metadata_props=(14, "StringStringEntry*"),
    ),
    "OperatorSetId": _fields(domain=(1, "string"), version=(2, "int64")),
    "StringStringEntry": _fields(key=(1, "string"), value=(2, "string")),
    "Graph": _fields(
        node=(1, "Node*"),
        name=(2, "string"),
        initializer=(5, "Tensor*"),
        doc_string=(10, "string"),
        input=(11, "ValueInfo*"),
        output=(12, "ValueInfo*"),
        value_info=(13, "ValueInfo*"),
        metadata_props=(16, "StringStringEntry*"),
    ),
    "ValueInfo": _fields(
        name=(1, "string"), type=(2, "Type"), doc_string=(3, "string"), metadata_props=(4, "StringStringEntry*")
    ),
    "Type": _fields(tensor_type=(1, "Type.Tensor"), denotation=(6, "string")),
    "Type.Tensor": _fields(elem_type=(1, "int32"), shape=(2, "TensorShape")),
    "TensorShape": _fields(dim=(1, "TensorShape.Dimension*")),
    "TensorShape.Dimension": _fields(dim_value=(1, "int64"), dim_param=(2, "string"), denotation=(3, "string")),
    "Node": _fields(
        input=(1, "string*"),
        output=(2, "string*"),
        name=(3, "string"),
        op_type=(4, "string"),
        attribute=(5, "Attribute*"),
        doc_string=(6, "string"),
        domain=(7, "string"),
        metadata_props=(9, "StringStringEntry*"),
    ),
    "Attribute": _fields(
        name=(1, "string"),
        f=(2, "float"),
        i=(3, "int64"),
        s=(4, "bytes"),
        t=(5, "Tensor"),
        floats=(7, "float*"),
        ints=(8, "int64*"),
        strings=(9, "bytes*"),
        doc_string=(13, "string"),
        type=(20, "int32"),
    ),
    "Tensor": _fields(
        dims=(1, "int64*"),
        data_type=(2, "int32"),
        float_data=(4, "packed float*"),
        int32_data=(5, "packed int32*"),
        string_data=(6, "bytes*"),
        int64_data=(7, "packed int64*"),
        name=(8, "string"),
        raw_data=(9, "bytes"),
        double_data=(10, "packed double*"),
        uint64_data=(11, "packed uint64*"),
        doc_string=(12, "string"),
        external_data=(13, "StringStringEntry*"),
        data_location=(14, "int32"),
        metadata_props=(16, "StringStringEntry*"),
    ),
}
"""Message → number of a field → how it is encoded."""
