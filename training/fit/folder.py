"""The folder of a training run: its files, which run they belong to, and how it is completed.

head.safetensors     the best head so far; its metadata hold the recipe, the data and the scores
state.safetensors    everything needed to resume; deleted when the run is complete
report.html          report for people
epochs.csv           every score of every epoch, for spreadsheets
times.json           how long each epoch took; all other files are the same in each run
result.json          the whole run; written last, so its presence means that the run is complete
tensorboard/         event files
trunk/               the run of the head that this one stands on, if the recipe names one
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
from ovavel.training.fit.times import TIMES
from ovavel.training.models.checkpoint import read_metadata

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = [
    "EPOCHS",
    "HEAD",
    "LOGS",
    "REPORT",
    "STATE",
    "TRUNK",
    "finish",
    "head_metadata",
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
TRUNK = "trunk"


def identity(recipe: Recipe, info: DataInfo) -> str:
    """Return what a run must share with the one in its folder to resume it."""
    return msgspec.json.encode([recipe, info]).decode()


def prepare(out: Path, recipe: Recipe, info: DataInfo, *, overwrite: bool) -> None:
    """Create the folder, or check that its contents belong to this run.

    Raises:
        UsageError: they belong to another run.
        CheckpointError: its head is missing.
        OutputError: the folder is not writable.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        for pattern in (f".{HEAD}.*", f".{STATE}.*", ".*.part"):  # of runs that were killed while writing
            for stale in out.glob(pattern):
                stale.unlink(missing_ok=True)
        if overwrite:
            for name in (
                RESULT,
                STATE,
                REPORT,
                EPOCHS,
                TIMES,
                HEAD,
            ):  # the result first: without it the run is incomplete
                (out / name).unlink(missing_ok=True)
            shutil.rmtree(out / LOGS, ignore_errors=True)  # TensorBoard would show both runs as one
            return
    except OSError as error:
        raise output_error(out, error) from error
    found = None
    if done := FitResult.read(out):
        found = identity(done.recipe, done.data)
    elif (out / STATE).exists():
        found = read_metadata(out / STATE).get("identity", "")
    elif (out / HEAD).exists():  # killed in its first epoch, or an unrelated head
        found = None if _head_identity(out / HEAD) == identity(recipe, info) else ""
    if found is not None and found != identity(recipe, info):
        raise UsageError(
            f"{out} holds a head of another recipe or of other data; choose another folder, or start over with "
            "--overwrite"
        )
    if (done or (out / STATE).exists()) and not (out / HEAD).exists():
        raise CheckpointError(f"{out} holds a run without its head {HEAD}; start over with --overwrite")


def _head_identity(head: Path) -> str:
    metadata = read_metadata(head)
    return f"[{metadata.get('recipe', '')},{metadata.get('data', '')}]"


def head_metadata(result: FitResult) -> dict[str, str]:
    """Return the metadata of a head's file: recipe, data and scores."""
    best = result.best
    measures: Mapping[str, object] = {"epoch": best.number, "loss": best.loss, "val": best.val, "test": best.test}
    return {
        "recipe": msgspec.json.encode(result.recipe).decode(),
        "data": msgspec.json.encode(result.data).decode(),
        "metrics": json.dumps(measures),
    }


def finish(out: Path, result: FitResult) -> None:
    """Write the report and the result, then delete the state."""
    from ovavel.training.fit.report import to_csv, to_html

    atomic_write(out / REPORT, to_html(result))
    atomic_write(out / EPOCHS, to_csv(result))
    atomic_write(out / RESULT, result.encode())
    (out / STATE).unlink(missing_ok=True)


@contextlib.contextmanager
def open_logs(folder: Path) -> Iterator[SummaryWriter]:
    """Open event files for TensorBoard.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("tensorboard", "train", need="Logging for TensorBoard") from error
    with SummaryWriter(str(folder)) as writer:
        yield writer


def log(logs: SummaryWriter, epoch: Epoch) -> None:
    """Log all figures of an epoch, and flush."""
    values = {"train/loss": epoch.loss, "train/learning_rate": epoch.learning_rate}
    for split, table in (("val", epoch.val), ("test", epoch.test or {})):
        for part, scores in table.items():
            values |= {f"{split} {part}/{measure}": value for measure, value in (scores or {}).items()}
    if epoch.gate:
        values |= {"gate/audio": epoch.gate[0], "gate/vision": epoch.gate[1]}
    for name, value in values.items():
        logs.add_scalar(name, value, epoch.number)
    logs.flush()
