"""The folder of a training run: what is in it, whose it is, and its end.

head.safetensors     the best head so far; its metadata name the recipe, the data and the measures
state.safetensors    all that is needed to go on; there until the run is done
report.html          for people
epochs.csv           every score of every epoch, for spreadsheets
result.json          the whole run; written last: where it is, the run is done
tensorboard/         event files
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ovavel.runtime.errors import CheckpointError, MissingExtraError, UsageError
from ovavel.runtime.system.files import atomic_write, output_error
from ovavel.training.fit.recipes import Recipe
from ovavel.training.fit.result import RESULT, DataInfo, Epoch, FitResult
from ovavel.training.models.checkpoint import read_metadata

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = [
    "EPOCHS",
    "HEAD",
    "LOGS",
    "REPORT",
    "STATE",
    "finish",
    "head_notes",
    "identity",
    "log",
    "open_logs",
    "prepare",
]

HEAD = "head.safetensors"
REPORT = "report.html"
EPOCHS = "epochs.csv"
STATE = "state.safetensors"
LOGS = "tensorboard"


def identity(recipe: Recipe, info: DataInfo) -> str:
    """What a run must have in common with the one in its folder to continue it."""
    return msgspec.json.encode([recipe, info]).decode()


def prepare(out: Path, recipe: Recipe, info: DataInfo, *, overwrite: bool) -> None:
    """Make the folder, or make sure that what is in it belongs to this run.

    Raises:
        UsageError: it belongs to another one.
        CheckpointError: its head is gone.
        OutputError: it cannot be written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        for pattern in (f".{HEAD}.*", f".{STATE}.*", ".*.part"):  # of runs that were killed while they wrote
            for stale in out.glob(pattern):
                stale.unlink(missing_ok=True)
        if overwrite:
            for name in (RESULT, STATE, REPORT, EPOCHS, HEAD):  # the result first: without it the run is not done
                (out / name).unlink(missing_ok=True)
            shutil.rmtree(out / LOGS, ignore_errors=True)  # or TensorBoard would show both runs as one
            return
    except OSError as error:
        raise output_error(out, error) from error
    found = None
    if done := FitResult.read(out):
        found = identity(done.recipe, done.data)
    elif (out / STATE).exists():
        found = read_metadata(out / STATE).get("identity", "")
    elif (out / HEAD).exists():  # killed in its first epoch, or somebody's own head
        found = None if _notes_identity(out / HEAD) == identity(recipe, info) else ""
    if found is not None and found != identity(recipe, info):
        raise UsageError(
            f"{out} holds a head of another recipe or of other data; choose another folder, or start over with "
            "--overwrite"
        )
    if (done or (out / STATE).exists()) and not (out / HEAD).exists():
        raise CheckpointError(f"{out} holds a run without its head {HEAD}; start over with --overwrite")


def _notes_identity(head: Path) -> str:
    metadata = read_metadata(head)
    return f"[{metadata.get('recipe', '')},{metadata.get('data', '')}]"


def head_notes(result: FitResult) -> dict[str, str]:
    """What a head's file says of how it came about."""
    best = result.best
    measures: Mapping[str, object] = {"epoch": best.number, "loss": best.loss, "val": best.val, "test": best.test}
    return {
        "recipe": msgspec.json.encode(result.recipe).decode(),
        "data": msgspec.json.encode(result.data).decode(),
        "metrics": json.dumps(measures),
    }


def finish(out: Path, result: FitResult) -> None:
    """Write the report and the result, and remove the state."""
    from ovavel.training.fit.report import to_csv, to_html

    atomic_write(out / REPORT, to_html(result))
    atomic_write(out / EPOCHS, to_csv(result))
    atomic_write(out / RESULT, result.encode())
    (out / STATE).unlink(missing_ok=True)


@contextlib.contextmanager
def open_logs(folder: Path) -> Iterator[SummaryWriter]:
    """Open event files for TensorBoard.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("tensorboard", "train", need="Logging for TensorBoard") from error
    with SummaryWriter(str(folder)) as writer:
        yield writer


def log(logs: SummaryWriter, epoch: Epoch) -> None:
    """Write all that is known of an epoch, and flush."""
    values = {"train/loss": epoch.loss, "train/learning_rate": epoch.learning_rate}
    for split, table in (("val", epoch.val), ("test", epoch.test or {})):
        for part, scores in table.items():
            values |= {f"{split} {part}/{measure}": value for measure, value in (scores or {}).items()}
    if epoch.gate:
        values |= {"gate/audio": epoch.gate[0], "gate/vision": epoch.gate[1]}
    for name, value in values.items():
        logs.add_scalar(name, value, epoch.number)
    logs.flush()
