"""The backend `triton`: the graphs run on a Triton Inference Server, which is asked over the network.

`ovavel bundle triton` writes what the server loads (docs/triton.md). The client library is not loaded until then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ovavel.runtime.bundle.graphs import Graph

if TYPE_CHECKING:
    from ovavel.runtime.backends.triton.backend import TritonBackend
    from ovavel.runtime.bundle.bundle import Bundle

__all__ = ["open_triton"]

_DEADLINE_S = 20.0
"""Shorter than the service waits for its encoder, so that its log says what was wrong with the server."""


def open_triton(
    bundle: Bundle,
    *,
    device: str = "auto",
    threads: int | None = None,  # noqa: ARG001 - every backend is given it; the server has threads of its own
    graphs: Sequence[Graph] = ("vision", "audio", "head"),
    precision: str | None = None,
    deadline_s: float = _DEADLINE_S,
) -> TritonBackend:
    """Connect to a server that has the models of `graphs`, written from `bundle` by `ovavel bundle triton`.

    Args:
        bundle: the models must be of its graphs; nothing of it is sent.
        device: address of the server, grpc://HOST:PORT, or grpcs:// with TLS.
        threads: ignored.
        graphs: which models to use; only these may be called.
        precision: of vision and audio; None: the one that the server has.
        deadline_s: seconds that a call may take, the wait for a server that restarts included.

    Raises:
        MissingExtraError: tritonclient is not installed.
        UsageError: `device` is not an address.
        DeviceError: the server cannot be reached, or a model is not ready. There is no fallback.
        BundleError: a model is not of this bundle, or was changed so that it no longer fits it.
    """
    from ovavel.runtime.backends.triton.backend import open_models
    from ovavel.runtime.backends.triton.client import Client

    client = Client(device, deadline_s)
    try:
        return open_models(client, bundle, graphs, precision)
    except BaseException:
        client.close()
        raise
