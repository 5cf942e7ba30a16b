"""Every way in which the files of a bundle can be wrong."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from support.runtime.bundles import refused, relist, rewrite

from ovavel.runtime.bundle.bundle import Bundle, file_entry
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.errors import BundleError


def test_an_exported_bundle_opens(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    assert bundle.vocabulary.names == ("dog barking", "race car", "bird chirping", "other")
    assert bundle.vocabulary.background == "other"
    assert bundle.graph("vision") == tiny_bundle / "vision.onnx"
    assert bundle.graph("head", "fp32") == tiny_bundle / "head.onnx"
    assert bundle.tokenizer("vision").encode(["dog"]).shape == (1, 77)
    assert bundle.sha256 == file_entry(tiny_bundle / "manifest.json").sha256
    assert Bundle.open(tiny_bundle).sha256 == bundle.sha256


@pytest.mark.parametrize(
    "name", ["vision.onnx", "text.onnx.data", "vocabulary.npz", "vocabulary.json", "tokenizer.json"]
)
def test_a_flipped_bit_is_found(tiny_bundle: Path, name: str) -> None:
    data = bytearray((tiny_bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tiny_bundle / name).write_bytes(data)
    refused(tiny_bundle, str(tiny_bundle / name), "altered", "again")


@pytest.mark.parametrize("name", ["vocabulary.json", "vocabulary.npz", "tokenizer.json", "golden.npz"])
def test_a_file_that_is_far_too_large_is_refused_before_it_is_read(tiny_bundle: Path, name: str) -> None:
    with (tiny_bundle / name).open("r+b") as file:
        file.truncate(2**34)  # without taking room on the disk
    rewrite(tiny_bundle, lambda m: m["files"][name].update(bytes=2**34))
    with pytest.raises(BundleError, match="far too large"):
        Bundle.open(tiny_bundle).read(name)


@pytest.mark.parametrize("name", ["audio.onnx", "audio.onnx.data", "vocabulary.json", "tokenizer.json"])
def test_a_missing_file_is_named(tiny_bundle: Path, name: str) -> None:
    (tiny_bundle / name).unlink()
    refused(tiny_bundle, str(tiny_bundle / name), "missing")


def test_a_truncated_file_is_named(tiny_bundle: Path) -> None:
    os.truncate(tiny_bundle / "text.onnx.data", 1000)
    refused(tiny_bundle, "text.onnx.data has 1000 bytes")


def test_a_folder_in_place_of_a_file(tiny_bundle: Path) -> None:
    (tiny_bundle / "head.onnx").unlink()
    (tiny_bundle / "head.onnx").mkdir()
    refused(tiny_bundle, "head.onnx")


def test_a_pipe_in_place_of_a_file_does_not_hang(tiny_bundle: Path) -> None:
    (tiny_bundle / "head.onnx").unlink()
    os.mkfifo(tiny_bundle / "head.onnx")
    refused(tiny_bundle, "head.onnx")


def test_not_a_bundle(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", "does not exist", "ovavel bundle export")
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", "is a file")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "has no manifest.json")


def test_files_that_are_not_opened_are_not_hashed(tiny_bundle: Path) -> None:
    data = bytearray((tiny_bundle / "text.onnx.data").read_bytes())
    data[100] ^= 1
    (tiny_bundle / "text.onnx.data").write_bytes(data)
    bundle = Bundle.open(tiny_bundle)
    assert set(bundle.load({"vision": "fp32", "audio": "fp32", "head": "fp32"})) == {"vision", "audio", "head"}
    with pytest.raises(BundleError, match=r"text\.onnx\.data was altered"):
        bundle.load({"text": "fp32"})


def test_a_link_that_leads_out(tiny_bundle: Path) -> None:
    shutil.move(tiny_bundle / "head.onnx", tiny_bundle.parent / "head.onnx")
    (tiny_bundle / "head.onnx").symlink_to(tiny_bundle.parent / "head.onnx")
    refused(tiny_bundle, "head.onnx is a link that leads out of the bundle")


def test_a_link_to_the_bundle_itself_is_fine(tiny_bundle: Path) -> None:
    link = tiny_bundle.parent / "link"
    link.symlink_to(tiny_bundle)
    assert len(Bundle.open(link).vocabulary) == 4


@pytest.mark.parametrize("name", ["vocabulary.npz", "tokenizer.json", "vision.onnx"])
def test_a_file_that_is_not_listed(tiny_bundle: Path, name: str) -> None:
    rewrite(tiny_bundle, lambda m: m["files"].pop(name))
    refused(tiny_bundle, name, "list")


@pytest.mark.parametrize("location", ["../outside", "/etc/hostname", "unlisted.data"])
def test_weights_outside_the_listed_files(tiny_bundle: Path, location: str) -> None:
    model = onnx.load(tiny_bundle / "vision.onnx", load_external_data=False)
    tensor = next(t for t in model.graph.initializer if t.external_data)
    next(entry for entry in tensor.external_data if entry.key == "location").value = location
    (tiny_bundle / "vision.onnx").write_bytes(model.SerializeToString())
    relist(tiny_bundle, "vision.onnx")
    refused(tiny_bundle, repr(location), "do not trust")


@pytest.mark.parametrize("content", [b"", b"not onnx at all", b"\x3a\xff\xff\xff\xff\x7f", b"\x3a\x80"])
def test_a_graph_that_is_no_onnx_file(tiny_bundle: Path, content: bytes) -> None:
    (tiny_bundle / "head.onnx").write_bytes(content)
    relist(tiny_bundle, "head.onnx")
    refused(tiny_bundle, "head.onnx is not an ONNX file")


def test_embeddings_of_another_size(tiny_bundle: Path) -> None:
    text = TextEmbeddings.shared(np.eye(2, 16, dtype=np.float32))
    Vocabulary(names=("dog", "other"), embeddings=text).save(tiny_bundle)
    relist(tiny_bundle, "vocabulary.json")
    relist(tiny_bundle, "vocabulary.npz")
    refused(tiny_bundle, "size 16")


def test_a_graph_that_the_bundle_lacks(tiny_bundle: Path) -> None:
    rewrite(tiny_bundle, lambda m: m["graphs"].pop("text"))
    bundle = Bundle.open(tiny_bundle)
    with pytest.raises(BundleError, match="no text graph, only: vision, audio, head"):
        bundle.graph("text")
    with pytest.raises(BundleError, match="no int8 vision graph; its precisions are: fp32"):
        bundle.graph("vision", "int8")
