"""Which precision of a graph an engine runs, on which CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.runtime.bundles import rewrite

from ovavel.runtime.bundle import bundle as bundle_module
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.graphs import Graph
from ovavel.runtime.bundle.precision import ENGINE_PRECISIONS, POOLED, Precision, preferred
from ovavel.runtime.errors import BundleError, DeviceError, UsageError


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


def test_each_engine_has_its_own_precision(tiny_bundle: Path, cpu: Callable[..., None]) -> None:
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


def test_the_file_of_a_precision_is_available_to_every_engine(tiny_bundle: Path) -> None:
    rewrite(tiny_bundle, lambda m: m["graphs"]["vision"].update(bf16="audio.onnx"))  # which no CPU runs
    assert Bundle.open(tiny_bundle).graph("vision", "bf16") == tiny_bundle / "audio.onnx"


def test_a_precision_that_the_engine_does_not_run_is_refused(tiny_bundle: Path) -> None:
    bundle = with_variants(tiny_bundle, "onnxruntime-cpu")
    with pytest.raises(UsageError, match="onnxruntime-cuda does not run int8; it runs"):
        bundle.precision("vision", "onnxruntime-cuda", "int8")


@pytest.mark.parametrize("hidden", [(), ("avx2", "avx512f"), ("asimd",)])
def test_graphs_that_saturate_on_this_cpu_never_run(
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


def test_pooled_sound_runs_only_where_it_is_asked_for(tiny_bundle: Path, cpu: Callable[..., None]) -> None:
    def change(manifest: dict) -> None:
        manifest["graphs"]["vision"].update({"int8": "text.onnx", "int8-any": "head.onnx"})
        manifest["graphs"]["audio"].update({"int8-pooled": "text.onnx", "int8-any-pooled": "head.onnx"})
        manifest["precision"] = {"onnxruntime-cpu": {"vision": "int8"}}

    rewrite(tiny_bundle, change)
    bundle = Bundle.open(tiny_bundle)
    graphs: tuple[Graph, ...] = ("vision", "audio", "text", "head")
    cpu("avx2", "avx512_vnni")
    asked = [bundle.precision(graph, "onnxruntime-cpu", "int8-pooled") for graph in graphs]
    usual = [bundle.precision(graph, "onnxruntime-cpu") for graph in graphs]
    cpu("avx2")
    anywhere = [bundle.precision(graph, "onnxruntime-cpu", "int8-pooled") for graph in graphs]
    assert asked == ["int8", "int8-pooled", "fp32", "fp32"]
    assert anywhere == ["int8-any", "int8-any-pooled", "fp32", "fp32"]
    assert usual == ["int8", "fp32", "fp32", "fp32"]
    with pytest.raises(BundleError, match="no fp32-pooled audio graph; its precisions are: fp32, int8-pooled"):
        bundle.precision("audio", "onnxruntime-cpu", "fp32-pooled")
    with pytest.raises(UsageError, match="onnxruntime-cuda does not run int8-pooled"):
        bundle.precision("audio", "onnxruntime-cuda", "int8-pooled")


@given(engine=st.sampled_from(sorted(ENGINE_PRECISIONS)), there=st.sets(st.sampled_from(get_args(Precision))))
def test_pooled_sound_is_no_default(engine: str, there: set[str]) -> None:
    chosen = preferred(engine, there)
    assert chosen not in POOLED
    assert chosen or not (there - POOLED.keys()) & set(ENGINE_PRECISIONS[engine])
