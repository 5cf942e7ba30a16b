"""`ovavel eval bench-ovave`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ovavel.runtime.errors import DatasetError, UsageError

if TYPE_CHECKING:
    from ovavel.eval.bench_ovave import Encoded, Protocol, Report
    from ovavel.eval.ovavebench import Clip, OVAVEBench
    from ovavel.runtime.backends import Backend

__all__ = ["BenchOvave"]

_Protocols = tuple[Literal["fused", "agreement", "agreement-without-other"], ...]


@dataclass(frozen=True, kw_only=True)
class BenchOvave:
    """Score a bundle on OV-AVEBench, beside the published figures.

    Examples:
        ovavel eval bench-ovave --data ovavebench --bundle imagebind --out report
        ovavel eval bench-ovave --data ovavebench --bundle imagebind --features features --split val

    Acc, Seg, Eve and their mean over the clips of seen classes, of unseen classes, and of all of them. The fused
    protocol decides with the bundle's head as live use does; the agreement protocols are training-free: they ask the
    embeddings as they are. Clips that cannot be read are left out of the scores, counted and named.

    Without --features the bundle's encoders run over the media, and an interrupted run begins anew: for more than one
    measurement, or where the encoders take long, run 'ovavel train features --bundle' once, which can be interrupted,
    and give its folder as --features.
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
    """Folder for ovave-SPLIT.json and ovave-SPLIT.html; without it the table is only printed."""
    backend: str = "onnxruntime"
    """What runs the graphs: onnxruntime, torch, or another one that is installed."""
    weights: Path | None = None
    """ImageBind checkpoint the bundle was made from; for the backend torch, unless there is a feature cache."""
    head: Path | None = None
    """Checkpoint of the temporal head, for the backend torch."""
    device: str = "auto"
    """Where it runs: cpu, cuda, cuda:N, or auto. What is asked for is what runs, or an error."""
    threads: int | None = None
    """Threads on a CPU; as many as cores by default."""

    def run(self) -> int:
        """Score the split, print the table and write the files."""
        from rich.console import Console

        from ovavel.eval.bench_ovave import Report, load_cached, score_protocol
        from ovavel.eval.features import FeatureCache
        from ovavel.eval.ovavebench import OVAVEBench
        from ovavel.eval.texts import embed_texts
        from ovavel.runtime.backends import open_backend
        from ovavel.runtime.bundle import Bundle

        if not self.protocols:
            raise UsageError("which protocols? For example: --protocols fused agreement")
        options = self._torch_options()
        with Console(stderr=True).status("reading annotations") as status:
            dataset = OVAVEBench.open(self.data, self.annotations)
            clips = dataset.select(self.split)
            if not clips:
                raise DatasetError(f"the annotations of {self.data} hold no clip of the split {self.split}")
            cache = FeatureCache.open(self.features) if self.features else None
            status.update("opening the bundle")
            bundle = Bundle.open(self.bundle)
            status.update("embedding the names")
            text = cache.text if cache else embed_texts(bundle, dataset.names, threads=self.threads)
            status.update("loading the backend")
            backend = open_backend(
                bundle,
                name=self.backend,
                device=self.device,
                threads=self.threads,
                graphs=("head",) if cache else ("vision", "audio", "head"),
                **options,
            )
        try:
            backend.warm_up()
            encoded = load_cached(cache, dataset, bundle, clips) if cache else _encode(dataset, clips, backend)
            truth = dataset.truth(encoded.features.clips)
            protocols: dict[Protocol, None] = dict.fromkeys(self.protocols)
            results = tuple(score_protocol(each, encoded.features, backend.head, text, truth) for each in protocols)
            info = backend.info
        finally:
            backend.close()
        report = Report(
            root=str(self.data),
            split=self.split,
            dataset_fingerprint=dataset.fingerprint,
            names=dataset.names,
            clips=encoded.features.clips,
            damaged=encoded.damaged,
            truth=truth,
            results=results,
            bundle=bundle,
            backend=info,
            cache=cache,
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


def _encode(dataset: OVAVEBench, clips: tuple[Clip, ...], backend: Backend) -> Encoded:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ovavel.eval.bench_ovave import encode_clips

    columns = (
        TextColumn("encoding"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("clips, {task.fields[rate]:.1f} segments/s"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    stderr = Console(stderr=True)
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bars:
        bar = bars.add_task("encoding", total=len(clips), rate=0.0)

        def advance(done: int) -> None:
            elapsed_s = bars.tasks[0].elapsed or 0.0
            bars.update(bar, completed=done, rate=10 * done / max(elapsed_s, 1e-3))

        return encode_clips(dataset, clips, backend, progress=advance)


def _write(report: Report, out: Path) -> list[Path]:
    from ovavel.eval.ovave_report import to_html, to_json
    from ovavel.runtime.files import atomic_write, output_error

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(out, error) from error
    paths = [out / f"ovave-{report.split}.json", out / f"ovave-{report.split}.html"]
    for path, write in zip(paths, (to_json, to_html), strict=True):
        atomic_write(path, write(report))
    return paths


def _print(report: Report, written: list[Path]) -> None:
    from rich.table import Table
    from rich.text import Text

    from ovavel.eval.ovave_report import note, table_rows
    from ovavel.runtime.console import OutputConsole
    from ovavel.runtime.wording import one_line

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
    console.print(note(report), markup=False)
    for record in report.damaged[:_NAMED]:
        clip = one_line(f"{record.split}/{record.category}/{record.name}")
        console.print(f"damaged: {clip}, {record.kind}: {one_line(record.message)}", markup=False)
    if len(report.damaged) > _NAMED:
        console.print(f"damaged: {len(report.damaged) - _NAMED} more; --out names them all", markup=False)
    if written:
        console.print(f"wrote {', '.join(path.name for path in written)} in {written[0].parent}", markup=False)


_NAMED = 10
