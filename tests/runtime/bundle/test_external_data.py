"""What the reader of ONNX files refuses, and that it never sees less than the onnx library does."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from support.onnx_tree import count, one_field, parse, varint, write

from ovavel.runtime.bundle.external_data import ExternalTensor, external_data
from ovavel.runtime.bundle.onnx_fields import FIELDS
from ovavel.runtime.errors import BundleError

DEMO = Path(__file__).parents[3] / "eval" / "demo" / "assets" / "bundle"

_KINDS = {
    "int64": {FieldDescriptor.TYPE_INT64},
    "uint64": {FieldDescriptor.TYPE_UINT64},
    "int32": {FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_ENUM},
    "float": {FieldDescriptor.TYPE_FLOAT},
    "double": {FieldDescriptor.TYPE_DOUBLE},
    "string": {FieldDescriptor.TYPE_STRING},
    "bytes": {FieldDescriptor.TYPE_BYTES},
}


def outside(name: str, location: str = "weights") -> TensorProto:
    tensor = TensorProto(name=name, dims=[2], data_type=1, data_location=1)
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="length", value="8")
    return tensor


def model() -> onnx.ModelProto:
    """A model with every kind of field that the reader knows."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 2])
    node = helper.make_node("Add", ["x", "w"], ["y"], axis=-1, scale=0.5, names=["a"], sizes=[1, 2])
    node.attribute.append(helper.make_attribute("value", helper.make_tensor("", TensorProto.FLOAT, [2], [1.0, 2.0])))
    inline = helper.make_tensor("v", TensorProto.INT64, [2], [1, 300])
    graph = helper.make_graph([node], "graph", [value], [value], [outside("w"), inline], value_info=[value])
    return helper.make_model(graph, producer_name="tests", opset_imports=[helper.make_opsetid("", 20)])


def _messages(descriptor: Descriptor, message: str) -> Iterator[tuple[str, Descriptor]]:
    yield message, descriptor
    for number, field in FIELDS[message].items():
        if field.kind in FIELDS:
            yield from _messages(descriptor.fields_by_number[number].message_type, field.kind)


def test_the_fields_are_those_of_onnx() -> None:
    found = dict(_messages(onnx.ModelProto.DESCRIPTOR, "Model"))
    assert found.keys() == FIELDS.keys()
    for message, descriptor in found.items():
        for number, field in FIELDS[message].items():
            theirs = descriptor.fields_by_number[number]
            packed = field.kind.startswith("packed ")
            assert theirs.is_packed == packed
            assert theirs.is_repeated == field.repeated
            if field.kind not in FIELDS:
                assert theirs.type in _KINDS[field.kind.removeprefix("packed ")]


@pytest.mark.parametrize("graph", ["vision", "audio", "text", "head"])
def test_a_shipped_graph_is_read(graph: str) -> None:
    data = (DEMO / f"{graph}.onnx").read_bytes()
    assert named(external_data(data, graph)) == locations(onnx.ModelProto.FromString(data))


def test_weights_of_an_initializer_are_named() -> None:
    expected = ExternalTensor(name="w", data_type=1, dims=(2,), location="weights", offset=0, length=8)
    assert external_data(model().SerializeToString(), "here") == (expected,)
    assert external_data(model().SerializeToString(), "here", {"weights": 8}) == (expected,)


def named(tensors: Iterable[ExternalTensor]) -> set[str]:
    return {tensor.location for tensor in tensors}


TREE = parse(model().SerializeToString(), "Model")
PLACES = st.integers(0, count(TREE) - 1)


def changed(place: int, change: Callable[..., bytes]) -> bytes:
    return write(TREE, itertools.count(), place, change)


def refused(data: bytes, *words: str) -> None:
    with pytest.raises(BundleError) as caught:
        external_data(data, "here")
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_the_tree_gives_the_bytes_it_was_made_of() -> None:
    assert changed(-1, lambda *_: b"") == model().SerializeToString()


@given(place=PLACES, size=st.integers(2, 10))
def test_a_tag_in_more_bytes_than_it_takes_is_refused(place: int, size: int) -> None:
    def longer(number: int, kind: int, content: Any, message: str) -> bytes:
        tag = number << 3 | kind
        return one_field(tag, content, tag_bytes=max(size, len(varint(tag)) + 1))

    refused(changed(place, longer), "more bytes than necessary")


@given(place=PLACES, bits=st.integers(1, 2**32 - 1))
def test_a_tag_with_bits_above_the_32_is_refused(place: int, bits: int) -> None:
    """Parsers in C++ drop them."""
    refused(changed(place, lambda number, kind, content, _: one_field(bits << 32 | number << 3 | kind, content)))


@given(place=PLACES, size=st.integers(2, 10))
def test_a_length_or_a_number_in_more_bytes_than_it_takes_is_refused(place: int, size: int) -> None:
    def longer(number: int, kind: int, content: Any, message: str) -> bytes:
        value = content if isinstance(content, int) else len(content)
        if kind == 5:  # it has no length: its tag then
            return one_field(number << 3 | kind, content, tag_bytes=size)
        return one_field(number << 3 | kind, content, number_bytes=max(size, len(varint(value)) + 1))

    refused(changed(place, longer), "more bytes than necessary")


