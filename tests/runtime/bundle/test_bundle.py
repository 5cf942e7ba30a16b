"""Every way in which a bundle can be wrong, and what happens when a change of its vocabulary is cut short."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle import bundle as bundle_module
from ovavel.runtime.bundle import hashed
from ovavel.runtime.bundle.bundle import Bundle, file_entry
from ovavel.runtime.bundle.manifest import FORMAT_VERSION, Fusion
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.cli import main
from ovavel.runtime.errors import BundleError, DeviceError, OutputError, UsageError
from ovavel.runtime.pipeline.encoder import Encoder
from ovavel.runtime.pipeline.preprocess import FRAME_SIZE, MEL_BINS, MEL_FRAMES, PREPARATIONS, preparations
from ovavel.runtime.types import RATE_HZ, WINDOW_S


def rewrite(folder: Path, change: Callable[[dict], object]) -> None:
    """Change the manifest as text, as somebody with an editor would."""
    content = json.loads((folder / "manifest.json").read_text())
    change(content)
    (folder / "manifest.json").write_text(json.dumps(content))


def relist(folder: Path, name: str) -> None:
    """Put the true size and hash of `name` into the manifest."""
    entry = file_entry(folder / name)
    rewrite(folder, lambda m: m["files"].update({name: {"sha256": entry.sha256, "bytes": entry.bytes}}))


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder).check()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_an_exported_bundle_opens(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    assert bundle.vocabulary.names == ("dog barking", "race car", "bird chirping", "other")
    assert bundle.vocabulary.background == "other"
    assert bundle.graph("vision") == tiny_bundle / "vision.onnx"
    assert bundle.graph("head", "fp32") == tiny_bundle / "head.onnx"
    assert bundle.tokenizer("vision").encode(["dog"]).shape == (1, 77)
    assert bundle.sha256 == file_entry(tiny_bundle / "manifest.json").sha256
    assert Bundle.open(tiny_bundle).sha256 == bundle.sha256


def test_its_parameters_are_those_the_runtime_works_with() -> None:
    frame, sound = (PREPARATIONS[name].parameters for name in ("clip-frame", "kaldi-log-mel"))
    assert (frame["frame_px"], sound["mel_bins"], sound["mel_frames"]) == (FRAME_SIZE, MEL_BINS, MEL_FRAMES)
    assert (sound["rate_hz"], sound["window_s"]) == (RATE_HZ, WINDOW_S)


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


def test_a_folder_in_the_place_of_a_file(tiny_bundle: Path) -> None:
    (tiny_bundle / "head.onnx").unlink()
    (tiny_bundle / "head.onnx").mkdir()
    refused(tiny_bundle, "head.onnx")


def test_a_pipe_in_the_place_of_a_file_does_not_hang(tiny_bundle: Path) -> None:
    (tiny_bundle / "head.onnx").unlink()
    os.mkfifo(tiny_bundle / "head.onnx")
    refused(tiny_bundle, "head.onnx")


def test_not_a_bundle(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", "does not exist", "ovavel bundle export")
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", "is a file")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "has no manifest.json")


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
def test_a_manifest_that_is_none(tiny_bundle: Path, content: bytes) -> None:
    (tiny_bundle / "manifest.json").write_bytes(content)
    refused(tiny_bundle, str(tiny_bundle / "manifest.json"))


def test_a_manifest_that_says_a_thing_twice(tiny_bundle: Path) -> None:
    """Readers differ in which of the two counts."""
    text = (tiny_bundle / "manifest.json").read_text()
    (tiny_bundle / "manifest.json").write_text(text.replace('"format_version"', '"opset": 1, "format_version"', 1))
    refused(tiny_bundle, "'opset' occurs twice")


def test_what_nobody_opens_is_not_hashed(tiny_bundle: Path) -> None:
    data = bytearray((tiny_bundle / "text.onnx.data").read_bytes())
    data[100] ^= 1
    (tiny_bundle / "text.onnx.data").write_bytes(data)
    bundle = Bundle.open(tiny_bundle)
    assert set(bundle.load({"vision": "fp32", "audio": "fp32", "head": "fp32"})) == {"vision", "audio", "head"}
    with pytest.raises(BundleError, match=r"text\.onnx\.data was altered"):
        bundle.load({"text": "fp32"})


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
def test_a_manifest_with_a_strange_field(tiny_bundle: Path, change: Callable[[dict], object]) -> None:
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
def test_a_path_that_climbs_out(tiny_bundle: Path, name: str) -> None:
    (tiny_bundle.parent / "outside").write_bytes(b"secret")
    entry = file_entry(tiny_bundle.parent / "outside")
    rewrite(tiny_bundle, lambda m: m["files"].update({name: {"sha256": entry.sha256, "bytes": entry.bytes}}))
    refused(tiny_bundle, repr(name), "points outside the bundle")


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


def test_a_fusion_the_runtime_does_not_do(tiny_bundle: Path) -> None:
    rewrite(tiny_bundle, lambda m: m["fusion"].update(vision_scale=2.0))
    refused(tiny_bundle, "vision_scale = 2.0")
    assert Fusion().vision_scale != 2.0


@pytest.mark.parametrize(
    "change", [{"preprocessing": "smell"}, {"preprocessing": "clip-frame"}, {"shape": [1, 64, 204]}]
)
def test_an_encoder_that_is_prepared_for_in_another_way_is_refused(tiny_bundle: Path, change: dict) -> None:
    """Such a bundle is whole, and its vocabulary can be read; what cannot be done is to encode."""
    rewrite(tiny_bundle, lambda m: m["encoders"]["audio"].update(change))
    with pytest.raises(BundleError, match=r"smell|clip-frame|shape"):
        preparations(Bundle.open(tiny_bundle).manifest.encoders)
    backend = open_backend(Bundle.open(tiny_bundle), device="cpu", graphs=("head",))
    with pytest.raises(BundleError, match="export it again"):
        Encoder(backend)


def test_parameters_of_a_preprocessing_that_the_runtime_does_not_do(tiny_bundle: Path) -> None:
    rewrite(tiny_bundle, lambda m: m["encoders"]["audio"]["parameters"].update(mel_bins=64, hop=3))
    with pytest.raises(BundleError, match="hop = 3, not None, mel_bins = 64, not 128"):
        preparations(Bundle.open(tiny_bundle).manifest.encoders)


def test_one_text_encoder_has_one_size(tiny_bundle: Path) -> None:
    rewrite(tiny_bundle, lambda m: m["encoders"]["audio"].update(embedding_size=16))
    refused(tiny_bundle, "one text encoder", "damaged")


def test_a_change_of_the_manifest_reads_no_graph_again(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(tiny_bundle)
    precision = dict.fromkeys(("vision", "audio", "head"), "fp32")
    before = bundle.graphs_sha256(precision)

    def no_more(*_: object) -> None:
        raise AssertionError("a graph was read again")

    monkeypatch.setattr(hashed, "external_data", no_more)
    assert bundle.graphs_sha256(precision) == before
    saved = bundle.save_gates(()).save_vocabulary(larger(bundle))
    assert saved.graphs_sha256(precision) == before


def test_embeddings_of_another_size(tiny_bundle: Path) -> None:
    text = TextEmbeddings.shared(np.eye(2, 16, dtype=np.float32))
    Vocabulary(names=("dog", "other"), embeddings=text).save(tiny_bundle)
    relist(tiny_bundle, "vocabulary.json")
    relist(tiny_bundle, "vocabulary.npz")
    refused(tiny_bundle, "size 16")


def test_a_graph_the_bundle_does_not_hold(tiny_bundle: Path) -> None:
    rewrite(tiny_bundle, lambda m: m["graphs"].pop("text"))
    bundle = Bundle.open(tiny_bundle)
    with pytest.raises(BundleError, match="no text graph, only: vision, audio, head"):
        bundle.graph("text")
    with pytest.raises(BundleError, match="no int8 vision graph; its precisions are: fp32"):
        bundle.graph("vision", "int8")


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the CPU have just these features."""
    return lambda *features: monkeypatch.setattr(bundle_module, "cpu_features", lambda: features)


