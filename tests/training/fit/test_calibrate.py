from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from support.synthetic import make_data

from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.calibration import Calibration
from ovavel.runtime.errors import CheckpointError
from ovavel.training.fit.calibrate import METADATA, attach_calibration, calibrate_head, read_calibration
from ovavel.training.heads.temporal import TemporalHead
from ovavel.training.models.checkpoint import read_checkpoint, read_metadata, write_checkpoint

CALIBRATION = Calibration(
    temperature=0.2, on=0.3, off=0.1, ece_before=0.4, ece_after=0.1, segments=9, dataset="ab", names=""
)


@pytest.fixture
def head(tmp_path: Path, tiny_head: Path) -> Path:
    return Path(shutil.copy(tiny_head, tmp_path / "head.safetensors"))


def test_attaching_a_calibration_preserves_the_rest(head: Path) -> None:
    tensors = {name: tensor.clone() for name, tensor in read_checkpoint(head).items()}
    metadata = read_metadata(head)
    assert read_calibration(head) is None
    attach_calibration(head, CALIBRATION)
    assert read_calibration(head) == CALIBRATION
    attach_calibration(head, CALIBRATION)  # replaces the existing one
    assert {name: value for name, value in read_metadata(head).items() if name != METADATA} == metadata
    again = read_checkpoint(head)
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())
    assert [path.name for path in head.parent.iterdir()] == [head.name]


def test_a_file_without_metadata_is_refused(tmp_path: Path, head: Path) -> None:
    published = tmp_path / "head.pth"
    torch.save(dict(read_checkpoint(head)), published)
    with pytest.raises(CheckpointError, match="no metadata"):
        attach_calibration(published, CALIBRATION)
    assert read_calibration(published) is None


def test_a_damaged_calibration_is_refused(head: Path) -> None:
    write_checkpoint(head, read_checkpoint(head), {**read_metadata(head), METADATA: '{"temperature": 0}'})
    with pytest.raises(CheckpointError, match="damaged calibration"):
        read_calibration(head)


def test_a_bundle_exported_from_a_calibrated_head_is_calibrated(tmp_path: Path, tiny_weights: Path, head: Path) -> None:
    from ovavel.export.bundle import BundleContents, write_bundle
    from ovavel.training.models.imagebind.model import ImageBindConfig

    attach_calibration(head, CALIBRATION)
    write_bundle(
        BundleContents(tiny_weights, ("dog", "car"), head=head, config=ImageBindConfig.tiny()), tmp_path / "bundle"
    )
    assert Bundle.open(tmp_path / "bundle").manifest.calibration == CALIBRATION


def test_a_head_is_calibrated_on_validation(tmp_path: Path) -> None:
    data = make_data()
    torch.manual_seed(0)
    head = tmp_path / "head.safetensors"
    TemporalHead(1, dim=data.text.sizes[0], hidden=8, ffn=16).save(head)
    calibration = calibrate_head(head, data, "abc")
    assert read_calibration(head) == calibration
    assert calibration.segments == data.val.truth.size
    assert calibration.dataset == "abc"
    before = head.read_bytes()
    calibrate_head(head, data, "abc")
    assert head.read_bytes() == before