@given(place=PLACES, number=st.integers(0, 2**29 - 1), kind=st.integers(0, 7), content=st.binary(max_size=9))
def test_an_unknown_field_is_refused(place: int, number: int, kind: int, content: bytes) -> None:
    def before(known: int, known_kind: int, known_content: Any, message: str) -> bytes:
        unknown = next(each for each in itertools.count(number) if each not in FIELDS[message])
        return one_field(unknown << 3 | kind, content) + one_field(known << 3 | known_kind, known_content)

    refused(changed(place, before), "does not occur in a bundle's graphs")


@given(place=PLACES, kind=st.integers(0, 7))
def test_a_field_of_another_wire_type_is_refused(place: int, kind: int) -> None:
    def other(number: int, right: int, content: Any, message: str) -> bytes:
        wrong = kind if kind != right else (kind + 1) % 8
        return varint(number << 3 | wrong) + one_field(number << 3 | right, content)[1:]

    refused(changed(place, other), "wire type")


@given(place=PLACES)
def test_a_field_that_is_there_twice_is_refused_where_there_is_one(place: int) -> None:
    single = False

    def twice(number: int, kind: int, content: Any, message: str) -> bytes:
        nonlocal single
        single = not FIELDS[message][number].repeated
        return one_field(number << 3 | kind, content) * 2

    data = changed(place, twice)
    if single:
        refused(data)


@given(st.data())
def test_what_is_accepted_reads_what_the_onnx_library_reads(data: st.DataObject) -> None:
    """However the bytes were changed: a tensor that the library sees outside is one that the reader named."""
    content = bytearray(model().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        content[start : start + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    try:
        found = named(external_data(bytes(content), "here"))
    except BundleError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return
    try:
        parsed = onnx.ModelProto.FromString(bytes(content))
    except Exception:  # nobody can load it
        return
    assert locations(parsed) == found


def locations(message: Any) -> set[str]:
    """Of external data, in all messages inside of one."""
    found = set()
    for _, value in message.ListFields():
        for each in value if hasattr(value, "__len__") and not isinstance(value, str | bytes) else [value]:
            if hasattr(each, "ListFields"):
                found |= locations(each)
    if isinstance(message, TensorProto) and message.data_location == 1:
        found |= {entry.value for entry in message.external_data if entry.key == "location"}
    return found


@pytest.mark.parametrize("place", ["attribute", "attributes", "branch", "sparse", "function", "training"])
def test_weights_outside_are_for_initializers_alone(place: str) -> None:
    made = model()
    tensor, attribute = outside("hidden", "hidden"), made.graph.node[0].attribute.add(name="x")
    if place == "attribute":
        attribute.t.CopyFrom(tensor)
    elif place == "attributes":
        attribute.tensors.append(tensor)
    elif place == "branch":
        attribute.g.initializer.append(tensor)
    elif place == "sparse":
        made.graph.sparse_initializer.add().values.CopyFrom(tensor)
    elif place == "function":
        made.functions.add().node.add().attribute.add(name="x").t.CopyFrom(tensor)
    else:
        made.training_info.add().algorithm.initializer.append(tensor)
    refused(made.SerializeToString())


@pytest.mark.parametrize(
    "location",
    ["../outside", "/etc/hostname", "a/b", "..", ".", "", "a\\b", "*/_ORT_MEM_ADDR_/*", "a\nb", "a\0b", "nothing"],
)
def test_a_location_that_is_no_file_beside_the_graph_is_refused(location: str) -> None:
    made = model()
    made.graph.initializer[0].external_data[0].value = location
    with pytest.raises(BundleError):
        external_data(made.SerializeToString(), "here", {"weights": 8})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("offset", "1"),
        ("length", "9"),
        ("offset", "-1"),
        ("offset", "0x1"),
        ("offset", "00"),
        ("length", "8 "),
        ("length", "9" * 400),
        ("location", "other"),
        ("prepacked_0", "key|0;8"),
        ("basepath", "/etc"),
    ],
)
def test_an_odd_entry_of_external_data_is_refused(key: str, value: str) -> None:
    made = model()
    entries = made.graph.initializer[0].external_data
    for entry in entries:
        if entry.key == key:
            entry.value = value
            break
    else:
        entries.add(key=key, value=value)
    with pytest.raises(BundleError):
        external_data(made.SerializeToString(), "here", {"weights": 8})


def test_a_tensor_inside_and_outside_is_refused() -> None:
    made = model()
    made.graph.initializer[0].raw_data = b"\0" * 8
    refused(made.SerializeToString(), "as well")
    made = model()
    made.graph.initializer[0].data_location = 0
    refused(made.SerializeToString())


@given(st.integers(2**31, 2**64 - 2**31 - 1))
def test_an_enumeration_with_more_bits_than_it_has_is_refused(value: int) -> None:
    """In C++ its upper bits are dropped: 2³² + 1 would be "outside"."""
    content = one_field(14 << 3, value)
    tensor = outside("w")
    tensor.ClearField("data_location")
    graph = one_field(5 << 3 | 2, tensor.SerializeToString() + content)
    refused(one_field(7 << 3 | 2, graph), "too many bits")


def test_far_too_many_dimensions_are_refused_in_time() -> None:
    tensor = outside("w")
    tensor.dims.extend([2**62] * 500_000)
    written = model()
    written.graph.initializer.append(tensor)
    refused(written.SerializeToString(), "500001 dimensions")


def test_far_too_many_fields_are_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ovavel.runtime.bundle.external_data._MOST_FIELDS", 1000)
    made = model()
    made.graph.node[0].input.extend(["x"] * 1000)
    refused(made.SerializeToString(), "far too many")