def with_variants(folder: Path, engine: str) -> Bundle:
    """A bundle that has vision in fp32, int8 and fp16, of which `engine` runs int8 by default."""

    def change(manifest: dict) -> None:
        manifest["graphs"]["vision"].update(int8="audio.onnx", fp16="text.onnx")
        manifest["precision"] = {engine: {"vision": "int8"}}

    rewrite(folder, change)
    return Bundle.open(folder)


def test_an_engine_has_a_precision_of_its_own(tiny_bundle: Path, cpu: Callable[..., None]) -> None:
    cpu("avx512_vnni")
    bundle = with_variants(tiny_bundle, "onnxruntime-cpu")
    assert bundle.graph("vision") == tiny_bundle / "audio.onnx"
    assert bundle.graph("vision", "fp32") == tiny_bundle / "vision.onnx"
    assert bundle.graph("vision", engine="onnxruntime-cuda") == tiny_bundle / "vision.onnx"
    assert bundle.precision("vision", "onnxruntime-cpu") == "int8"
    assert bundle.precision("vision", "onnxruntime-cuda", "fp16") == "fp16"
    assert bundle.graph("vision", "fp16") == tiny_bundle / "text.onnx"
    assert bundle.precision("vision", "an engine of somebody else's") == "fp32"


def test_text_and_head_run_in_fp32_whatever_vision_runs_in(tiny_bundle: Path) -> None:
    bundle = with_variants(tiny_bundle, "onnxruntime-cpu")
    assert [bundle.precision(name, "onnxruntime-cpu", "fp16") for name in ("vision", "text", "head")] == [
        "fp16",
        "fp32",
        "fp32",
    ]
    with pytest.raises(BundleError, match="no fp16 audio graph; its precisions are: fp32"):
        bundle.precision("audio", "onnxruntime-cpu", "fp16")


