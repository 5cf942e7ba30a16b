"""Opens what runs a bundle and verifies it: engines that were built just now are compared, and the outcome is kept."""

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
    """A backend and what verifies it, looked up once."""

    backend: Backend
    gate: Gate | None
    """None where nobody has compared it with PyTorch."""
    here: bool
    """Whether this machine made the comparison; see `checked_here`."""

    @property
    def text(self) -> str:
        """What verifies it, in a few words."""
        return gate_text(self.gate, here=self.here)


def open_compared(bundle: Bundle, *, progress: Progress = no_progress, **options: Any) -> Backend:
    """Open a backend, see `open_backend`; engines that it built just now are compared with the golden outputs.

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
    """Open a backend as `open_compared` does, and refuse one that does not compute what PyTorch computes.

    Raises:
        UnverifiedError: nobody has compared it with PyTorch, or it failed. Not with `allow_unverified`.
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
    """Return `backend`, opened on `bundle`, and what verifies it, if anything does."""
    gate = find_gate(bundle, backend.info)
    return Verified(backend, gate, checked_here(bundle, gate))


def compare_with_pytorch(bundle: Bundle, backend: Backend, progress: Progress = no_progress) -> Gate | None:
    """Compare `backend` with the bundle's golden outputs and keep the outcome, good or bad, for `require_gate`.

    None where that cannot be done: the bundle has no golden outputs, or not all graphs of a decision were opened.

    Raises:
        BundleError: the golden file is damaged.
        DeviceError: the backend failed.
        OutputError, InputError: the gate cannot be kept; see `store_gate`.
    """
    if GOLDEN not in bundle.manifest.files or not set(DECIDING) <= backend.info.precision.keys():
        return None
    gate = self_check(bundle, backend, prefixed(progress, "comparing "))
    store_gate(bundle, backend.info, gate)
    return gate
