"""`ovavel bundle triton`: what is written, in which shape, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from google.protobuf import text_format
from support.demo_copies import BUNDLE
from support.triton_server import Model, TritonServer
from tritonclient.grpc import model_config_pb2 as schema

from ovavel.runtime.backends.triton.models import repository_precision
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.cli import main
from ovavel.runtime.errors import BundleError, UsageError


def write(out: Path, *flags: str, bundle: Path = BUNDLE) -> int:
    return main(["bundle", "triton", "--bundle", str(bundle), "--out", str(out), *flags])


def config(repository: Path, model: str) -> schema.ModelConfig:
    return text_format.Parse((repository / model / "config.pbtxt").read_text("utf-8"), schema.ModelConfig())


def test_each_graph_is_a_model_with_its_weights(repository: Path) -> None:
    files = {str(path.relative_to(repository)): path for path in repository.rglob("*") if path.is_file()}
    assert sorted(files) == sorted(
        f"{name}/{file}"
        for name in ("vision", "audio", "head")
        for file in ("config.pbtxt", "1/model.onnx", f"1/{name}.onnx.data")
    )
    for name in ("vision", "audio", "head"):
        assert files[f"{name}/1/model.onnx"].read_bytes() == (BUNDLE / f"{name}.onnx").read_bytes()
        assert files[f"{name}/1/{name}.onnx.data"].read_bytes() == (BUNDLE / f"{name}.onnx.data").read_bytes()


def test_the_encoders_are_batched_and_the_head_is_not(repository: Path) -> None:
    vision, audio, head = (config(repository, name) for name in ("vision", "audio", "head"))
    assert (vision.max_batch_size, audio.max_batch_size, head.max_batch_size) == (4, 4, 0)
    assert vision.HasField("dynamic_batching") and audio.HasField("dynamic_batching")
    assert not head.HasField("dynamic_batching")
    assert [list(each.dims) for each in (*vision.input, *audio.input)] == [[3, 224, 224], [1, 128, 204]]
    assert {each.name: list(each.dims) for each in head.input} == {
        "audio": [-1, -1, 64],
        "vision": [-1, -1, 64],
        "audio_text": [-1, 64],
        "vision_text": [-1, 64],
    }
    assert [list(each.dims) for each in head.output] == [[-1, -1, -1]] * 3


def test_it_says_what_it_is_of(repository: Path) -> None:
    bundle = Bundle.open(BUNDLE)
    parameters = {key: each.string_value for key, each in config(repository, "vision").parameters.items()}
    assert parameters["ovavel_bundle_sha256"] == bundle.sha256
    assert parameters["ovavel_licence"] == bundle.manifest.model.licence
    assert parameters["ovavel_precision"] == "fp32"


def test_on_a_gpu_fp32_is_fp32(tmp_path: Path) -> None:
    """The provider's own default is TF32, which the comparison with PyTorch would refuse."""
    assert write(tmp_path / "out", "--instances", "2", "--graphs", "vision", "head", "text") == 0
    vision, head, text = (config(tmp_path / "out", name) for name in ("vision", "head", "text"))
    assert [(each.kind, each.count) for each in vision.instance_group] == [(schema.ModelInstanceGroup.KIND_GPU, 2)]
    (accelerator,) = vision.optimization.execution_accelerators.gpu_execution_accelerator
    assert (accelerator.name, dict(accelerator.parameters)) == ("cuda", {"use_tf32": "0"})
    assert [each.kind for each in head.instance_group] == [schema.ModelInstanceGroup.KIND_CPU]
    assert [(each.name, each.data_type, list(each.dims)) for each in text.input] == [
        ("tokens", schema.TYPE_INT64, [77])
    ]
    TritonServer(tmp_path / "out").stop()  # loads all of them


def test_an_older_repository_is_replaced_only_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert write(out) == 0, "an empty folder"
    before = (out / "vision" / "config.pbtxt").read_text()
    assert write(out, "--max-batch", "2") == 2
    assert "is not empty" in capsys.readouterr().err
    assert (out / "vision" / "config.pbtxt").read_text() == before
    assert write(out, "--max-batch", "2", "--overwrite") == 0
    assert config(out, "vision").max_batch_size == 2
    (out / "another").mkdir()
    assert write(out, "--overwrite") == 2
    assert "as it has 'another'" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert write(tmp_path / "file", "--overwrite") == 2
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "out"], "nothing is left beside it"


def test_an_altered_bundle_is_refused_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = shutil.copytree(BUNDLE, tmp_path / "bundle")
    weights = bundle / "head.onnx.data"
    weights.write_bytes(bytes([weights.read_bytes()[0] ^ 1]) + weights.read_bytes()[1:])
    assert write(tmp_path / "out", bundle=bundle) == 1
    assert "head.onnx.data was altered" in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["bundle"]


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ovavel.runtime.backends.triton.repository.shutil.copyfile", full)
    assert write(tmp_path / "out") == 1
    assert not list(tmp_path.iterdir())


def test_precisions_are_those_that_any_server_computes_exactly(tmp_path: Path) -> None:
    folder = shutil.copytree(BUNDLE, tmp_path / "bundle")
    manifest = json.loads((folder / "manifest.json").read_text())
    for graph in ("vision", "audio"):
        manifest["graphs"][graph] |= dict.fromkeys(("int8", "int8-any", "fp16"), f"{graph}.onnx")
    manifest["precision"]["onnxruntime-cuda"]["vision"] = "fp16"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    bundle = Bundle.open(folder)
    chosen = {
        (graph, processor, asked): repository_precision(bundle, graph, processor, asked)
        for graph in ("vision", "head")
        for processor, asked in (("gpu", None), ("gpu", "fp16"), ("cpu", None), ("cpu", "int8"))
    }
    assert [each for (graph, *_), each in chosen.items() if graph == "vision"] == ["fp16", "fp16", "fp32", "int8-any"]
    assert {each for (graph, *_), each in chosen.items() if graph == "head"} == {"fp32"}
    manifest["graphs"]["audio"]["int8-any-pooled"] = "audio.onnx"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    pooled = Bundle.open(folder)
    assert [repository_precision(pooled, graph, "cpu", "int8-pooled") for graph in ("vision", "audio", "head")] == [
        "int8-any",
        "int8-any-pooled",
        "fp32",
    ]
    with pytest.raises(UsageError, match="onnxruntime-cuda does not run int8"):
        repository_precision(bundle, "vision", "gpu", "int8")
    with pytest.raises(UsageError, match="bf16 is not exact on every CPU"):
        repository_precision(bundle, "vision", "cpu", "bf16")
    with pytest.raises(BundleError, match="has no int16-any vision graph"):
        repository_precision(bundle, "vision", "cpu", "int16")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("max_batch_size: 4", "max_batch: 4"),
        ("max_batch_size: 4", "max_batch_size: 0"),
        ("TYPE_FP32", "TYPE_FP16"),
        ('"frames"', '"pictures"'),
        ("dims: 224", "dims: 225"),
    ],
)
def test_the_server_of_these_tests_refuses_a_wrong_config(repository: Path, tmp_path: Path, old: str, new: str) -> None:
    folder = shutil.copytree(repository / "vision", tmp_path / "vision")
    file = folder / "config.pbtxt"
    Model(folder)
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises((text_format.ParseError, ValueError, KeyError)):
        Model(folder)