def test_the_file_of_a_precision_is_there_for_every_engine(tiny_bundle: Path) -> None:
    rewrite(tiny_bundle, lambda m: m["graphs"]["vision"].update(bf16="audio.onnx"))  # which no CPU runs
    assert Bundle.open(tiny_bundle).graph("vision", "bf16") == tiny_bundle / "audio.onnx"


def test_a_precision_the_engine_does_not_run_is_refused(tiny_bundle: Path) -> None:
    bundle = with_variants(tiny_bundle, "onnxruntime-cpu")
    with pytest.raises(UsageError, match="onnxruntime-cuda does not run int8; it runs"):
        bundle.precision("vision", "onnxruntime-cuda", "int8")


@pytest.mark.parametrize("hidden", [(), ("avx2", "avx512f"), ("asimd",)])
def test_what_the_cpu_saturates_never_runs(
    tiny_bundle: Path, hidden: tuple[str, ...], cpu: Callable[..., None]
) -> None:
    bundle = with_variants(tiny_bundle, "onnxruntime-cpu")
    cpu(*hidden)
    assert bundle.precision("vision", "onnxruntime-cpu") == "fp32"
    with pytest.raises(DeviceError, match=r"int8 .* avx512_vnni or .* --precision \(fp32, fp16\), or .* --cpu any"):
        bundle.precision("vision", "onnxruntime-cpu", "int8")
    for feature in ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"):
        cpu(*hidden, feature)
        assert bundle.precision("vision", "onnxruntime-cpu") == "int8"
    rewrite(tiny_bundle, lambda m: m["graphs"]["vision"].pop("fp32"))
    rewrite(tiny_bundle, lambda m: m["graphs"]["vision"].pop("fp16"))
    cpu(*hidden)
    with pytest.raises(DeviceError, match="To run it here, export the bundle again with --cpu any"):
        Bundle.open(tiny_bundle).precision("vision", "onnxruntime-cpu")


def test_eight_bits_run_in_the_form_that_is_exact_here(tiny_bundle: Path, cpu: Callable[..., None]) -> None:
    forms = {"int8": "audio.onnx", "int8-any": "text.onnx", "int16": "head.onnx", "int16-any": "vision.onnx"}

    def change(manifest: dict) -> None:
        manifest["graphs"]["vision"].update(forms)
        manifest["precision"] = {"onnxruntime-cpu": {"vision": "int8"}}
        manifest["exact_on"] = {"int8": ["a_new_one"], "int8-any": ["any"], "int16": ["a_new_one"]}

    rewrite(tiny_bundle, change)
    bundle = Bundle.open(tiny_bundle)
    asked = (None, "int8", "int8-any", "int16", "int16-any")
    cpu("avx2", "avx512_vnni")  # the manifest knows better which ones are needed
    inexact = [bundle.precision("vision", "onnxruntime-cpu", each) for each in asked]
    cpu("a_new_one")
    exact = [bundle.precision("vision", "onnxruntime-cpu", each) for each in asked]
    assert inexact == ["int8-any", "int8-any", "int8-any", "int16-any", "int16-any"]
    assert exact == ["int8", "int8", "int8-any", "int16", "int16-any"]


