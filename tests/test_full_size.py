"""Full-size ImageBind against the original implementation, in PyTorch and through ONNX."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnxruntime
import psutil
import pytest
from golden_weights import (
    MODALITIES,
    difference,
    error_of,
    inputs,
    peak_of_loading,
    size_of,
    write_golden_checkpoint,
)

from ovavel.export.graphs import export_graph
from ovavel.training.imagebind import ImageBind, ImageBindConfig, Modality

HUGE = ImageBindConfig.huge()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for gigabytes, gone after the test: in memory where there is plenty, for disks are slow."""
    memory = Path("/dev/shm")
    plenty = memory.is_dir() and min(shutil.disk_usage(memory).free, psutil.virtual_memory().available) > 16e9
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
