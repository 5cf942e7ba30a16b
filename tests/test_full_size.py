"""Full-size ImageBind against the original implementation, in PyTorch and through ONNX; and as TensorRT-RTX engines."""

from __future__ import annotations

import gc
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import onnxruntime
import psutil
import pytest
from support.engine_checks import check, made_for
from support.golden_weights import (
    MODALITIES,
    difference,
    error_of,
    inputs,
    peak_of_loading,
    size_of,
    write_golden_checkpoint,
)
from support.proofs import proof_unless

from ovavel.export.graphs import save_variant, traced
from ovavel.runtime.backends.tensorrt.build import build_engine
from ovavel.runtime.backends.tensorrt.library import load_library
from ovavel.runtime.backends.tensorrt.plan import BuildOptions
from ovavel.runtime.bundle.graphs import Graph
from ovavel.runtime.bundle.precision import Precision
from ovavel.training.heads.temporal import HeadGraph, TemporalHead
from ovavel.training.models.imagebind.model import ImageBind, ImageBindConfig, Modality

if TYPE_CHECKING:
    import onnx_ir

HUGE = ImageBindConfig.huge()
PRODUCTS: dict[Graph, int] = {"vision": 130, "audio": 50, "head": 12}
"""Matrix products and convolutions of each graph."""

pytestmark = [pytest.mark.slow, pytest.mark.full_size, pytest.mark.timeout(900)]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for gigabytes, gone after the test: in memory where there is plenty, for disks are slow."""
    memory = Path("/dev/shm")
    plenty = memory.is_dir() and min(shutil.disk_usage(memory).free, psutil.virtual_memory().available) > 24e9
    with tempfile.TemporaryDirectory(dir=memory if plenty else None) as name:
        yield Path(name)


@pytest.mark.parametrize("modality", proof_unless(("audio",).__contains__, MODALITIES))
def test_it_gives_what_the_original_gives_and_becomes_an_engine(folder: Path, modality: Modality) -> None:
    weights = write_golden_checkpoint(folder / "huge.pth", HUGE, (modality,))
    assert peak_of_loading(weights, HUGE, modality) < 1.3 * size_of(HUGE, modality)

    model = ImageBind.load(weights, HUGE, (modality,))
    weights.unlink()
    assert error_of(model, modality) <= 2e-6

    graph = traced(modality, model.towers[modality].eval(), encoders=HUGE.encoders)
    del model
    files = save_variant(graph, modality, folder, "fp32")
    session = onnxruntime.InferenceSession(str(files[0]), providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {session.get_inputs()[0].name: inputs(HUGE)[modality].numpy()})
    assert difference(answer, HUGE, modality) <= 2e-5
    del session
    for file in files:
        file.unlink()
    if modality == "audio":  # vision, in `make proof`
        assert engine_bytes(graph, modality, "fp16", folder) < 0.6 * size_of(HUGE, modality)


def test_the_head_becomes_an_engine(folder: Path) -> None:
    head = traced("head", HeadGraph(TemporalHead(1)).eval(), encoders=HUGE.encoders)
    for precision in ("fp32", "fp16", "bf16"):
        engine_bytes(head, "head", precision, folder)


@pytest.mark.proof
@pytest.mark.parametrize(
    ("modality", "precision", "share"),
    [
        ("vision", "fp16", 0.6),
        ("vision", "fp32", 1.1),
        ("vision", "bf16", 0.6),
        ("audio", "fp32", 1.1),
        ("audio", "bf16", 0.6),
    ],
)
def test_it_becomes_an_engine_in_every_precision(
    folder: Path, modality: Modality, precision: Precision, share: float
) -> None:
    weights = write_golden_checkpoint(folder / "huge.pth", HUGE, (modality,))
    tower = ImageBind.load(weights, HUGE, (modality,)).towers[modality]
    weights.unlink()
    graph = traced(modality, tower.eval(), encoders=HUGE.encoders)
    del tower
    assert engine_bytes(graph, modality, precision, folder) < share * size_of(HUGE, modality)


def engine_bytes(model: onnx_ir.Model, graph: Graph, precision: Precision, folder: Path) -> int:
    """Build an engine, and check what it computes in; returns its size."""
    pytest.importorskip("tensorrt_rtx")
    gc.collect()
    files = save_variant(model, graph, folder, precision)
    made = folder / "engine"
    made.mkdir()
    asked = made_for(files[0], graph, precision, BuildOptions())
    engine = build_engine(files[0], made, asked, load_library("tensorrt-rtx"))
    check(engine, precision, products=PRODUCTS[graph])
    for file in files:
        file.unlink()
    shutil.rmtree(made)
    assert psutil.Process().memory_info().rss < 16e9
    return engine.plan.bytes