def test_int16_is_no_default_where_it_is_slower_than_fp32(tiny_bundle: Path, cpu: Callable[..., None]) -> None:
    def change(manifest: dict) -> None:
        manifest["graphs"]["vision"]["int16-any"] = "audio.onnx"
        manifest["precision"] = {"onnxruntime-cpu": {"vision": "int16-any"}}

    rewrite(tiny_bundle, change)
    bundle = Bundle.open(tiny_bundle)
    cpu("avx2")
    assert bundle.precision("vision", "onnxruntime-cpu") == "fp32"
    assert bundle.precision("vision", "onnxruntime-cpu", "int16") == "int16-any"
    cpu("avx2", "avx_vnni")
    assert bundle.precision("vision", "onnxruntime-cpu") == "int16-any"


def test_static_int8_is_as_exact_on_cpus_and_always_on_gpus(tiny_bundle: Path, cpu: Callable[..., None]) -> None:
    rewrite(tiny_bundle, lambda m: m["graphs"]["vision"].update({"int8-static": "audio.onnx"}))
    bundle = Bundle.open(tiny_bundle)
    cpu("avx2")
    assert bundle.precision("vision", "tensorrt", "int8-static") == "int8-static"
    with pytest.raises(DeviceError, match="int8-static of the bundle"):
        bundle.precision("vision", "openvino", "int8-static")


def larger(bundle: Bundle) -> Vocabulary:
    return bundle.vocabulary.added(
        ["glass breaking"],
        TextEmbeddings.shared(np.eye(1, bundle.manifest.encoders.sizes[0], dtype=np.float32)),
    )


