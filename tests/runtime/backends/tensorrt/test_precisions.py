"""Every precision of every graph, built with the real TensorRT-RTX and read back."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper
from support.engine_checks import check, made_for
from support.traced_once import TracedOnce

from ovavel.export.graphs import save_variant
from ovavel.runtime.backends.tensorrt.cache import provide_engine
from ovavel.runtime.backends.tensorrt.engines import provide_engines
from ovavel.runtime.backends.tensorrt.library import load_library
from ovavel.runtime.backends.tensorrt.plan import BuildOptions
from ovavel.runtime.bundle.bundle import Bundle, file_entry
from ovavel.runtime.bundle.graphs import Graph
from ovavel.runtime.bundle.hashed import read_graph
from ovavel.runtime.bundle.precision import Precision
from ovavel.runtime.errors import EngineError
from ovavel.training.heads.temporal import HeadGraph, TemporalHead
from ovavel.training.models.imagebind.model import ImageBind, ImageBindConfig

pytest.importorskip("tensorrt_rtx")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # the first one exports every graph

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")
GRAPHS: tuple[Graph, ...] = ("vision", "audio", "head")
SMALL = BuildOptions(batches=(1, 2), workspace_mb=64)


@pytest.fixture(scope="module")
def variants(
    tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path, tiny_head: Path, traced_once: TracedOnce
) -> Path:
    """Folder of the small model's graphs, each in every precision; the head too, which bundles hold in fp32 alone."""
    folder, config = tmp_path_factory.mktemp("variants"), ImageBindConfig.tiny()
    towers = ImageBind.load(tiny_weights, config).towers
    modules = {"vision": towers["vision"], "audio": towers["audio"], "head": HeadGraph(TemporalHead.load(tiny_head))}
    for graph in GRAPHS:
        model = traced_once(graph, modules[graph].eval(), encoders=config.encoders)
        for precision in PRECISIONS:
            save_variant(model, graph, folder, precision)
    return folder


def file_of(folder: Path, graph: Graph, precision: str) -> Path:
    return folder / (f"{graph}.onnx" if precision == "fp32" else f"{graph}.{precision}.onnx")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("graph", "products"), [("vision", 10), ("audio", 14), ("head", 12)])
def test_what_was_asked_for_is_what_the_engine_computes_in(
    variants: Path, tmp_path: Path, graph: Graph, products: int, precision: Precision
) -> None:
    file = file_of(variants, graph, precision)
    asked = made_for(file, graph, precision, SMALL)
    provided = provide_engine(lambda: read_graph(file), asked, load_library("tensorrt-rtx"), root=tmp_path)
    check(provided.engine, precision, products=products)


@pytest.mark.parametrize(("asked", "given"), [("fp16", "fp32"), ("fp32", "fp16"), ("bf16", "fp16")])
def test_a_graph_in_another_precision_is_refused(variants: Path, tmp_path: Path, asked: str, given: str) -> None:
    file = file_of(variants, "vision", given)
    with pytest.raises(EngineError, match=rf"does not compute in {asked}: .* in {given}"):
        provide_engine(
            lambda: read_graph(file),
            made_for(file, "vision", asked, SMALL),
            load_library("tensorrt-rtx"),
            root=tmp_path / "engines",
        )
    assert not [path for path in (tmp_path / "engines").iterdir() if path.suffix != ".lock"]


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_eight_bits_are_read_back_where_both_factors_have_them(tmp_path: Path, precision: str) -> None:
    path = tmp_path / "vision.onnx"
    write_quantized(path, precision, both=True)
    asked = made_for(path, "vision", precision, SMALL)
    built = provide_engine(lambda: read_graph(path), asked, load_library("tensorrt-rtx"), root=tmp_path)
    assert (built.engine.evidence.products, built.engine.evidence.found) == ({precision: 1}, 1)
    write_quantized(path, precision, both=False)
    with pytest.raises(EngineError, match=rf"does not compute in {precision}: .* 1 in fp32"):
        provide_engine(lambda: read_graph(path), asked, load_library("tensorrt-rtx"), root=tmp_path, overwrite=True)


def write_quantized(path: Path, precision: str, *, both: bool) -> None:
    """Write one matrix product whose weights, and with `both` its activations too, go through 8 bits."""
    kind = {"int8": TensorProto.INT8, "fp8": TensorProto.FLOAT8E4M3FN}[precision]
    weights = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    constants = [
        numpy_helper.from_array(weights, "w"),
        numpy_helper.from_array(np.array(0.05, np.float32), "scale"),
        helper.make_tensor("zero", kind, [], bytes(1), raw=True),
    ]
    nodes = []
    for name in ("x", "w") if both else ("w",):
        nodes += [
            helper.make_node("QuantizeLinear", [name, "scale", "zero"], [f"{name}_8"]),
            helper.make_node("DequantizeLinear", [f"{name}_8", "scale", "zero"], [f"{name}_back"]),
        ]
    nodes.append(helper.make_node("MatMul", ["x_back" if both else "x", "w_back"], ["y"], name="product"))
    inputs, outputs = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", 64])] for name in ("x", "y"))
    graph = helper.make_graph(nodes, "graph", inputs, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def test_a_gpu_without_bf16_is_an_error_in_the_librarys_words(variants: Path, tmp_path: Path) -> None:
    file = file_of(variants, "vision", "bf16")
    turing = replace(made_for(file, "vision", "bf16", SMALL), compute_capability="7.5")
    with pytest.raises(EngineError, match=r"cannot build vision\.bf16\.onnx .*sm75"):
        provide_engine(lambda: read_graph(file), turing, load_library("tensorrt-rtx"), root=tmp_path)


def test_a_bundle_of_three_precisions_gives_three_engines(tiny_bundle: Path, variants: Path, tmp_path: Path) -> None:
    manifest, files = Bundle.open(tiny_bundle).manifest, {}
    graphs = {graph: dict(each) for graph, each in manifest.graphs.items()}
    for graph, precision in itertools.product(("vision", "audio"), ("fp16", "bf16")):
        graphs[graph][precision] = f"{graph}.{precision}.onnx"
        for name in (f"{graph}.{precision}.onnx", f"{graph}.{precision}.onnx.data"):
            files[name] = file_entry(Path(shutil.copy(variants / name, tiny_bundle)))
    manifest = replace(manifest, graphs=graphs, files={**manifest.files, **files})
    (tiny_bundle / "manifest.json").write_bytes(manifest.encode())
    bundle, library = Bundle.open(tiny_bundle), load_library("tensorrt-rtx")
    folders = set()
    for precision in PRECISIONS:
        chosen = {graph: bundle.precision(graph, "tensorrt-rtx", precision) for graph in GRAPHS}
        assert chosen == {"vision": precision, "audio": precision, "head": "fp32"}
        provided = provide_engines(
            bundle, library, chosen, cuda=None, compute_capability="8.9", options=SMALL, root=tmp_path / "engines"
        )
        for graph, each in provided.items():
            assert each.engine.made_for.precision == chosen[graph]
            folders.add(each.folder)
    assert len(folders) == 7  # the head is the same
