"""`ovavel bundle check`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ovavel.runtime.commands.options import EngineOptions

if TYPE_CHECKING:
    from ovavel.runtime.verification.self_check import SelfCheck

__all__ = ["Check"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """Verify a bundle on this machine against PyTorch's stored results, stage by stage.

    Examples:
        ovavel bundle check --bundle imagebind
        ovavel bundle check --bundle imagebind --device cuda --precision fp16

    A bundle carries a few windows and PyTorch's results for them, from the raw frame to the decision. This command runs
    those windows with the given backend, device and precision in under a minute; PyTorch is not needed. It stores the
    outcome for 'ovavel live' and 'ovavel localize', which refuse an engine that has not been verified. If a stage
    disagrees, it is named and the exit code is 1. 'ovavel eval parity' compares any two backends on your recordings.
    """

    bundle: Path
    """Folder written by 'ovavel bundle export'."""
    engine: EngineOptions = field(default_factory=EngineOptions)
    """What runs the bundle, and where."""
    record: bool = False
    """Also write the outcome into the bundle's manifest, so that it travels with the bundle."""

    def run(self) -> int:
        """Check, print the stages and store the outcome. Returns 1 if a stage disagrees."""
        from contextlib import closing

        from ovavel.runtime.backends import open_backend
        from ovavel.runtime.system.bars import shown_progress
        from ovavel.runtime.system.progress import prefixed
        from ovavel.runtime.verification.first_use import accept, changed_since_first_use
        from ovavel.runtime.verification.gates import store_gate
        from ovavel.runtime.verification.golden import Golden
        from ovavel.runtime.verification.self_check import check_stages, graphs_to_check

        bundle = self.engine.open_bundle(self.bundle)
        Golden.load(bundle)  # a bundle without one is reported before its graphs are loaded
        with shown_progress() as progress:
            progress("hashing every file")
            bundle.check()  # including those that this engine does not open
            backend = open_backend(
                bundle,
                graphs=graphs_to_check(bundle, name=self.engine.backend, device=self.engine.device),
                progress=progress,
                **self.engine.backend_options,
            )
            with closing(backend):
                check = check_stages(bundle, backend, prefixed(progress, "comparing: "))
        changed = changed_since_first_use(bundle, backend.info)
        if check.gate.passed:
            accept(bundle)
        kept = store_gate(bundle, backend.info, check.gate)
        if self.record:
            bundle.save_gates([check.gate])
        _print(check, kept, bundle.path if self.record else None)
        if changed:
            print(f"{'accepted' if check.gate.passed else 'not accepted'}: {changed}")
        return 0 if check.gate.passed else 1


def _print(check: SelfCheck, kept: Path, recorded: Path | None) -> None:
    from rich.table import Table
    from rich.text import Text

    from ovavel.runtime.reporting.console import OutputConsole
    from ovavel.runtime.reporting.text import one_line

    gate = check.gate
    console = OutputConsole(highlight=False, soft_wrap=True)
    precisions = ", ".join(f"{graph} {precision}" for graph, precision in gate.precision.items())
    console.print(f"{gate.engine} on {gate.device}: {precisions}", markup=False)
    table = Table(title=f"against {gate.reference}, {gate.inputs} frames and sounds, {check.seconds_s:.1f} s")
    for title in ("stage", "", "measured"):
        table.add_column(title)
    for each in check.stages:
        verdict = Text("off", "bold red") if each.failure else Text("ok", "green")
        table.add_row(each.stage, verdict, Text(one_line(each.failure or each.summary)))
    console.print(table)
    if check.failed_stage is None:
        console.print("passed: it agrees with PyTorch", style="bold")
    else:
        console.print(f"NOT passed: the first failed stage is {check.failed_stage}", style="bold")
    note = f"remembered in {kept}" + (f" and in the manifest of {recorded}" if recorded else "")
    console.print(note, markup=False)
