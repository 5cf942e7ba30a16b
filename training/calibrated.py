"""A head's calibration, kept in the metadata of its checkpoint so that every bundle made from it has it."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from ovavel.runtime.calibration import Calibration
from ovavel.runtime.errors import CheckpointError
from ovavel.training.checkpoint import read_checkpoint, read_metadata, write_checkpoint

__all__ = ["METADATA", "attach_calibration", "read_calibration"]

METADATA = "calibration"
"""Key of the metadata; its value is a `Calibration` as JSON."""


def attach_calibration(head: str | os.PathLike[str], calibration: Calibration) -> None:
    """Write `calibration` into the checkpoint `head`, which keeps its tensors and all other metadata.

    Raises:
        CheckpointError: it is no safetensors file; a PyTorch file has no metadata.
        OutputError: it could not be written; then it is as it was.
    """
    metadata = read_metadata(path := Path(head))
    if not metadata:
        raise CheckpointError(
            f"{path} has no metadata, so it is no head that ovavel trained; load it with TemporalHead and save it first"
        )
    write_checkpoint(path, read_checkpoint(path), {**metadata, METADATA: msgspec.json.encode(calibration).decode()})


def read_calibration(head: str | os.PathLike[str]) -> Calibration | None:
    """Return the calibration in the checkpoint `head`; None where it has none.

    Raises:
        CheckpointError: it is no checkpoint, or its calibration is damaged.
    """
    text = read_metadata(path := Path(head)).get(METADATA)
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=Calibration)
    except msgspec.MsgspecError as error:
        raise CheckpointError(f"{path} holds a damaged calibration ({error}); calibrate it again") from error
