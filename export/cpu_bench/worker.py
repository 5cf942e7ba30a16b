"""Process of one candidate of the frontier."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ovavel.eval.bench.machine import peak_memory_mb
from ovavel.export.cpu_bench.candidates import Candidate
from ovavel.export.inputs import SENSES, Sense
from ovavel.runtime.backends.onnxruntime.sessions import open_session, open_sessions
from ovavel.runtime.bundle.hashed import read_graph
from ovavel.runtime.bundle.precision import of_graph
from ovavel.runtime.errors import DeviceError

if TYPE_CHECKING:
    from ovavel.training.models.imagebind.model import ImageBindConfig

__all__ = ["Encoded", "Worker", "open_worker"]

# D embedding size

_START_LIMIT_S, _WINDOW_LIMIT_S = 600, 120

Window: TypeAlias = Mapping[Sense, NDArray[np.float32]]
"""Prepared inputs, a batch of one each, or their embeddings, (1, D)."""
Run: TypeAlias = Callable[[Window], tuple[Window, Mapping[Sense, float]]]
"""Returns the embeddings, and each encoder's milliseconds where they run one after the other."""

_NOTHING: Window = {
    "vision": np.zeros((1, 3, 224, 224), np.float32),
    "audio": np.zeros((1, 1, 128, 204), np.float32),
}


class Encoded(NamedTuple):
    """A window that went through both encoders."""

    embeddings: Window
    total_ms: float
    each_ms: Mapping[Sense, float]
    """By encoder; empty where one graph holds both."""


class Worker:
    """Connection to the process of one candidate."""

    def __init__(self, name: str, connection: Connection) -> None:
        self._name = name
        self._connection = connection
        self.first_result_s = 0.0
        """From the start of the process to its first window, all included."""

    def run(self, inputs: Window) -> Encoded:
        """Return the embeddings of a window and the time they took."""
        result: Encoded = self._request(inputs, _WINDOW_LIMIT_S)
        return result

    def memory_mb(self) -> float:
        """Return the process's peak resident memory."""
        memory: float = self._request(None, _WINDOW_LIMIT_S)
        return memory

    def wait(self) -> None:
        """Wait until the candidate is loaded.

        Raises:
            DeviceError: it could not be loaded.
        """
        problem = self._receive(_START_LIMIT_S)
        if problem is not None:
            raise DeviceError(problem)

    def _request(self, message: object, limit_s: float) -> Any:
        try:
            self._connection.send(message)
        except OSError as error:
            raise DeviceError(f"the process of {self._name} died, possibly because memory ran out") from error
        return self._receive(limit_s)

    def _receive(self, limit_s: float) -> Any:
        try:
            if self._connection.poll(limit_s):
                return self._connection.recv()
        except (EOFError, ConnectionError) as error:
            raise DeviceError(f"the process of {self._name} died, possibly because memory ran out") from error
        raise DeviceError(f"the process of {self._name} did not answer within {limit_s} s")


