"""`ovavel eval parity`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from ovavel.runtime.commands.options import ChannelFlag, EngineOptions, Many, Maybe, backend_help, parse_channel
from ovavel.runtime.errors import UsageError
from ovavel.runtime.system.bounds import Meta

if TYPE_CHECKING:
    from ovavel.eval.parity.clips import DatasetClips, RecordedClips
    from ovavel.eval.parity.compare import ParityReport
    from ovavel.eval.parity.runs import BackendSpec
    from ovavel.runtime.bundle.bundle import Bundle

__all__ = ["Parity"]

_FLIPS = 8


@dataclass(frozen=True, kw_only=True)
class CandidateOptions(EngineOptions):
    """What runs the candidate: a bundle's own graphs, or PyTorch with its checkpoints."""

    backend: Annotated[str, arg(help=backend_help(more="torch (needs --weights), "))] = "onnxruntime"


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Compare two backends stage by stage and decision by decision, and report whether they are equivalent.

    Examples:
        ovavel eval parity --bundle imagebind --weights imagebind_huge.pth --head head.safetensors --data ovavebench
        ovavel eval parity recordings/ --bundle imagebind --precision int8            # against its own fp32
        ovavel eval parity clip.mp4 --bundle untrained --device cuda --precision fp16 --weights imagebind_huge.pth
        ovavel eval parity recordings/ --bundle new-bundle --reference-bundle old-bundle

    The candidate is the bundle with --backend, --device and --precision. The reference is PyTorch in fp32 if --weights
    is given (with --head, if the bundle has a trained head), else ONNX Runtime on the CPU in fp32, with the same bundle
    or --reference-bundle. Both process the same clips, and adversarial inputs: black, saturated, noise, silence,
    clipped and so on. The requirements depend on the candidate's precision; docs/parity.md lists and explains them. If
    one is missed, the first failed stage is named and the exit code is 1. It is also 1 if a recording could not be
    read; the others are still compared. Against PyTorch in fp32 the outcome is stored on this machine, for 'ovavel
    live' and 'ovavel localize'.
    """

    recordings: Positional[Many[Path]] = ()
    """Recordings, or folders to search for them, instead of --data. The reference's decisions are the truth."""
    bundle: Path
    """Folder written by 'ovavel bundle export'."""
    data: Maybe[Path] = None
    """A labelled dataset in OV-AVEBench's folder layout."""
    annotations: Maybe[Path] = None
    """Folder of its annotation files, if it is neither the root nor its subfolder annotations."""
    split: Literal["test", "val", "train"] = "test"
    """Which of its clips."""
    clips: Maybe[Annotated[int, Meta(ge=1, le=1_000_000_000)]] = None
    """Number of readable clips of --data, evenly spread over the split; all by default."""
    engine: CandidateOptions = field(default_factory=CandidateOptions)
    """What runs the candidate, and where."""
    weights: Many[Path] = ()
    """What the bundle was made from, ImageBind's checkpoint or the folders of CLIP and CLAP: the reference is PyTorch.
    """
    head: Maybe[Path] = None
    """Checkpoint of the temporal head, for PyTorch; required if the bundle has a trained head."""
    reference_bundle: Maybe[Path] = None
    """Another bundle for the reference."""
    reference_backend: Maybe[str] = None
    """What runs the reference, instead of the default; names as for --backend."""
    reference_device: str = "cpu"
    """Where the reference runs."""
    reference_precision: str = "fp32"
    """The reference's precision of vision and audio."""
    channel: ChannelFlag = "auto"
    out: Maybe[Path] = None
    """Folder for parity.json and parity.html; without it the figures are only printed."""
    record: bool = False
    """Write the outcome into the bundle's manifest; only against PyTorch in fp32."""

    def run(self) -> int:
        """Compare, print and write. Returns 1 if the gate fails or a recording could not be read."""
        from ovavel.runtime.system.files import check_report_folder, output_folder

        check_report_folder(self.out, "parity.json")
        with output_folder(self.out):
            return self._compare()

    def _compare(self) -> int:
        from ovavel.eval.parity.compare import PYTORCH, compare_backends
        from ovavel.eval.parity.report import look_again, to_html, to_json
        from ovavel.runtime.bundle.bundle import Bundle
        from ovavel.runtime.system.bars import rated_bar
        from ovavel.runtime.system.files import atomic_write
        from ovavel.runtime.verification.gates import store_gate

        bundle = Bundle.open(self.bundle, signed_by=self.engine.require_signature)
        candidate, reference = self._candidate(bundle), self._reference(bundle)
        if self.record and (reference.backend, reference.precision) != ("torch", "fp32"):
            raise UsageError("--record is for a comparison with PyTorch in fp32: give --weights")
        clips = self._clips()
        with rated_bar("s", rate="× real time") as progress:
            report = compare_backends(reference, candidate, clips, progress=progress)
        if report.reference == PYTORCH:
            store_gate(bundle, report.candidate_info, report.gate)
        if self.record:
            bundle.save_gates([report.gate])
        written = []
        if self.out:
            written = [self.out / "parity.json", self.out / "parity.html"]
            for path, data in zip(written, (to_json(report), to_html(report, look_again(clips))), strict=True):
                atomic_write(path, data)
        _print(report, written)
        lost = _report_lost(clips)
        return 0 if report.gate.passed and not lost else 1

    def _candidate(self, bundle: Bundle) -> BackendSpec:
        from ovavel.eval.parity.runs import BackendSpec

        return BackendSpec(
            bundle=bundle,
            backend=self.engine.backend,
            device=self.engine.device,
            precision=self.engine.precision,
            threads=self.engine.threads,
            options=self._checkpoints() if self.engine.backend == "torch" else {},
        )

    def _reference(self, bundle: Bundle) -> BackendSpec:
        from ovavel.eval.parity.runs import BackendSpec
        from ovavel.runtime.bundle.bundle import Bundle as OpenBundle

        backend = self.reference_backend or ("torch" if self.weights else "onnxruntime")
        other = OpenBundle.open(self.reference_bundle) if self.reference_bundle else bundle
        return BackendSpec(
            bundle=other,
            backend=backend,
            device=self.reference_device,
            precision=self.reference_precision,
            threads=self.engine.threads,
            options=self._checkpoints() if backend == "torch" else {},
        )

    def _checkpoints(self) -> dict[str, tuple[Path, ...] | Path | None]:
        return {"weights": self.weights, "head": self.head}

    def _clips(self) -> DatasetClips | RecordedClips:
        from ovavel.eval.datasets.ovavebench import OVAVEBench
        from ovavel.eval.parity.clips import DatasetClips, RecordedClips
        from ovavel.runtime.commands.localize import find_media

        if self.data and self.recordings:
            raise UsageError("a run compares either on --data or on recordings: leave one of them out")
        if not (self.data or self.recordings):
            raise UsageError("compare on what? Name recordings, or give a labelled dataset with --data")
        channel = parse_channel(self.channel)
        if self.data and channel != "auto":
            raise UsageError(
                "--channel is for recordings; with --data the first channel is used, as published: leave it out"
            )
        if self.recordings and (self.clips is not None or self.annotations):
            flag = "--annotations" if self.annotations else "--clips"
            raise UsageError(f"{flag} is for --data; name the recordings to compare on and leave it out")
        if self.data:
            return DatasetClips(OVAVEBench.open(self.data, self.annotations), self.split, self.clips)
        return RecordedClips(find_media(self.recordings), channel)


