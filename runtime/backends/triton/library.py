"""NVIDIA's client library, of which the messages of KServe v2 and the schema of `config.pbtxt` are used."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from ovavel.runtime.errors import MissingExtraError

__all__ = ["Library", "load_library"]


class Library(NamedTuple):
    """The modules that are used."""

    grpc: Any
    messages: Any
    """`service_pb2`: requests and answers."""
    stubs: Any
    """`service_pb2_grpc`: the calls of the server."""
    configs: Any
    """`model_config_pb2`: what `config.pbtxt` holds."""
    text_format: Any
    """protobuf's way to write `config.pbtxt`."""


def load_library(need: str) -> Library:
    """Import the library, which takes half a second.

    Raises:
        MissingExtraError: it is not installed, and `need` needs it.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what it would print is raised as an error as well
    try:
        import grpc
        from google.protobuf import text_format
        from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc
    except (ImportError, RuntimeError) as error:  # the latter where it was installed without [grpc]
        raise MissingExtraError("tritonclient", "triton", need=need) from error
    return Library(grpc, service_pb2, service_pb2_grpc, model_config_pb2, text_format)
