"""Random weights and their bundle for the matrix."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ovavel.export.gpu_bench.prepared import Prepared, _is_reusable, prepare
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.precision import Precision
from ovavel.runtime.cli import main
from ovavel.runtime.errors import PrecisionError
from ovavel.runtime.system.files import make_folder
from ovavel.runtime.system.progress import no_progress
from ovavel.training.models.imagebind.model import ImageBindConfig

pytestmark = pytest.mark.slow


def test_a_precision_that_loses_too_much_is_left_out_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def write(_: Any, place: Path, *__: Any, precisions: Sequence[Precision], **___: Any) -> None:
        asked.append(precisions)
        if "bf16" in precisions:
            raise PrecisionError("a cosine of 0.9", "bf16", advice="Do without bf16")
        make_folder(place)
        (place / "manifest.json").write_text("{}")

    monkeypatch.setattr("ovavel.export.bundle.write_bundle", write)
    prepared = prepare(tmp_path, ImageBindConfig.tiny(), no_progress)
    assert asked == [("fp32", "fp16", "bf16"), ("fp32", "fp16")]
    assert prepared.missing == ("bf16 could not be exported: a cosine of 0.9",)


def test_making_the_bundle_counts_for_the_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--device", "cpu", "--config", "tiny", "--budget-s", "1e-9", "--out", str(tmp_path / "out")]
    assert main(["bench", "gpu", *arguments, "--keep", str(tmp_path / "kept")]) == 2
    assert "the time budget of 1e-09 s was used up: looking for what is there" in capsys.readouterr().err


@pytest.mark.proof
def test_a_precision_that_could_not_be_exported_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ovavel.export import bundle

    export, asked = bundle.write_bundle, []

    def write(*given: Any, precisions: Sequence[Precision], **options: Any) -> Any:
        asked.append(precisions)
        if "bf16" in precisions:
            raise PrecisionError("a cosine of 0.9", "bf16", advice="Do without bf16")
        return export(*given, precisions=precisions, **options)

    monkeypatch.setattr(bundle, "write_bundle", write)
    monkeypatch.setattr("ovavel.export.gpu_bench.prepared.PRECISIONS", ("fp32", "bf16"))
    first = prepare(tmp_path, ImageBindConfig.tiny(), no_progress)
    assert first.missing == ("bf16 could not be exported: a cosine of 0.9",)
    assert prepare(tmp_path, ImageBindConfig.tiny(), no_progress) == first
    assert asked == [("fp32", "bf16"), ("fp32",)]


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_weights_and_bundle_are_made_without_network(tmp_path: Path) -> None:
    prepared = prepare(tmp_path / "made", ImageBindConfig.tiny(), no_progress)
    bundle = Bundle.open(prepared.bundle)
    assert prepared.missing == ()
    assert set(bundle.manifest.graphs["vision"]) == {"fp32", "fp16", "bf16"}
    assert bundle.manifest.model.head_layers == 1
    written = (prepared.bundle / "manifest.json").stat()
    assert prepare(tmp_path / "made", ImageBindConfig.tiny(), no_progress) == prepared
    assert (prepared.bundle / "manifest.json").stat().st_mtime_ns == written.st_mtime_ns, "it was used again"


@pytest.mark.parametrize("harm", ["bundle", "weights", "config", "precision"])
def test_what_is_not_whole_or_not_the_same_is_made_again(
    exported_bundle: Path,
    tiny_weights: Path,
    tiny_head: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    harm: str,
) -> None:
    shutil.copytree(exported_bundle, tmp_path / "bundle")
    shutil.copy(tiny_weights, tmp_path / "weights")
    kept = Prepared(bundle=tmp_path / "bundle", weights=tmp_path / "weights", head=tiny_head, description="kept")
    monkeypatch.setattr("ovavel.export.gpu_bench.prepared.PRECISIONS", ("fp32",))
    config = ImageBindConfig.from_dict(Bundle.open(exported_bundle).manifest.model.config)
    assert _is_reusable(kept, config)
    if harm == "bundle":
        (tmp_path / "bundle" / Bundle.open(exported_bundle).manifest.graphs["head"]["fp32"]).unlink()
    if harm == "weights":
        (tmp_path / "weights").write_bytes(b"cut short")
    if harm == "precision":
        monkeypatch.setattr("ovavel.export.gpu_bench.prepared.PRECISIONS", ("fp32", "fp16"))
    assert not _is_reusable(kept, ImageBindConfig.huge() if harm == "config" else config)