@contextmanager
def open_worker(candidate: Candidate, folder: Path, config: ImageBindConfig, threads: int) -> Iterator[Worker]:
    """Start the process of `candidate`, with the graphs and weights in `folder`, and end it afterwards.

    Raises:
        DeviceError: the process could not load them.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    # Only these fields: `Candidate.write` cannot be pickled, and is not needed there.
    arguments = (candidate.engine, candidate.file, candidate.computes, folder, config, threads, theirs)
    process = context.Process(target=_serve, args=arguments, daemon=True)
    begin_s = time.perf_counter()
    process.start()
    theirs.close()
    try:
        started = Worker(candidate.name, ours)
        started.wait()
        started.first_result_s = time.perf_counter() - begin_s
        yield started
    finally:
        ours.close()
        process.join(10)
        process.kill()


def _serve(
    engine: str, file: str, computes: str, folder: Path, config: ImageBindConfig, threads: int, connection: Connection
) -> None:
    """Load both encoders, report success, and run windows until the connection closes."""
    try:
        run = _OPEN[engine](folder, file, computes, config, threads)
        run(_NOTHING)  # detects candidates that cannot run
    except Exception as error:  # noqa: BLE001  reported by the parent
        connection.send(str(error) or type(error).__name__)
        return
    connection.send(None)
    while True:
        try:
            inputs = connection.recv()
        except (EOFError, ConnectionError):
            return
        if inputs is None:
            connection.send(peak_memory_mb())
            continue
        begin_s = time.perf_counter()
        embeddings, each_ms = run(inputs)
        connection.send(Encoded(embeddings, (time.perf_counter() - begin_s) * 1e3, each_ms))


def _in_turn(encoders: Mapping[Sense, Callable[[NDArray[np.float32]], NDArray[np.float32]]]) -> Run:
    def run(window: Window) -> tuple[Window, Mapping[Sense, float]]:
        embeddings, each_ms = {}, {}
        for sense, encode in encoders.items():
            begin_s = time.perf_counter()
            embeddings[sense] = encode(window[sense])
            each_ms[sense] = (time.perf_counter() - begin_s) * 1e3
        return embeddings, each_ms

    return run


def _open_onnxruntime(folder: Path, file: str, _computes: str, _config: ImageBindConfig, threads: int) -> Run:
    graphs = {sense: read_graph(folder / f"{sense}.{of_graph(sense, file)}.onnx") for sense in SENSES}
    sessions = open_sessions(graphs, dict.fromkeys(SENSES, threads))

    def encoder(sense: Sense) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        name = sessions[sense].get_inputs()[0].name
        return lambda given: sessions[sense].run(None, {name: given})[0]

    return _in_turn({sense: encoder(sense) for sense in SENSES})


def _open_joined(folder: Path, file: str, _computes: str, _config: ImageBindConfig, threads: int) -> Run:
    session = open_session(read_graph(folder / f"joined.{file}.onnx"), None, threads)
    names = [value.name for value in session.get_inputs()]

    def run(window: Window) -> tuple[Window, Mapping[Sense, float]]:
        outputs = session.run(None, {name: window[sense] for name, sense in zip(names, SENSES, strict=True)})
        return dict(zip(SENSES, outputs, strict=True)), {}

    return run


def _open_openvino(folder: Path, file: str, computes: str, _config: ImageBindConfig, threads: int) -> Run:
    from ovavel.runtime.backends.openvino import compile_graph

    def encoder(sense: Sense) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        request = compile_graph(read_graph(folder / f"{sense}.{file}.onnx"), computes, threads, batch=1)
        return lambda given: np.array(request.infer([given])[0])

    return _in_turn({sense: encoder(sense) for sense in SENSES})


def _open_torch(folder: Path, _file: str, computes: str, config: ImageBindConfig, threads: int) -> Run:
    import torch
    from safetensors.torch import load_model

    from ovavel.training.models.imagebind.model import ImageBind

    torch.set_num_threads(threads)
    dtype = torch.float32 if computes == "fp32" else torch.bfloat16

    def encoder(sense: Sense) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        tower = ImageBind(config, modalities=(sense,)).towers[sense]
        load_model(tower, str(folder / f"{sense}.safetensors"))
        tower = tower.to(dtype).eval()

        @torch.inference_mode()
        def encode(given: NDArray[np.float32]) -> NDArray[np.float32]:
            found: NDArray[np.float32] = tower(torch.from_numpy(given).to(dtype)).float().numpy()
            return found

        return encode

    return _in_turn({sense: encoder(sense) for sense in SENSES})


_OPEN: Mapping[str, Callable[..., Run]] = {
    "torch": _open_torch,
    "onnxruntime": _open_onnxruntime,
    "onnxruntime, one graph": _open_joined,
    "openvino": _open_openvino,
}