def _report_lost(clips: DatasetClips | RecordedClips) -> int:
    """List the recordings that could not be read, and return their number. Those of a dataset are in the report."""
    from ovavel.eval.parity.clips import RecordedClips
    from ovavel.runtime.commands.localize import print_unreadable

    if not isinstance(clips, RecordedClips):
        return 0
    print_unreadable(clips.damaged)
    return len(clips.damaged)


def _print(report: ParityReport, written: list[Path]) -> None:
    from rich.table import Table
    from rich.text import Text

    from ovavel.eval.parity.report import (
        FLIP_COLUMNS,
        GRAPH_COLUMNS,
        MEASURE_COLUMNS,
        decision_facts,
        flip_cells,
        graph_rows,
        measure_rows,
        verdict,
    )
    from ovavel.runtime.reporting.console import OutputConsole
    from ovavel.runtime.reporting.text import one_line

    console = OutputConsole(highlight=False, soft_wrap=True)
    console.print(one_line(f"{report.candidate} on {report.gate.device} against {report.reference}"), markup=False)
    console.print(one_line(f"{report.clips}, and adversarial inputs"), markup=False)
    truth = "Acc., Seg., Eve. and Avg." if report.decisions.labelled else "measures, with the reference as the truth"
    stages = [(each.stage, "off" if each.failure else "ok", each.failure or each.summary) for each in report.stages]
    tables: list[tuple[str, tuple[str, ...], Sequence[tuple[str, ...]]]] = [
        ("embeddings", GRAPH_COLUMNS, graph_rows(report)),
        (truth, MEASURE_COLUMNS, measure_rows(report)),
        (f"flipped seconds, {_FLIPS} at most", FLIP_COLUMNS, flip_cells(report, _FLIPS)),
        ("gate", ("stage", "", "measured"), stages),
    ]
    for name, columns, rows in tables:
        if rows:
            shown = Table(*columns, title=name)
            for row in rows:
                shown.add_row(*(Text(one_line(cell)) for cell in row))
            console.print(shown)
    for name, value in decision_facts(report):
        console.print(one_line(f"{name}: {value}"), markup=False)
    console.print(one_line(verdict(report)), style="bold", markup=False)
    if written:
        console.print(
            one_line(f"wrote {', '.join(path.name for path in written)} in {written[0].parent}"), markup=False
        )
