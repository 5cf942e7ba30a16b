"""The flag --backend, in one wording for every command that has it."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import arg

from ovavel.runtime.errors import UsageError

__all__ = ["BackendFlag", "BackendOrTorchFlag", "BackendsFlag", "ReferenceBackendFlag", "check_bundle_backends"]

_NAMES = "onnxruntime, openvino, tensorrt, tensorrt-rtx"
_WHERE = "or another that is installed; 'ovavel doctor' shows what this machine has"

BackendFlag = Annotated[str, arg(help=f"What runs the graphs: {_NAMES}, {_WHERE}.")]
"""Name of one backend."""
BackendsFlag = Annotated[tuple[str, ...], arg(help=f"What runs the graphs, one row each: {_NAMES}, {_WHERE}.")]
"""Names of several."""
BackendOrTorchFlag = Annotated[str, arg(help=f"What runs the graphs: {_NAMES}, torch (needs --weights), {_WHERE}.")]
"""Name of one, of a command that can give PyTorch its checkpoints."""
ReferenceBackendFlag = Annotated[
    str | None, arg(help="What runs the reference, in place of the default; names as for --backend.")
]
"""Name of the one to compare with."""


def check_bundle_backends(*names: str) -> None:
    """Refuse what cannot run a bundle's own graphs, before a camera or a file is opened.

    Raises:
        UsageError: one is PyTorch, which runs the checkpoints behind a bundle, or no backend at all.
    """
    from ovavel.runtime.backends import backend_names

    for name in names:
        if name == "torch":
            raise UsageError(
                "--backend torch cannot run a bundle: PyTorch runs the checkpoint that it was made from. Leave it out, "
                "or compare with it: give --weights to 'ovavel eval parity' or 'ovavel bench'"
            )
        if name not in backend_names():
            raise UsageError(f"there is no backend {name!r}; known: {', '.join(backend_names()) or 'none'}")