def test_a_saved_vocabulary_is_read_back(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    saved = bundle.save_vocabulary(larger(bundle))
    again = Bundle.open(tiny_bundle)
    assert again.vocabulary.names == saved.vocabulary.names
    assert again.sha256 == saved.sha256 != bundle.sha256
    assert not [
        file.name for file in tiny_bundle.iterdir() if file.name not in {*again.manifest.files, "manifest.json"}
    ]


def test_a_vocabulary_of_another_size_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(UsageError, match="size 8"):
        Bundle.open(tiny_bundle).save_vocabulary(
            Vocabulary(names=("dog", "other"), embeddings=TextEmbeddings.shared(np.eye(2, 8, dtype=np.float32)))
        )


def test_a_change_by_somebody_else_is_noticed(tiny_bundle: Path) -> None:
    first, second = Bundle.open(tiny_bundle), Bundle.open(tiny_bundle)
    first.save_vocabulary(larger(first))
    with pytest.raises(BundleError, match="somebody else"):
        second.save_vocabulary(second.vocabulary.removed(["race car"]))


_STEPS = ["write 0", "write 1", "write 2", "move 0", "move 1", "move 2", "never"]


def _save_and_die(folder: Path, step: str) -> None:
    """Save a larger vocabulary and kill this process right before `step`."""
    kind, _, number = step.partition(" ")
    left = int(number or 0)

    def dying(action: Callable[..., object]) -> Callable[..., object]:
        def run(*arguments: object) -> object:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return action(*arguments)

        return run

    bundle = Bundle.open(folder)
    if kind == "write":
        bundle_module.atomic_write = dying(bundle_module.atomic_write)  # type: ignore[assignment]
    elif kind == "move":

        def move(root: Path) -> None:
            Path.replace = dying(Path.replace)  # type: ignore[method-assign,assignment]
            original(root)

        original = bundle_module.move_in_place
        bundle_module.move_in_place = move
    bundle.save_vocabulary(larger(bundle))


@pytest.mark.parametrize("step", _STEPS)
def test_killed_at_any_point_the_vocabulary_is_the_old_or_the_new_one(tiny_bundle: Path, step: str) -> None:
    old = Bundle.open(tiny_bundle)
    child = multiprocessing.get_context("fork").Process(target=_save_and_die, args=(tiny_bundle, step))
    child.start()
    child.join(100)
    assert child.exitcode == (0 if step == "never" else -signal.SIGKILL)
    found = Bundle.open(tiny_bundle)
    expected = old.vocabulary if step.startswith("write") or step == "move 0" else larger(old)
    assert found.vocabulary.version == expected.version
    again = found.save_vocabulary(found.vocabulary.removed(["race car"]))
    assert Bundle.open(tiny_bundle).sha256 == again.sha256


def test_opening_moves_nothing_in_a_whole_bundle(tiny_bundle: Path) -> None:
    """Whoever packed a folder may have put a second manifest into it."""
    old = Bundle.open(tiny_bundle)
    changed = old.save_vocabulary(larger(old))
    for name in ("vocabulary.json", "vocabulary.npz", "manifest.json"):
        shutil.move(tiny_bundle / name, tiny_bundle / f"{name}.new")
    old.vocabulary.save(tiny_bundle)
    (tiny_bundle / "manifest.json").write_bytes(old.manifest.encode())
    before = {file.name: file.read_bytes() for file in tiny_bundle.iterdir()}
    assert Bundle.open(tiny_bundle).sha256 == old.sha256 != changed.sha256
    assert {file.name: file.read_bytes() for file in tiny_bundle.iterdir()} == before
    shutil.move(tiny_bundle / "vocabulary.json.new", tiny_bundle / "vocabulary.json")  # it was cut short here
    assert Bundle.open(tiny_bundle).sha256 == changed.sha256


def test_a_second_manifest_completes_nothing_but_a_vocabulary(tiny_bundle: Path) -> None:
    old = Bundle.open(tiny_bundle)
    changed = old.save_vocabulary(larger(old))
    (tiny_bundle / "manifest.json").write_bytes(old.manifest.encode())
    model = msgspec.structs.replace(changed.manifest.model, licence="none at all")
    other = msgspec.structs.replace(changed.manifest, model=model)
    (tiny_bundle / "manifest.json.new").write_bytes(other.encode())
    refused(tiny_bundle, "vocabulary.json has")
    assert (tiny_bundle / "manifest.json.new").exists()


def test_a_full_disk_leaves_the_old_vocabulary(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes, **_: object) -> None:
        if path.name.startswith("manifest"):
            raise OutputError("disk full")
        path.write_bytes(data)

    bundle = Bundle.open(tiny_bundle)
    monkeypatch.setattr(bundle_module, "atomic_write", full)
    with pytest.raises(OutputError):
        bundle.save_vocabulary(larger(bundle))
    assert Bundle.open(tiny_bundle).sha256 == bundle.sha256
    assert not list(tiny_bundle.glob("*.new"))


def test_vocab_commands_go_through_the_text_graph(
    tiny_bundle: Path, exported_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["vocab", "remove", "--bundle", str(tiny_bundle), "race car"]) == 0
    assert "2 names and the background" in capsys.readouterr().out
    assert main(["vocab", "add", "--bundle", str(tiny_bundle), "glass breaking", "race car"]) == 0
    reported = capsys.readouterr()
    assert "4 names and the background" in reported.out
    assert reported.err == ""
    assert main(["vocab", "list", "--bundle", str(tiny_bundle)]) == 0
    names = capsys.readouterr().out.splitlines()[-5:]
    assert names == ["dog barking", "bird chirping", "glass breaking", "race car", "other"]
    added, exported = Bundle.open(tiny_bundle).vocabulary, Bundle.open(exported_bundle).vocabulary
    np.testing.assert_allclose(
        added.embeddings.vision[added.index("race car")],
        exported.embeddings.vision[exported.index("race car")],
        atol=2e-5,
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["add", " dog barking"], "already has 'dog barking'"),
        (["add", "glass", "glass"], "is given twice"),
        (["add", "Dog Barking"], "already has 'dog barking'; leave 'Dog Barking' out"),
        (["add", "glass", "other"], "is the background"),
        (["add", ""], "is empty"),
        (["add", "glass\u202e"], "holds U+202E (RIGHT-TO-LEFT OVERRIDE)"),
        (["add", "word " * 80], "80 tokens"),
        (["remove", "bird chriping"], "did you mean 'bird chirping'?"),
        (["remove", "dog barking", "other"], "cannot be removed"),
    ],
)
def test_refused_names_change_nothing(
    tiny_bundle: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = file_entry(tiny_bundle / "manifest.json")
    action, *names = arguments
    assert main(["vocab", action, "--bundle", str(tiny_bundle), *names]) == 2
    assert re.search(re.escape(words), capsys.readouterr().err)
    assert file_entry(tiny_bundle / "manifest.json") == before
