"""Headers and texts that claim what is not there: refused before memory is taken."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ovavel.runtime.bundle.vocabulary import Tokenizer, Vocabulary
from ovavel.runtime.errors import BundleError
from ovavel.runtime.system.untrusted import read_array, read_arrays, read_json


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def header(text: str, rest: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    size = len(text).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    return b"\x93NUMPY" + version + size + text.encode() + rest


@given(arrays.arrays(arrays.scalar_dtypes(), arrays.array_shapes(min_dims=0, min_side=0)))
def test_an_array_is_read_back(array: np.ndarray) -> None:
    if not array.dtype.itemsize:
        return
    for each in (array, np.asfortranarray(array)):
        found = read_array(npy(each))
        assert (found.dtype, found.shape) == (each.dtype, each.shape)
        assert found.tobytes() == each.tobytes()


@given(
    shape=st.lists(st.integers(-1, 2**62), max_size=5), kind=st.sampled_from(["<f4", "|u1", "<U999999999", "|O", "|V0"])
)
def test_an_array_that_claims_more_than_there_is_is_refused(shape: list[int], kind: str) -> None:
    text = repr({"descr": kind, "fortran_order": False, "shape": (*shape, 2**31)})
    with pytest.raises(ValueError):
        read_array(header(text, bytes(100)))


@given(st.binary(max_size=60), st.sampled_from([b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x09"]))
def test_an_odd_header_is_refused(text: bytes, version: bytes) -> None:
    with pytest.raises(ValueError):
        read_array(b"\x93NUMPY" + version + len(text).to_bytes(4, "little") + text)
    with pytest.raises(ValueError):
        read_array(header("(" * 20_000 + ")" * 20_000))
    with pytest.raises(ValueError):
        read_array(header("[" * 2000, version=version))


def test_an_archive_that_unpacks_to_far_too_much_is_refused() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("vision.npy", "w") as member:
            for _ in range(64):
                member.write(bytes(2**20))
    data = file.getvalue()
    assert len(data) < 100_000
    with pytest.raises(ValueError, match="far too much"):
        read_arrays(data, 2**20)
    size = (64 * 2**20).to_bytes(4, "little")
    with pytest.raises(ValueError):  # it says less than it unpacks to
        read_arrays(data.replace(size, (2**10).to_bytes(4, "little")), 2**20)


@given(st.binary(max_size=100), st.integers(0, 2**16))
def test_a_damaged_archive_is_refused_with_a_value_error(noise: bytes, place: int) -> None:
    file = io.BytesIO()
    np.savez_compressed(file, first=np.arange(9), second=np.ones((3, 3)))
    data = bytearray(file.getvalue())
    place %= len(data)
    data[place : place + len(noise)] = noise
    try:
        read_arrays(bytes(data), 2**20)
    except ValueError as error:
        assert str(error)  # noqa: PT017


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("damage", [b"", b"\xff" * 20])
def test_an_archive_that_numpy_would_not_write_is_refused(method: int, damage: bytes) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("x.npy", npy(np.zeros(1000)))
    data = bytearray(file.getvalue())
    data[40 : 40 + len(damage)] = damage
    with pytest.raises(ValueError, match="that numpy does not use"):
        read_arrays(bytes(data), 2**20)


@given(st.dictionaries(st.text(), st.integers(-(2**53), 2**53) | st.lists(st.text())))
def test_json_with_duplicate_names_is_refused(content: dict[str, object]) -> None:
    text = json.dumps(content)
    assert read_json(text.encode(), dict) == content
    for name in content:
        again = f"{text[:-1]}, {json.dumps(name)}: 0}}"
        with pytest.raises(ValueError, match="occurs twice"):
            read_json(f'{{"inner": {again}}}'.encode(), dict)


def test_a_duplicate_name_is_found_among_many() -> None:
    names = [*map(str, range(300_000)), "x" * 9999, "x" * 9999]  # a pair at a time, that would take an hour
    with pytest.raises(ValueError, match="occurs twice") as refused:
        read_json(f"{{{','.join(f'{json.dumps(name)}:0' for name in names)}}}".encode(), dict)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":['])
@pytest.mark.parametrize("times", [3000, 2_000_000])
def test_json_that_is_nested_deeply_is_refused(opening: str, times: int) -> None:
    # how deep is too deep depends on the version of Python; less deep, it is refused because it has no end
    with pytest.raises(ValueError, match="nested too deeply" if times > 100_000 else None):
        read_json((opening * times).encode(), dict)
    with pytest.raises(BundleError):
        Vocabulary.decode((opening * times).encode(), npy(np.eye(2, dtype=np.float32)), where="here")


@pytest.mark.parametrize("data", [b"\xff\xfe[\x00]\x00", b"\xef\xbb\xbf{}", b"", b"{", b"9" * 9999, b"NaN", b"\x80"])
def test_invalid_json_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        read_json(data, dict)


def test_a_tokenizer_that_pads_to_far_too_much_is_refused(exported_bundle: object) -> None:
    content = json.loads((exported_bundle / "tokenizer.json").read_text())  # type: ignore[operator]
    content["padding"]["strategy"] = {"Fixed": 2**40}
    content["truncation"]["max_length"] = 2**40
    with pytest.raises(BundleError, match="here"):
        Tokenizer.decode(json.dumps(content).encode(), where="here")
    content["padding"] |= {"strategy": {"Fixed": 77}, "pad_to_multiple_of": 2**40}
    content["truncation"]["max_length"] = 77
    with pytest.raises(BundleError, match="here"):
        Tokenizer.decode(json.dumps(content).encode(), where="here")
