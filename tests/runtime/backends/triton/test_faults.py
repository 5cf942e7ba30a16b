"""A server that dies, restarts, hangs, changes or answers nonsense: an error that says so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import trustme
from support.demo_copies import BUNDLE
from support.triton_server import TritonServer

from ovavel.runtime.backends.triton import open_triton
from ovavel.runtime.backends.triton.backend import TritonBackend
from ovavel.runtime.backends.triton.client import TOKEN_VARIABLE
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.errors import DeviceError, UsageError

FRAMES = np.zeros((1, 3, 224, 224), np.float32)
LONG_S = 60.0
"""Nothing on loopback takes so long."""


@pytest.fixture
def opened() -> Iterator[Callable[..., TritonBackend]]:
    """Opens the demo's bundle on a server."""
    backends = []

    def open_it(server: TritonServer, deadline_s: float = LONG_S) -> TritonBackend:
        backends.append(open_triton(Bundle.open(BUNDLE), device=server.address, deadline_s=deadline_s))
        return backends[-1]

    yield open_it
    for backend in backends:
        backend.close()


def test_no_server_is_reported_at_once(server: TritonServer) -> None:
    server.stop()
    with pytest.raises(DeviceError, match=rf"the Triton server at {server.address} is unavailable: .*Start it, or"):
        open_triton(Bundle.open(BUNDLE), device=server.address, deadline_s=LONG_S)


def test_a_server_that_restarts_is_waited_for(
    server: TritonServer, repository: Path, opened: Callable[..., TritonBackend]
) -> None:
    backend = opened(server)
    before = backend.vision(FRAMES)
    dies = threading.Event()

    def die(_: object) -> None:
        server.kill()
        dies.set()

    server.before = die
    with ThreadPoolExecutor(1) as pool:
        later = pool.submit(backend.vision, FRAMES)
        assert dies.wait(LONG_S)
        server.stop()
        again = TritonServer(repository, port=server.port)
        try:
            np.testing.assert_array_equal(later.result(LONG_S), before)
        finally:
            again.stop()


def test_a_server_that_stays_away_is_an_error(server: TritonServer, opened: Callable[..., TritonBackend]) -> None:
    backend = opened(server, deadline_s=2.0)
    server.stop()
    with pytest.raises(DeviceError, match="is unavailable"):
        backend.vision(FRAMES)


def test_a_server_that_hangs_is_an_error(server: TritonServer, opened: Callable[..., TritonBackend]) -> None:
    backend = opened(server, deadline_s=2.0)
    hangs = threading.Event()
    server.before = lambda _: hangs.wait(LONG_S)
    try:
        with pytest.raises(DeviceError, match="did not answer within 2 s; see its log"):
            backend.vision(FRAMES)
    finally:
        hangs.set()


def test_a_model_that_is_replaced_meanwhile_decides_nothing(
    server: TritonServer, opened: Callable[..., TritonBackend]
) -> None:
    backend = opened(server)
    backend.vision(FRAMES)
    server.models["vision"].config.parameters["ovavel_graph_sha256"].string_value = "0" * 64
    backend.audio(np.zeros((1, 1, 128, 204), np.float32))
    with pytest.raises(DeviceError, match=r"now has another model 'vision' or config.pbtxt than when"):
        backend.vision(FRAMES)


def test_a_model_that_is_unloaded_meanwhile_is_an_error(
    server: TritonServer, opened: Callable[..., TritonBackend]
) -> None:
    backend = opened(server)
    del server.models["vision"]
    with pytest.raises(DeviceError, match=r"failed: Request for unknown model: 'vision' is not found \(NOT_FOUND\)"):
        backend.vision(FRAMES)


def nan(response) -> None:  # type: ignore[no-untyped-def]
    response.raw_output_contents[0] = np.full(64, np.nan, np.float32).tobytes()


def cut_off(response) -> None:  # type: ignore[no-untyped-def]
    response.raw_output_contents[0] = response.raw_output_contents[0][:-4]


