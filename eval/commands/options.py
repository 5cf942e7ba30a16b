"""Options shared by commands on datasets, and the table of their clips."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ovavel.runtime.commands.options import EngineOptions, Maybe

if TYPE_CHECKING:
    from rich.table import Table

    from ovavel.eval.datasets.dataset import Dataset
    from ovavel.eval.datasets.splits import EvaluationInputs

__all__ = ["DatasetOptions", "MeasuredOptions", "ScoredOptions", "clip_counts"]


@dataclass(frozen=True, kw_only=True)
class DatasetOptions:
    """A labelled dataset."""

    data: Path
    """Root of the data set. OV-AVEBench: <split>/audio/<class>/<video>.wav and <split>/video/<class>/<video>/ with ten
    images. Others (--dataset): the raw videos, anywhere below."""
    annotations: Maybe[Path] = None
    """Folder of the annotation files, if it is neither the root nor its subfolder annotations."""
    dataset: Literal["ov-avebench", "ave", "llp", "unav"] = "ov-avebench"
    """Kind of data set: ov-avebench, or ave, llp or unav, whose raw videos lie anywhere in --data; see docs/data.md."""

    def open(self) -> Dataset:
        """Read its annotations.

        Raises:
            DatasetError: they are missing or damaged.
        """
        from ovavel.eval.datasets.readers.kinds import open_dataset

        return open_dataset(self.data, self.annotations, self.dataset)


@dataclass(frozen=True, kw_only=True)
class _CachedOptions(DatasetOptions):
    """A labelled dataset, and where the embeddings of its clips may come from."""

    features: Maybe[Path] = None
    """Feature cache of the bundle's encoders, written by 'ovavel train features', to read names and media from."""
    any_precision: bool = False
    """Accept a feature cache of another precision than the bundle's, such as PyTorch's for an 8-bit bundle."""

    def _open(self, bundle: Path, engine: EngineOptions) -> AbstractContextManager[EvaluationInputs]:
        from ovavel.eval.datasets.splits import open_inputs

        return open_inputs(
            self.data,
            bundle,
            annotations=self.annotations,
            kind=self.dataset,
            features=self.features,
            any_precision=self.any_precision,
            signed_by=engine.require_signature,
            **engine.backend_options,
        )


@dataclass(frozen=True, kw_only=True)
class MeasuredOptions(_CachedOptions):
    """A labelled dataset, and the bundle that is measured on it."""

    bundle: Path
    """Folder written by 'ovavel bundle export'. Class names that it lacks are encoded by its text encoder."""

    def open_inputs(self, engine: EngineOptions) -> AbstractContextManager[EvaluationInputs]:
        """Open dataset, bundle and feature cache, and run the bundle with `engine`; see `open_inputs`."""
        return self._open(self.bundle, engine)


@dataclass(frozen=True, kw_only=True)
class ScoredOptions(_CachedOptions):
    """A labelled dataset, and the bundle that is scored on it, if one is."""

    bundle: Maybe[Path] = None
    """Folder written by 'ovavel bundle export'. Class names that it lacks are encoded by its text encoder."""

    def open_inputs(self, engine: EngineOptions) -> AbstractContextManager[EvaluationInputs | None]:
        """Open all as `MeasuredOptions` does; None without a bundle."""
        return self._open(self.bundle, engine) if self.bundle else nullcontext()


def clip_counts(splits: Iterable[str], rows: Iterable[tuple[str, Sequence[int]]], title: str = "clips") -> Table:
    """Return a table with a column for each split and their total; `rows` are names with a count for each split."""
    from rich.table import Table

    table = Table("", *splits, "total", title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, counts in rows:
        table.add_row(name, *(f"{count:,}".replace(",", " ") for count in (*counts, sum(counts))))
    return table
