"""Every precision of every graph, built with the real TensorRT-RTX and read back; small here, full size where slow."""

from __future__ import annotations

import gc
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from golden_weights import write_golden_checkpoint
from msgspec.structs import replace

from ovavel.export.bundle import write_bundle
from ovavel.export.graphs import save_variant, traced
from ovavel.runtime.backends import Graph
from ovavel.runtime.backends.tensorrt.build import build_engine
from ovavel.runtime.backends.tensorrt.cache import provide_engine
from ovavel.runtime.backends.tensorrt.engines import provide_engines
from ovavel.runtime.backends.tensorrt.library import load_library, this_platform
from ovavel.runtime.backends.tensorrt.plan import BuildOptions, Engine, EngineFor
from ovavel.runtime.bundle import Bundle, file_entry
from ovavel.runtime.errors import EngineError
from ovavel.runtime.precisions import Precision
from ovavel.training.imagebind import ImageBind, ImageBindConfig
from ovavel.training.temporal import HeadGraph, TemporalHead

pytest.importorskip("tensorrt_rtx")

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")
GRAPHS: tuple[Graph, ...] = ("vision", "audio", "head")
SMALL = BuildOptions(batches=(1, 2), workspace_mb=64)


def made_for(onnx: Path, graph: Graph, precision: str, options: BuildOptions) -> EngineFor:
    library = load_library("tensorrt-rtx")
    return EngineFor(
        library=library.name,
        version=library.version,
        platform=this_platform(),
        gpu=None,
        compute_capability="8.9",
        graph=graph,
        precision=precision,
        sources=(file_entry(onnx),),
        options=options,
    )


def check(engine: Engine, precision: str, *, products: int) -> None:
    """All products but the convolution are in `precision`, in the network and in the engine's own layers."""
    evidence = engine.evidence
    assert evidence.read_from == "network and build log"
    assert sum(evidence.products.values()) == products
    assert set(evidence.products) <= {precision, "fp32"}
    assert evidence.products[precision] >= products - 1
    assert evidence.found == evidence.products[precision]


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path, tiny_head: Path) -> Path:
    """Folder of the small model's graphs, each in every precision; the head too, which bundles hold in fp32 alone."""
    folder, config = tmp_path_factory.mktemp("variants"), ImageBindConfig.tiny()
    towers = ImageBind.load(tiny_weights, config).towers
    modules = {"vision": towers["vision"], "audio": towers["audio"], "head": HeadGraph(TemporalHead.load(tiny_head))}
    for graph in GRAPHS:
        model = traced(graph, modules[graph].eval(), embedding_size=config.embedding_size)
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
    onnx = file_of(variants, graph, precision)
    asked = made_for(onnx, graph, precision, SMALL)
    provided = provide_engine(onnx, asked, load_library("tensorrt-rtx"), root=tmp_path)
    check(provided.engine, precision, products=products)


@pytest.mark.parametrize(("asked", "given"), [("fp16", "fp32"), ("fp32", "fp16"), ("bf16", "fp16")])
def test_a_graph_in_another_precision_is_refused(variants: Path, tmp_path: Path, asked: str, given: str) -> None:
    onnx = file_of(variants, "vision", given)
    with pytest.raises(EngineError, match=rf"does not compute in {asked}: .* in {given}"):
        provide_engine(
            onnx, made_for(onnx, "vision", asked, SMALL), load_library("tensorrt-rtx"), root=tmp_path / "engines"
        )
    assert not [path for path in (tmp_path / "engines").iterdir() if path.suffix != ".lock"]


def test_a_gpu_without_bf16_is_an_error_in_the_librarys_words(variants: Path, tmp_path: Path) -> None:
    onnx = file_of(variants, "vision", "bf16")
    turing = replace(made_for(onnx, "vision", "bf16", SMALL), compute_capability="7.5")
    with pytest.raises(EngineError, match=r"cannot build vision\.bf16\.onnx .*sm75"):
        provide_engine(onnx, turing, load_library("tensorrt-rtx"), root=tmp_path)


def test_a_bundle_of_three_precisions_gives_three_engines(tiny_weights: Path, tiny_head: Path, tmp_path: Path) -> None:
    names = ("dog barking", "race car")
    config = ImageBindConfig.tiny()
    write_bundle(tiny_weights, tmp_path / "bundle", names, head=tiny_head, config=config, precisions=PRECISIONS)
    bundle, library = Bundle.open(tmp_path / "bundle"), load_library("tensorrt-rtx")
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


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for gigabytes, gone after the test: in memory where there is plenty, for disks are slow."""
    memory = Path("/dev/shm")
    plenty = memory.is_dir() and min(shutil.disk_usage(memory).free, psutil.virtual_memory().available) > 24e9
    with tempfile.TemporaryDirectory(dir=memory if plenty else None) as name:
        yield Path(name)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("graph", "products"), [("vision", 130), ("audio", 50), ("head", 12)])
def test_full_size_builds_in_every_precision(folder: Path, graph: Graph, products: int) -> None:
    config, library = ImageBindConfig.huge(), load_library("tensorrt-rtx")
    if graph == "head":
        module = HeadGraph(TemporalHead(1))
    else:
        weights = write_golden_checkpoint(folder / "huge.pth", config, (graph,))
        module = ImageBind.load(weights, config, (graph,)).towers[graph]
        weights.unlink()
    model = traced(graph, module.eval(), embedding_size=config.embedding_size)
    del module
    sizes = {}
    for precision in PRECISIONS:
        onnx, *_ = files = save_variant(model, graph, folder, precision)
        if precision == PRECISIONS[-1]:
            del model
        gc.collect()
        (folder / "engine").mkdir()
        engine = build_engine(onnx, folder / "engine", made_for(onnx, graph, precision, BuildOptions()), library)
        check(engine, precision, products=products)
        sizes[precision] = engine.plan.bytes
        shutil.rmtree(folder / "engine")
        for file in files:
            file.unlink()
    if graph != "head":
        assert sizes["fp16"] < 0.6 * sizes["fp32"]
        assert sizes["bf16"] < 0.6 * sizes["fp32"]
    assert psutil.Process().memory_info().rss < 16e9