def another_shape(response) -> None:  # type: ignore[no-untyped-def]
    response.outputs[0].shape[:] = [2, 32]


def another_type(response) -> None:  # type: ignore[no-untyped-def]
    response.outputs[0].datatype = "FP16"


def nothing(response) -> None:  # type: ignore[no-untyped-def]
    del response.outputs[:]


def no_bytes(response) -> None:  # type: ignore[no-untyped-def]
    del response.raw_output_contents[:]


@pytest.mark.parametrize(
    ("altered", "message"),
    [
        (nan, "returns values that are not finite numbers as 'embedding'"),
        (cut_off, r"returns FP32 \(1, 64\) in 252 bytes as 'embedding', and FP32 \(1, 64\) is needed"),
        (another_shape, r"returns FP32 \(2, 32\) in 256 bytes"),
        (another_type, r"returns FP16 \(1, 64\)"),
        (nothing, "returns nothing in 0 bytes"),
        (no_bytes, r"returns FP32 \(1, 64\) in 0 bytes"),
    ],
)
def test_a_wrong_answer_is_an_error(
    server: TritonServer, opened: Callable[..., TritonBackend], altered: Callable[[object], None], message: str
) -> None:
    backend = opened(server)
    server.altered = altered
    with pytest.raises(DeviceError, match=message):
        backend.vision(FRAMES)


def test_a_message_that_is_too_large_is_reported(repository: Path, opened: Callable[..., TritonBackend]) -> None:
    server = TritonServer(repository, largest_bytes=500_000)
    try:
        backend = opened(server)
        with pytest.raises(DeviceError, match=r"a message is too large for .* a smaller --max-batch"):
            backend.vision(FRAMES)
    finally:
        server.stop()


def test_what_is_not_a_triton_server_is_reported() -> None:
    with ThreadPoolExecutor(1) as pool:
        other = grpc.server(pool)
        port = other.add_insecure_port("127.0.0.1:0")
        other.start()
        try:
            with pytest.raises(DeviceError, match=f"what answers at grpc://127.0.0.1:{port} is not a Triton server"):
                open_triton(Bundle.open(BUNDLE), device=f"grpc://127.0.0.1:{port}")
        finally:
            other.stop(None).wait()


def test_tls_and_a_token(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    own = authority.issue_cert("127.0.0.1")
    key, (chain, *_) = own.private_key_pem.bytes(), [each.bytes() for each in own.cert_chain_pems]
    server = TritonServer(repository, credentials=grpc.ssl_server_credentials([(key, chain)]), token="let-me-in")
    bundle = Bundle.open(BUNDLE)
    try:
        with pytest.raises(DeviceError, match="is unavailable"):  # its certificate is not trusted
            open_triton(bundle, device=server.address)
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        with pytest.raises(DeviceError, match=rf"refuses access: .*{TOKEN_VARIABLE}"):
            open_triton(bundle, device=server.address)
        monkeypatch.setenv(TOKEN_VARIABLE, "let-me-in")
        backend = open_triton(bundle, device=server.address)
        assert backend.vision(FRAMES).shape == (1, 64)
        backend.close()
        with pytest.raises(UsageError, match="without TLS anybody could read it"):
            open_triton(bundle, device=server.address.replace("grpcs", "grpc"))
    finally:
        server.stop()


@pytest.mark.parametrize("token", ["let\nme-in", "let-me-in\tplease", "läßt-mich-ein", "let\udcffme-in"])
def test_a_token_that_no_header_can_carry_is_named(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, f" {token} ")
    with pytest.raises(UsageError, match=f"{TOKEN_VARIABLE} holds a character") as caught:
        open_triton(Bundle.open(BUNDLE), device="grpcs://127.0.0.1:1")
    assert token not in str(caught.value)


def test_authorities_that_are_missing_are_not_replaced_by_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with pytest.raises(UsageError, match=r"ca\.pem cannot be read: No such file or directory; correct the variable"):
        open_triton(Bundle.open(BUNDLE), device="grpcs://127.0.0.1:1")
