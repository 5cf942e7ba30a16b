"""Calibration of a head: fitted on the validation split and stored in the metadata of its checkpoint.

Every bundle exported from that head then includes it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ovavel.eval.calibration.fit import fit_calibration
from ovavel.eval.streaming.measure import final_scores
from ovavel.runtime.bundle.calibration import Calibration, Rule
from ovavel.runtime.errors import CheckpointError
from ovavel.runtime.pipeline.localizer import deciding_head
from ovavel.runtime.system.untrusted import read_json
from ovavel.runtime.types import LAG, FusionKind
from ovavel.training.fit.data import Data, Part
from ovavel.training.fit.decide import runtime_head
from ovavel.training.heads.base import ScoreKind, load_head
from ovavel.training.models.checkpoint import read_checkpoint, read_metadata, write_checkpoint

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["METADATA", "attach_calibration", "calibrate_head", "read_calibration"]

_FUSIONS: Mapping[ScoreKind, FusionKind] = {"geometric": "positive", "learned": "learned"}

METADATA = "calibration"
"""Metadata key; the value is a `Calibration` as JSON."""


def calibrate_head(head: str | os.PathLike[str], data: Data, dataset: str) -> Calibration:
    """Fit a calibration to the head's decisions on the validation split at the default lag, and attach it.

    Calibration errors are measured on the test split where `data` has one. `dataset` is the fingerprint to record.

    Raises:
        CheckpointError: `head` was not saved by ovavel.
        OutputError: the file could not be written; it is left unchanged.
    """
    loaded = load_head(head)
    rule = Rule(kind=_FUSIONS.get(loaded.score, "published"))

    deciding = deciding_head(runtime_head(loaded), rule)

    def final(part: Part) -> NDArray[Any]:
        return final_scores(deciding, part.audio, part.vision, data.text, lag=LAG)

    held_out = (final(data.test), data.test.truth) if data.test else None
    calibration = fit_calibration(
        final(data.val), data.val.truth, dataset=dataset, names=data.names, fusion=rule.name, held_out=held_out
    )
    attach_calibration(head, calibration)
    return calibration


def attach_calibration(head: str | os.PathLike[str], calibration: Calibration) -> None:
    """Write `calibration` into the checkpoint `head`; tensors and all other metadata are preserved.

    Raises:
        CheckpointError: not a safetensors file; a PyTorch file has no metadata.
        OutputError: the file could not be written; it is left unchanged.
    """
    metadata = read_metadata(path := Path(head))
    if not metadata:
        raise CheckpointError(
            f"{path} has no metadata, so ovavel did not train it; load it with `load_head` and save it first"
        )
    write_checkpoint(path, read_checkpoint(path), {**metadata, METADATA: msgspec.json.encode(calibration).decode()})


def read_calibration(head: str | os.PathLike[str]) -> Calibration | None:
    """Return the calibration in the checkpoint `head`, or None.

    Raises:
        CheckpointError: not a checkpoint, or its calibration is damaged.
    """
    text = read_metadata(path := Path(head)).get(METADATA)
    if text is None:
        return None
    try:
        return read_json(text.encode(), Calibration)
    except ValueError as error:
        raise CheckpointError(f"{path} holds a damaged calibration ({error}); recalibrate it") from error
