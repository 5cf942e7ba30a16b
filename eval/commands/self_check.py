"""`ovavel eval self-check`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from ovavel.runtime.commands.backend_flag import BackendFlag, check_bundle_backends
from ovavel.runtime.commands.signature_flag import SignatureFlag
from ovavel.runtime.system.bounds import Threads

if TYPE_CHECKING:
    from ovavel.runtime.verification.self_check import SelfCheck as Outcome

__all__ = ["SelfCheck"]


@dataclass(frozen=True, kw_only=True)
class SelfCheck:
    """Compare this machine with PyTorch, without PyTorch: a bundle's golden inputs, stage by stage.

    Examples:
        ovavel eval self-check imagebind
        ovavel eval self-check imagebind --device cuda --precision fp16

    A bundle carries a few windows and what PyTorch made of them, from the raw frame to the decision. This runs them
    with the backend, device and precision that you name, in under a minute, and remembers the outcome for 'ovavel live'
    and 'ovavel localize', which refuse an engine that nobody has compared. If a stage is off, it is named, and the exit
    code is 1. 'ovavel eval parity' compares on your own recordings, and with any two backends.
    """

    bundle: Positional[Path]
    """Folder written by 'ovavel export bundle'."""
    backend: BackendFlag = "onnxruntime"
    device: str = "auto"
    """Where they run: cpu, cuda, cuda:N, or auto. What is asked for is what runs, or an error."""
    precision: str | None = None
    """Of vision and audio, for example int8; the bundle's default for the engine unless given."""
    threads: Threads = None
    """Threads of the encoders on a CPU; as many as cores by default."""
    require_signature: SignatureFlag = None
    record: bool = False
    """Write the outcome into the bundle's manifest too, where it travels with the bundle."""

    def run(self) -> int:
        """Check, print the stages and remember the outcome. Returns 1 if a stage is off."""
        from contextlib import closing

        from ovavel.runtime.backends import open_backend
        from ovavel.runtime.bundle.bundle import Bundle
        from ovavel.runtime.system.progress import shown_progress
        from ovavel.runtime.verification.first_use import accept, changed_since_first_use
        from ovavel.runtime.verification.gates import store_gate
        from ovavel.runtime.verification.golden import Golden
        from ovavel.runtime.verification.self_check import check_stages, graphs_to_check

        check_bundle_backends(self.backend)
        bundle = Bundle.open(self.bundle, signed_by=self.require_signature)
        Golden.load(bundle)  # a bundle without one is reported before its graphs are loaded
        with shown_progress() as progress:
            progress("hashing every file", 0.0)
            bundle.check()  # those too that this engine does not open
            backend = open_backend(
                bundle,
                name=self.backend,
                device=self.device,
                threads=self.threads,
                graphs=graphs_to_check(bundle, name=self.backend, device=self.device),
                precision=self.precision,
                progress=progress,
            )
            with closing(backend):
                check = check_stages(bundle, backend, lambda what, share: progress(f"comparing: {what}", share))
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


def _print(check: Outcome, kept: Path, recorded: Path | None) -> None:
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
        table.add_row(each.stage, verdict, Text(one_line(each.failure or each.told)))
    console.print(table)
    if check.off is None:
        console.print("passed: it decides as PyTorch does", style="bold")
    else:
        console.print(f"NOT passed: the first stage that is off is {check.off}", style="bold")
    told = f"remembered in {kept}" + (f" and in the manifest of {recorded}" if recorded else "")
    console.print(told, markup=False)
