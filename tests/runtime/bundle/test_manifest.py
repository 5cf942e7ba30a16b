"""Every way in which a manifest can be wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.runtime.bundles import refused, rewrite

from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle.bundle import Bundle, file_entry
from ovavel.runtime.bundle.manifest import FORMAT_VERSION, Fusion
from ovavel.runtime.errors import BundleError
from ovavel.runtime.pipeline.encoder import Encoder
from ovavel.runtime.pipeline.preprocess import FRAME_SIZE, MEL_BINS, MEL_FRAMES, PREPARATIONS, preparations
from ovavel.runtime.types import RATE_HZ, WINDOW_S


def test_preparations_have_the_parameters_of_the_runtime() -> None:
    frame, sound = (PREPARATIONS[name].parameters for name in ("clip-frame", "kaldi-log-mel"))
    assert (frame["frame_px"], sound["mel_bins"], sound["mel_frames"]) == (FRAME_SIZE, MEL_BINS, MEL_FRAMES)
    assert (sound["rate_hz"], sound["window_s"]) == (RATE_HZ, WINDOW_S)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json",
        b"[]",
        b"{}",
        b'{"format_version": "1"}',
        b'{"format_version": 1}',
        b"\xff\xfe\x00",
        b"[" * 9999,
        b"[" * 3_000_000,
        b'{"format_version": ' + b"[" * 3_000_000,
        b'{"a":' * 700_000,
    ],
    ids=lambda content: f"{content[:12]!r} of {len(content)}",
)
def test_a_file_that_is_no_manifest(tiny_bundle: Path, content: bytes) -> None:
    (tiny_bundle / "manifest.json").write_bytes(content)
    refused(tiny_bundle, str(tiny_bundle / "manifest.json"))


def test_a_manifest_with_a_duplicate_field(tiny_bundle: Path) -> None:
    """Readers differ in which of the two counts."""
    text = (tiny_bundle / "manifest.json").read_text()
    (tiny_bundle / "manifest.json").write_text(text.replace('"format_version"', '"opset": 1, "format_version"', 1))
    refused(tiny_bundle, "'opset' occurs twice")


def test_a_truncated_manifest(tiny_bundle: Path) -> None:
    os.truncate(tiny_bundle / "manifest.json", 700)
    refused(tiny_bundle, "manifest.json")


@pytest.mark.parametrize(
    ("version", "fix"),
    [
        (FORMAT_VERSION + 1, "update ovavel"),
        (99, "update ovavel"),
        (4, "update ovavel"),
        (0, "export the bundle again"),
    ],
)
def test_an_unknown_version(tiny_bundle: Path, version: int, fix: str) -> None:
    rewrite(tiny_bundle, lambda m: m.update(format_version=version, something_new=[]))
    refused(tiny_bundle, f"format version {version}", fix)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(extra=1),
        lambda m: m["model"].update(extra=1),
        lambda m: m.pop("opset"),
        lambda m: m["encoders"]["vision"].update(embedding_size="32"),
        lambda m: m["encoders"].pop("audio"),
        lambda m: m["files"].update({"head.onnx": {"sha256": "XYZ", "bytes": 1}}),
        lambda m: m["graphs"].update(smell={"fp32": "vision.onnx"}),
    ],
)
def test_a_manifest_with_an_invalid_field(tiny_bundle: Path, change: Callable[[dict], object]) -> None:
    rewrite(tiny_bundle, change)
    refused(tiny_bundle, "manifest.json is damaged")


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "/etc/hostname",
        "a/../../outside",
        "./head.onnx",
        "a//b",
        "",
        "manifest.json",
        "a\\b",
        "a\0b",
        "..",
    ],
)
def test_a_path_out_of_the_bundle(tiny_bundle: Path, name: str) -> None:
    (tiny_bundle.parent / "outside").write_bytes(b"secret")
    entry = file_entry(tiny_bundle.parent / "outside")
    rewrite(tiny_bundle, lambda m: m["files"].update({name: {"sha256": entry.sha256, "bytes": entry.bytes}}))
    refused(tiny_bundle, repr(name), "points outside the bundle")


def test_a_fusion_that_the_runtime_does_not_support(tiny_bundle: Path) -> None:
    rewrite(tiny_bundle, lambda m: m["fusion"].update(vision_scale=2.0))
    refused(tiny_bundle, "vision_scale = 2.0")
    assert Fusion().vision_scale != 2.0


@pytest.mark.parametrize(
    "change", [{"preprocessing": "smell"}, {"preprocessing": "clip-frame"}, {"shape": [1, 64, 204]}]
)
def test_an_encoder_with_another_preprocessing_is_refused(tiny_bundle: Path, change: dict) -> None:
    """Such a bundle is whole, and its vocabulary can be read; what cannot be done is to encode."""
    rewrite(tiny_bundle, lambda m: m["encoders"]["audio"].update(change))
    with pytest.raises(BundleError, match=r"smell|clip-frame|shape"):
        preparations(Bundle.open(tiny_bundle).manifest.encoders)
    backend = open_backend(Bundle.open(tiny_bundle), device="cpu", graphs=("head",))
    with pytest.raises(BundleError, match="export it again"):
        Encoder(backend)


def test_unsupported_parameters_of_a_preprocessing(tiny_bundle: Path) -> None:
    rewrite(tiny_bundle, lambda m: m["encoders"]["audio"]["parameters"].update(mel_bins=64, hop=3))
    with pytest.raises(BundleError, match="hop = 3, not None, mel_bins = 64, not 128"):
        preparations(Bundle.open(tiny_bundle).manifest.encoders)


def test_one_text_encoder_has_one_size(tiny_bundle: Path) -> None:
    rewrite(tiny_bundle, lambda m: m["encoders"]["audio"].update(embedding_size=16))
    refused(tiny_bundle, "one text encoder", "damaged")
