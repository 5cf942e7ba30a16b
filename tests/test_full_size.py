"""Full-size ImageBind against the original implementation, in PyTorch and through ONNX; and as TensorRT-RTX engines."""

from __future__ import annotations

import gc
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnxruntime
import psutil
import pytest
from engine_checks import check, made_for
from golden_weights import (
    MODALITIES,
    difference,
    error_of,
    inputs,
    peak_of_loading,
    size_of,
    write_golden_checkpoint,
)

from ovavel.export.graphs import export_graph, save_variant, traced
from ovavel.runtime.backends import Graph
from ovavel.runtime.backends.tensorrt.build import build_engine
from ovavel.runtime.backends.tensorrt.library import load_library
from ovavel.runtime.backends.tensorrt.plan import BuildOptions
from ovavel.runtime.precisions import Precision
from ovavel.training.imagebind import ImageBind, ImageBindConfig, Modality
from ovavel.training.temporal import HeadGraph, TemporalHead

HUGE = ImageBindConfig.huge()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for gigabytes, gone after the test: in memory where there is plenty, for disks are slow."""
    memory = Path("/dev/shm")
    plenty = memory.is_dir() and min(shutil.disk_usage(memory).free, psutil.virtual_memory().available) > 24e9
    with tempfile.TemporaryDirectory(dir=memory if plenty else None) as name:
        yield Path(name)


@pytest.mark.slow
@pytest.mark.full_size
@pytest.mark.timeout(600)
@pytest.mark.parametrize("modality", MODALITIES)
def test_full_size_gives_what_the_original_gives(folder: Path, modality: Modality) -> None:
    weights = write_golden_checkpoint(folder / "huge.pth", HUGE, (modality,))
    assert peak_of_loading(weights, HUGE, modality) < 1.3 * size_of(HUGE, modality)

    model = ImageBind.load(weights, HUGE, (modality,))
    assert error_of(model, modality) <= 2e-6

    graph, _ = export_graph(modality, model.towers[modality], folder, embedding_size=HUGE.embedding_size)
    del model
    weights.unlink()
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {session.get_inputs()[0].name: inputs(HUGE)[modality].numpy()})
    assert difference(answer, HUGE, modality) <= 2e-5


@pytest.mark.slow
@pytest.mark.full_size
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "precision", ["fp16", pytest.param("bf16", marks=pytest.mark.proof), pytest.param("fp32", marks=pytest.mark.proof)]
)
@pytest.mark.parametrize(("graph", "products"), [("vision", 130), ("audio", 50), ("head", 12)])
def test_full_size_becomes_an_engine(folder: Path, graph: Graph, products: int, precision: Precision) -> None:
    pytest.importorskip("tensorrt_rtx")
    if graph == "head":
        module = HeadGraph(TemporalHead(1))
    else:
        weights = write_golden_checkpoint(folder / "huge.pth", HUGE, (graph,))
        module = ImageBind.load(weights, HUGE, (graph,)).towers[graph]
        weights.unlink()
    fp32_bytes = sum(4 * parameter.numel() for parameter in module.parameters())
    model = traced(graph, module.eval(), embedding_size=HUGE.embedding_size)
    del module
    file = save_variant(model, graph, folder, precision)[0]
    del model
    gc.collect()
    (folder / "engine").mkdir()
    engine = build_engine(
        file, folder / "engine", made_for(file, graph, precision, BuildOptions()), load_library("tensorrt-rtx")
    )
    check(engine, precision, products=products)
    if graph != "head":
        assert engine.plan.bytes < (1.1 if precision == "fp32" else 0.6) * fp32_bytes
    assert psutil.Process().memory_info().rss < 16e9
