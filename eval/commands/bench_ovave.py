"""`ovavel eval bench-ovave`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ovavel.runtime.commands.backend_flag import BackendOrTorchFlag
from ovavel.runtime.errors import UsageError
from ovavel.runtime.system.bounds import Threads

if TYPE_CHECKING:
    from ovavel.eval.accuracy.score import Protocol, Report

__all__ = ["BenchOvave"]

_Protocols = tuple[Literal["fused", "fused-positive", "agreement", "agreement-without-other"], ...]


@dataclass(frozen=True, kw_only=True)
class BenchOvave:
    """Score a bundle on OV-AVEBench, beside the published figures.

    Examples:
        ovavel eval bench-ovave --data ovavebench --bundle imagebind --out report
        ovavel eval bench-ovave --data ovavebench --bundle imagebind --features features --split val

    Acc, Seg, Eve and their mean over the clips of seen classes, of unseen classes, and of all of them. The fused
    protocol decides with the bundle's head as the paper does, fused-positive without the classes that a sense speaks
    against, as live use does by default; the agreement protocols are training-free: they ask the
    embeddings as they are. Clips that cannot be read are left out of the scores, counted and named; where they are more
    than 2 %, no published figures stand beside the scores.

    Without --features the bundle's encoders run over the media, and an interrupted run starts over: for more than one
    measurement, or where the encoders take long, run 'ovavel train features --bundle' once, which can be interrupted,
    and give its folder as --features. The report says what ran: with --features, the head alone.
    """

    data: Path
    """Root of the dataset: SPLIT/audio/CLASS/VIDEO.wav and SPLIT/video/CLASS/VIDEO/ with ten images each."""
    bundle: Path
    """Folder written by 'ovavel export bundle'. Names of the dataset that it lacks go through its text encoder."""
    annotations: Path | None = None
    """Folder of the annotation files, where it is neither the root nor its folder annotations."""
    features: Path | None = None
    """Feature cache of the bundle's encoders, written by 'ovavel train features': names and media come from there."""
    split: Literal["test", "val", "train"] = "test"
    """Which clips to score, always against all names of the dataset."""
    protocols: _Protocols = ("fused", "agreement", "agreement-without-other")
    """How to decide; the report shows classes, confusions and clips of the first one."""
    out: Path | None = None
    """Folder for ovave-SPLIT.json, .csv and .html, made if it is not there; without it the table is only printed."""
    backend: BackendOrTorchFlag = "onnxruntime"
    weights: Path | None = None
    """ImageBind checkpoint the bundle was made from; for the backend torch, unless there is a feature cache."""
    head: Path | None = None
    """Checkpoint of the temporal head, for the backend torch."""
    device: str = "auto"
    """Where it runs: cpu, cuda, cuda:N, or auto. What is asked for is what runs, or an error."""
    threads: Threads = None
    """Threads on a CPU; as many as cores by default."""
    any_precision: bool = False
    """Take a feature cache of another precision than the bundle runs in, such as PyTorch's for one in 8 bits."""

    def run(self) -> int:
        """Score the split, print the table and write the files."""
        from ovavel.eval.accuracy.score import Report, score_protocol
        from ovavel.eval.datasets.splits import open_material
        from ovavel.runtime.system.files import make_folder

        if not self.protocols:
            raise UsageError("which protocols? For example: --protocols fused agreement")
        options = self._torch_options()
        if self.out:
            make_folder(self.out)
        with open_material(
            self.data,
            self.bundle,
            annotations=self.annotations,
            features=self.features,
            backend=self.backend,
            device=self.device,
            threads=self.threads,
            any_precision=self.any_precision,
            **options,
        ) as material:
            split = material.split(self.split)
            protocols: dict[Protocol, None] = dict.fromkeys(self.protocols)
            head, text = material.backend.head, material.text
            report = Report(
                root=str(self.data),
                split=self.split,
                dataset_fingerprint=material.dataset.fingerprint,
                names=material.dataset.names,
                clips=split.clips,
                damaged=split.damaged,
                truth=split.truth,
                results=tuple(score_protocol(each, split, head, text) for each in protocols),
                bundle=material.bundle,
                backend=material.backend.info,
                cache=material.cache,
            )
        written = _write(report, self.out) if self.out else []
        _print(report, written)
        return 0

    def _torch_options(self) -> dict[str, Path]:
        """What only the backend torch takes."""
        given = {name: path for name, path in (("weights", self.weights), ("head", self.head)) if path}
        if given and self.backend != "torch":
            raise UsageError(
                f"--{next(iter(given))} is for --backend torch; {self.backend} runs the bundle's own graphs"
            )
        return given


def _write(report: Report, out: Path) -> list[Path]:
    from ovavel.eval.accuracy.report import to_csv, to_html, to_json
    from ovavel.runtime.system.files import atomic_write

    paths = [out / f"ovave-{report.split}.{kind}" for kind in ("json", "csv", "html")]
    for path, write in zip(paths, (to_json, to_csv, to_html), strict=True):
        atomic_write(path, write(report))
    return paths


def _print(report: Report, written: list[Path]) -> None:
    from rich.table import Table
    from rich.text import Text

    from ovavel.eval.accuracy.bootstrap import LEVEL
    from ovavel.eval.accuracy.report import interval_rows, note, table_rows
    from ovavel.runtime.reporting.console import OutputConsole
    from ovavel.runtime.reporting.text import one_line

    console = OutputConsole(highlight=False, soft_wrap=True)
    table = Table(title=Text(f"{one_line(report.root)}, {report.split}: {report.counted}"), title_justify="left")
    table.add_column("method")
    for part in ("seen", "unseen", "total"):
        for i, measure in enumerate(("Acc", "Seg", "Eve", "Avg")):
            table.add_column(f"{part if i == 0 else ''}\n{measure}", justify="right", no_wrap=True)
    rows = table_rows(report)
    for i, (name, *figures) in enumerate(rows):
        ours = i >= len(rows) - len(report.results)
        table.add_row(
            Text(name), *figures, style="bold" if ours else "", end_section=i + 1 == len(rows) - len(report.results)
        )
    console.print(table)
    for name, *ends in interval_rows(report):
        console.print(
            f"{name}: total Avg between {ends[-1].replace('–', ' and ')} in {LEVEL:.0%} of resamples", markup=False
        )
    console.print(report.ran, markup=False)
    remark = note(report)
    console.print(remark, markup=False, style="bold red" if remark.startswith("WARNING") else "")
    for record in report.damaged[:_NAMED]:
        clip = one_line(f"{record.split}/{record.category}/{record.name}")
        console.print(f"damaged: {clip}, {record.kind}: {one_line(record.message)}", markup=False)
    if len(report.damaged) > _NAMED:
        console.print(f"damaged: {len(report.damaged) - _NAMED} more; --out names them all", markup=False)
    if written:
        console.print(
            one_line(f"wrote {', '.join(path.name for path in written)} in {written[0].parent}"), markup=False
        )


_NAMED = 10
