"""Open a verified backend: newly built engines are compared with PyTorch and the result is stored."""

from __future__ import annotations

from typing import Any, NamedTuple

from ovavel.runtime.backends import Backend, BuildsEngines, open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.graphs import DECIDING
from ovavel.runtime.bundle.manifest import Gate
from ovavel.runtime.system.progress import Progress, no_progress, prefixed
from ovavel.runtime.verification.gates import checked_here, find_gate, gate_text, require_gate, store_gate
from ovavel.runtime.verification.golden import GOLDEN
from ovavel.runtime.verification.self_check import self_check

__all__ = ["Verified", "compare_with_pytorch", "look_up", "open_compared", "open_verified"]


class Verified(NamedTuple):
    """A backend and the gate that verifies it."""

    backend: Backend
    gate: Gate | None
    """None if it has not been verified against PyTorch."""
    here: bool
    """Whether the comparison was made on this machine; see `checked_here`."""

    @property
    def text(self) -> str:
        """Description of the gate in a few words."""
        return gate_text(self.gate, here=self.here)


def open_compared(bundle: Bundle, *, progress: Progress = no_progress, **options: Any) -> Backend:
    """Open a backend (see `open_backend`) and compare newly built engines with the golden outputs.

    Raises:
        OvavelError: as `open_backend` and `compare_with_pytorch`.
    """
    backend = open_backend(bundle, progress=progress, **options)
    try:
        if isinstance(backend, BuildsEngines) and any(engine.built_now for engine in backend.engines.values()):
            compare_with_pytorch(bundle, backend, progress)
    except BaseException:
        backend.close()
        raise
    return backend


def open_verified(
    bundle: Bundle,
    *,
    allow_unverified: bool = False,
    progress: Progress = no_progress,
    **options: Any,
) -> Verified:
    """Open a backend like `open_compared`, and refuse one that disagrees with PyTorch.

    Raises:
        UnverifiedError: it has not been verified against PyTorch, or failed; not raised with `allow_unverified`.
        OvavelError: as `open_compared`.
    """
    backend = open_compared(bundle, progress=progress, **options)
    try:
        gate = require_gate(bundle, backend.info, allow_unverified=allow_unverified)
    except BaseException:
        backend.close()
        raise
    return Verified(backend, gate, checked_here(bundle, gate))


def look_up(bundle: Bundle, backend: Backend) -> Verified:
    """Return `backend`, opened on `bundle`, with its gate, if any."""
    gate = find_gate(bundle, backend.info)
    return Verified(backend, gate, checked_here(bundle, gate))


def compare_with_pytorch(bundle: Bundle, backend: Backend, progress: Progress = no_progress) -> Gate | None:
    """Compare `backend` with the bundle's golden outputs and store the gate, passed or not, for `require_gate`.

    Returns None if the bundle has no golden outputs or not all graphs of a decision were opened.

    Raises:
        BundleError: the golden file is damaged.
        DeviceError: the backend failed.
        OutputError, InputError: the gate cannot be stored; see `store_gate`.
    """
    if GOLDEN not in bundle.manifest.files or not set(DECIDING) <= backend.info.precision.keys():
        return None
    gate = self_check(bundle, backend, prefixed(progress, "comparing "))
    store_gate(bundle, backend.info, gate)
    return gate
