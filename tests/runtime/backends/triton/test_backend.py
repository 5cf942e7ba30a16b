"""The backend `triton` beside ONNX Runtime: the same answers, in batches of the model, from the bundle's own models."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from support.demo_copies import BUNDLE
from support.runtime.bundles import relist
from support.triton_server import VERSION, TritonServer

from ovavel.runtime.backends import BackendInfo, HeadOutput, open_backend
from ovavel.runtime.backends.triton import open_triton
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.errors import BundleError, DeviceError, UsageError


@pytest.fixture
def bundle() -> Bundle:
    return Bundle.open(BUNDLE)


def info_of(server: TritonServer, bundle: Bundle) -> BackendInfo:
    backend = open_backend(bundle, name="triton", device=server.address)
    backend.close()
    return backend.info


def test_it_answers_as_onnx_runtime_does(server: TritonServer, bundle: Bundle) -> None:
    random = np.random.default_rng(0)
    frames = random.standard_normal((6, 3, 224, 224)).astype(np.float32)
    log_mels = random.standard_normal((3, 1, 128, 204)).astype(np.float32)
    answers = []
    for name, device in (("triton", server.address), ("onnxruntime", "cpu")):
        backend = open_backend(bundle, name=name, device=device, threads=1, precision="fp32")
        backend.warm_up()
        vision, audio = backend.vision(frames), backend.audio(log_mels)
        segments, texts = audio[[0, 1, 2, 0, 1, 2]].reshape(2, 3, -1), bundle.vocabulary.embeddings[:5]
        head = backend.head(segments, vision.reshape(2, 3, -1), texts)
        assert isinstance(head, HeadOutput)
        answers.append((vision, audio, *head))
        backend.close()
        backend.close()
    for ours, theirs in zip(*answers, strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == np.float32
        assert ours.flags.writeable
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert server.batches[3:] == [("vision", 4), ("vision", 2), ("audio", 3), ("head", 2)], "4 is the model's limit"


def test_it_embeds_texts_where_the_server_has_their_model(bundle: Bundle, tmp_path: Path) -> None:
    from ovavel.runtime.cli import main

    assert main(["bundle", "triton", "--bundle", str(BUNDLE), "--out", str(tmp_path / "out"), "--graphs", "text"]) == 0
    server = TritonServer(tmp_path / "out")
    try:
        backend = open_triton(bundle, device=server.address, graphs=("text",))
        tokens = bundle.tokenizer("vision").encode(bundle.vocabulary.names[:3])
        np.testing.assert_allclose(backend.text(tokens, "vision"), bundle.vocabulary.embeddings.vision[:3], atol=1e-5)
        with pytest.raises(UsageError, match="was not opened with the vision graph"):
            backend.vision(np.zeros((1, 3, 224, 224), np.float32))
        backend.close()
    finally:
        server.stop()


def test_it_says_what_runs(server: TritonServer, bundle: Bundle) -> None:
    info = info_of(server, bundle)
    assert (info.engine, info.device, info.provider) == ("triton", server.address, "onnxruntime on KIND_CPU")
    assert dict(info.precision) == {"vision": "fp32", "audio": "fp32", "head": "fp32"}
    assert (info.batch, info.concurrent) == (4, True)
    assert info.versions["triton"] == VERSION


def test_another_configuration_is_another_engine(server: TritonServer, bundle: Bundle) -> None:
    """A gate is for what was compared: other instances or accelerators may compute otherwise."""
    before = info_of(server, bundle)
    assert info_of(server, bundle).versions == before.versions
    server.models["audio"].config.instance_group[0].count = 2
    assert info_of(server, bundle).versions["models"] != before.versions["models"]


@pytest.mark.parametrize(
    "address",
    ["auto", "cpu", "cuda:0", "http://host:8000", "grpc://", "grpc://host:0", "grpc://host:99999", "grpc://a:1/v2"],
)
def test_what_is_no_address_is_refused(bundle: Bundle, address: str) -> None:
    with pytest.raises(UsageError, match="needs the address of its server: --device grpc://HOST:PORT"):
        open_backend(bundle, name="triton", device=address)


def test_a_password_in_an_address_is_not_shown(bundle: Bundle) -> None:
    with pytest.raises(UsageError) as caught:
        open_backend(bundle, name="triton", device="grpc://me:secret@host:8001")
    assert "secret" not in str(caught.value)


def test_another_precision_is_refused(server: TritonServer, bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"the model 'vision' of .* is in fp32, not in fp16"):
        open_backend(bundle, name="triton", device=server.address, precision="fp16")


def test_another_bundle_is_refused(server: TritonServer, tmp_path: Path) -> None:
    folder = shutil.copytree(BUNDLE, tmp_path / "bundle")
    weights = folder / "audio.onnx.data"
    weights.write_bytes(weights.read_bytes()[::-1])
    relist(folder, weights.name)
    with pytest.raises(BundleError, match=r"is not the fp32 audio graph of the bundle .* name the bundle that"):
        open_backend(Bundle.open(folder), name="triton", device=server.address)


def test_another_vocabulary_is_the_same_bundle(server: TritonServer, tmp_path: Path) -> None:
    """Its embeddings are an input of the head."""
    bundle = Bundle.open(shutil.copytree(BUNDLE, tmp_path / "bundle"))
    changed = bundle.save_vocabulary(bundle.vocabulary.removed(bundle.vocabulary.names[:1]))
    backend = open_backend(changed, name="triton", device=server.address)
    assert backend.head(*(np.ones((1, 10, 64), np.float32),) * 2, changed.vocabulary.embeddings).score.shape[2] == len(
        changed.vocabulary.names
    )
    backend.close()


def test_many_names_are_no_limit(server: TritonServer, bundle: Bundle) -> None:
    """gRPC's own would be 4 MB."""
    names, segments = 40_000, np.ones((1, 10, 64), np.float32)
    backend = open_backend(bundle, name="triton", device=server.address)
    answer = backend.head(segments, segments, TextEmbeddings.shared(np.ones((names, 64), np.float32)))
    assert answer.score.shape == (1, 10, names)
    backend.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.parameters.clear(), "was not written by ovavel"),
        (lambda config: config.input[0].dims.append(1), r"has the input frames TYPE_FP32 \[3, 224, 224, 1\]"),
        (lambda config: config.output.pop(), "has the output nothing, and the graph has embedding"),
        (lambda config: config.ClearField("max_batch_size"), "has the max_batch_size 0, and at least 1 is needed"),
    ],
)
def test_a_wrong_config_is_refused(server: TritonServer, bundle: Bundle, change, message: str) -> None:  # type: ignore[no-untyped-def]
    change(server.models["vision"].config)
    with pytest.raises(BundleError, match=message):
        open_backend(bundle, name="triton", device=server.address)


def test_a_missing_model_is_reported(server: TritonServer, bundle: Bundle) -> None:
    del server.models["head"]
    with pytest.raises(DeviceError, match="has no model 'head' that is ready; see its log"):
        open_backend(bundle, name="triton", device=server.address)


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((1, 3, 100, 100), np.float32),
        np.zeros((1, 3, 224, 224), np.float64),
        np.zeros((0, 3, 224, 224), np.float32),
        np.zeros((3, 224, 224), np.float32),
    ],
    ids=str,
)
def test_wrong_inputs_are_refused_before_they_are_sent(
    server: TritonServer, bundle: Bundle, frames: np.ndarray
) -> None:
    backend = open_backend(bundle, name="triton", device=server.address)
    with pytest.raises(UsageError, match="the vision graph does not take"):
        backend.vision(frames)
    assert not server.batches
    backend.close()
    with pytest.raises(UsageError, match="it is closed"):
        backend.vision(frames)
