"""Calls of a Triton server over gRPC (KServe v2), each with a deadline."""

from __future__ import annotations

import os
import re
import ssl
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from ovavel.runtime.backends.triton.library import load_library
from ovavel.runtime.errors import DeviceError, UsageError
from ovavel.runtime.reporting.redaction import hide, without_secrets
from ovavel.runtime.reporting.text import one_line

__all__ = ["TOKEN_VARIABLE", "Client"]

Question: TypeAlias = tuple[str, Any]
"""Name of a call, and its request."""

TOKEN_VARIABLE = "OVAVEL_TRITON_TOKEN"  # noqa: S105 - its name
_ADDRESS = re.compile(r"(grpcs?)://(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(?::([0-9]{1,5}))?/?")
_PORT = "8001"
_OPTIONS = (
    # What the head returns for many names is larger than gRPC's default of 4 MB; Triton has no limit either.
    ("grpc.max_receive_message_length", -1),
    # A server that has restarted is found at once, not after gRPC's default of up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Nothing but the address on the command line decides where frames and sound are sent.
    ("grpc.enable_http_proxy", 0),
)
_PAUSE_S = 0.2
_LONGEST_MESSAGE = 300


class Client:
    """A connection to one server. Calls may come from several threads."""

    def __init__(self, device: str, deadline_s: float) -> None:
        """Prepare calls of the server at the address `device`, each of which may take `deadline_s`.

        Raises:
            MissingExtraError: tritonclient is not installed.
            UsageError: `device` is not an address, a token is malformed or would be sent without TLS, or SSL_CERT_FILE
                cannot be read.
        """
        found = _ADDRESS.fullmatch(device)
        if found is None or not 0 < int(found[3] or _PORT) < 65_536:
            raise UsageError(
                "the backend triton needs the address of its server: --device grpc://HOST:PORT, or grpcs:// with TLS, "
                f"not {without_secrets(device)!r}"
            )
        scheme, host, port = found[1], found[2], found[3] or _PORT
        self.library = load_library("The backend 'triton'")
        self.address = f"{scheme}://{host}:{port}"
        self._deadline_s = deadline_s
        self._channel = self._connect(f"{host}:{port}", tls=scheme == "grpcs")
        self._stub = self.library.stubs.GRPCInferenceServiceStub(self._channel)

    def _connect(self, target: str, *, tls: bool) -> Any:
        grpc = self.library.grpc
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        if token:
            hide(token)
        if not all(" " <= character <= "~" for character in token):
            raise UsageError(
                f"{TOKEN_VARIABLE} holds a character that is not printable ASCII, which no token may have: set it to "
                "the token alone"
            )
        if not tls:
            if token:
                raise UsageError(
                    f"{TOKEN_VARIABLE} is set, and without TLS anybody could read it on its way: use grpcs:// in "
                    "--device, or unset it"
                )
            return grpc.insecure_channel(target, options=_OPTIONS)
        # gRPC has authorities of its own, and would use them where this file is missing.
        trusted = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
        try:
            credentials = grpc.ssl_channel_credentials(Path(trusted).read_bytes() if trusted else None)
        except OSError as error:
            raise UsageError(
                f"the authorities in {trusted} cannot be read: {error.strerror}; correct the variable SSL_CERT_FILE"
            ) from error
        if token:
            credentials = grpc.composite_channel_credentials(credentials, grpc.access_token_call_credentials(token))
        return grpc.secure_channel(target, credentials, options=_OPTIONS)

    def ask(self, *questions: Question, patient: bool = True) -> Sequence[Any]:
        """Send `questions` at the same time and return the answers in their order.

        Where the server is unavailable or its queue is full, a `patient` caller asks again until the deadline: an
        answer depends on nothing but its question.

        Raises:
            DeviceError: there is no answer, or it is an error; says why.
        """
        end_s = time.monotonic() + self._deadline_s
        grpc = self.library.grpc
        while True:
            calls: list[Any] = []
            try:
                for name, request in questions:
                    left_s = max(end_s - time.monotonic(), 0.001)
                    calls.append(getattr(self._stub, name).future(request, timeout=left_s))
                return [call.result() for call in calls]
            except grpc.RpcError as error:
                for call in calls:
                    call.cancel()
                away = error.code() is grpc.StatusCode.UNAVAILABLE
                if not (away and patient) or time.monotonic() + _PAUSE_S > end_s:
                    raise DeviceError(self._failure(error)) from error
            except (ValueError, grpc.FutureCancelledError) as error:  # another thread has closed it
                raise DeviceError(f"the connection to the Triton server at {self.address} was closed") from error
            time.sleep(_PAUSE_S)

    def _failure(self, error: Any) -> str:
        """Describe an error of gRPC or of the server in one line, with advice."""
        code, server = error.code().name, f"the Triton server at {self.address}"
        details = one_line(" ".join((error.details() or code).split()))[:_LONGEST_MESSAGE].rstrip(". ")
        if code == "UNAVAILABLE":
            return f"{server} is unavailable: {details}. Start it, or correct --device"
        if code == "DEADLINE_EXCEEDED":
            return f"{server} did not answer within {self._deadline_s:g} s; see its log, or give it less to do"
        if code == "RESOURCE_EXHAUSTED":
            return (
                f"a message is too large for {server}, or a proxy before it: {details}. Allow larger ones there, or "
                "write the repository again with a smaller --max-batch"
            )
        if code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
            return f"{server} refuses access: {details}. Its token is read from the variable {TOKEN_VARIABLE}"
        if code == "UNIMPLEMENTED":
            return f"what answers at {self.address} is not a Triton server: {details}. Correct --device"
        return f"{server} failed: {details} ({code}); see its log"

    def close(self) -> None:
        """End the connection. May be called twice."""
        self._channel.close()
