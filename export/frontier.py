"""Speed against faithfulness on this CPU: every way to run the encoders, in turns, in one run.

Each candidate is a process of its own, so that its memory is known, and each window goes through all of them one after
the other, so that a busy moment of the machine meets all. Those whose turn it is not are idle.
"""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ovavel.eval.machine import Machine, describe_machine, peak_memory_mb
from ovavel.export.activations import Activation, observe_activations
from ovavel.export.candidates import CANDIDATES, Candidate
from ovavel.export.graphs import traced
from ovavel.export.inputs import SENSES, Sense, calibration_inputs, sense_inputs
from ovavel.export.outliers import plant_outliers
from ovavel.runtime.backends.onnxruntime import open_session, physical_cores
from ovavel.runtime.errors import DeviceError, ExportError, OvavelError
from ovavel.runtime.requirements import requirement
from ovavel.runtime.timing import Percentiles

if TYPE_CHECKING:
    from ovavel.training.imagebind import ImageBindConfig

__all__ = ["Frontier", "FrontierRow", "default_of", "measure_frontier"]

# B batch, D embedding size

_START_LIMIT_S, _WINDOW_LIMIT_S = 600, 120
_REST_S = 0.05  # the threads of one candidate come to rest before the next one is timed
_WARM_UP = 2

Tell: TypeAlias = Callable[[str, float], None]
"""Told what happens now, and which share of the whole is done."""
Run: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierRow:
    """One candidate's figures."""

    name: str
    not_measured: str | None = None
    """Why there is nothing below."""
    window_ms: Percentiles | None = None
    """Of vision and audio together, one window at a time."""
    times_faster: float = 0
    """Than PyTorch eager fp32: the median of the ratios of the pairs."""
    times_faster_p5: float = 0
    times_faster_p95: float = 0
    min_cosine: Mapping[Sense, float] | None = None
    """With PyTorch eager fp32, by encoder, over all windows."""
    peak_mb: float = 0
    """Most memory its process had, in units of 2^20 bytes."""
    gate: str = ""
    """The precision whose requirements it is held to."""
    passed: bool = False
    exported: bool = False
    """Whether a bundle can have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """All candidates on one machine, with one set of weights."""

    machine: Machine
    model: str
    weights: str
    """What they are, in words."""
    windows: int
    threads: int
    rows: tuple[FrontierRow, ...]
    default: str | None
    """Name of the fastest one that a bundle can have and that passes its gate."""


def measure_frontier(
    weights: Path,
    folder: Path,
    *,
    config: ImageBindConfig,
    outliers: bool = False,
    windows: int = 24,
    threads: int | None = None,
    candidates: Sequence[Candidate] = CANDIDATES,
    tell: Tell = lambda _stage, _share: None,
) -> Frontier:
    """Write the encoders in every form into `folder` and run all candidates in turns.

    Args:
        weights: ImageBind checkpoint.
        folder: an empty one, for the graphs: 9 GB at full size. It is the caller's to remove.
        config: size of the model.
        outliers: give the weights the outliers of trained ones first.
        windows: how many each candidate runs, all of them different.
        threads: cores to use; None: as many as this process has.
        candidates: the first one is what the others are compared with.
        tell: told about each stage.

    Raises:
        CheckpointError: `weights` is not what it should be.
        ExportError: the reference could not be measured.
    """
    cases: dict[Sense, list[NDArray[np.float32]]] = {
        encoder: [array[None] for array in sense_inputs(encoder, range(windows)).values()][:windows]
        for encoder in SENSES
    }
    for number, encoder in enumerate(SENSES):
        tell(f"{encoder}: writing", number / 4)
        _write(encoder, weights, folder, config, candidates, outliers=outliers)
    threads = threads or physical_cores()
    with ExitStack() as stack:
        workers: dict[str, _Worker | str] = {}
        for number, candidate in enumerate(candidates):
            tell(f"loading {candidate.name}", 0.5 + 0.1 * number / len(candidates))
            try:
                workers[candidate.name] = stack.enter_context(_worker(candidate, folder, config, threads))
            except OvavelError as error:
                workers[candidate.name] = str(error)
        running = {name: worker for name, worker in workers.items() if isinstance(worker, _Worker)}
        durations_ms: dict[str, list[float]] = {name: [] for name in running}
        answers: dict[str, dict[Sense, list[NDArray[np.float32]]]] = {
            name: {encoder: [] for encoder in SENSES} for name in running
        }
        count = len(cases["vision"])
        for turn in range(-_WARM_UP, count):
            tell(f"window {max(turn, 0) + 1} of {count}", 0.6 + 0.4 * max(turn, 0) / count)
            for name, worker in running.items():
                time.sleep(_REST_S)
                embeddings, duration_ms = worker.run({encoder: cases[encoder][max(turn, 0)] for encoder in SENSES})
                if turn >= 0:
                    durations_ms[name].append(duration_ms)
                    for encoder in SENSES:
                        answers[name][encoder].append(embeddings[encoder])
        memory_mb = {name: worker.memory_mb() for name, worker in running.items()}
    if candidates[0].name not in running:
        raise ExportError(f"{candidates[0].name} could not be measured: {workers[candidates[0].name]}")
    reference = candidates[0].name
    rows = tuple(
        _row(candidate, durations_ms, answers, memory_mb[candidate.name], reference)
        if candidate.name in running
        else FrontierRow(name=candidate.name, not_measured=str(workers[candidate.name]), gate=candidate.gate)
        for candidate in candidates
    )
    return Frontier(
        machine=describe_machine(),
        model=f"imagebind_{config.name}",
        weights=f"{weights.name}, with outliers planted" if outliers else weights.name,
        windows=count,
        threads=threads,
        rows=rows,
        default=default_of(rows),
    )


def default_of(rows: Sequence[FrontierRow]) -> str | None:
    """Return the name of the fastest candidate that a bundle can have and that passes its gate."""
    fit = [row for row in rows if row.exported and row.passed]
    return max(fit, key=lambda row: row.times_faster).name if fit else None


def _write(
    encoder: Sense,
    weights: Path,
    folder: Path,
    config: ImageBindConfig,
    candidates: Sequence[Candidate],
    *,
    outliers: bool,
) -> None:
    """Write the graph of `encoder` in each form that is asked for, and its weights for PyTorch."""
    import onnx_ir
    from safetensors.torch import save_model

    from ovavel.training.imagebind import ImageBind

    tower = ImageBind.load(weights, config, modalities=(encoder,)).towers[encoder]
    if outliers:
        plant_outliers(tower)
    seen: list[Activation] = observe_activations(tower, calibration_inputs(encoder))
    save_model(tower, str(folder / f"{encoder}.safetensors"))
    model = traced(encoder, tower, embedding_size=config.embedding_size)
    del tower
    written = set()
    for candidate in candidates:
        if candidate.engine != "torch" and candidate.file not in written:
            written.add(candidate.file)
            form = model.clone()
            if candidate.write:
                candidate.write(form, seen)
            name = f"{encoder}.{candidate.file}.onnx"
            onnx_ir.save(form, folder / name, external_data=f"{name}.data")
            del form
            gc.collect()


def _row(
    candidate: Candidate,
    durations_ms: Mapping[str, list[float]],
    answers: Mapping[str, Mapping[Sense, list[NDArray[np.float32]]]],
    memory_mb: float,
    reference: str,
) -> FrontierRow:
    own, theirs = (np.array(durations_ms[name]) for name in (candidate.name, reference))
    p5, p50, p95 = np.percentile(theirs / own, [5, 50, 95])
    cosines = {
        encoder: min(map(_cosine, answers[candidate.name][encoder], answers[reference][encoder])) for encoder in SENSES
    }
    return FrontierRow(
        name=candidate.name,
        window_ms=Percentiles(*(float(value) for value in np.percentile(own, [50, 95, 99]))),
        times_faster=float(p50),
        times_faster_p5=float(p5),
        times_faster_p95=float(p95),
        min_cosine=cosines,
        peak_mb=memory_mb,
        gate=candidate.gate,
        passed=min(cosines.values()) >= requirement(candidate.gate).min_cosine,
        exported=candidate.exported,
    )


def _cosine(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    """Cosine similarity, in float64: in float32 it is off by as much as some candidates are."""
    a, b = ours.astype(np.float64).ravel(), theirs.astype(np.float64).ravel()
    cosine = float(a @ b / np.sqrt((a @ a) * (b @ b)))
    return cosine if np.isfinite(cosine) else -1.0


class _Worker:
    """The process of one candidate."""

    def __init__(self, name: str, connection: Connection) -> None:
        self._name = name
        self._connection = connection

    def run(self, inputs: Mapping[Sense, NDArray[np.float32]]) -> tuple[dict[Sense, NDArray[np.float32]], float]:
        """Return the embeddings of a window and the milliseconds they took."""
        answer: tuple[dict[Sense, NDArray[np.float32]], float] = self._ask(inputs, _WINDOW_LIMIT_S)
        return answer

    def memory_mb(self) -> float:
        """Most memory that was resident."""
        memory: float = self._ask(None, _WINDOW_LIMIT_S)
        return memory

    def wait(self) -> None:
        """Wait until it has loaded.

        Raises:
            OvavelError: it could not.
        """
        problem = self._receive(_START_LIMIT_S)
        if problem is not None:
            raise DeviceError(problem)

    def _ask(self, question: object, limit_s: float) -> Any:
        self._connection.send(question)
        return self._receive(limit_s)

    def _receive(self, limit_s: float) -> Any:
        try:
            if self._connection.poll(limit_s):
                return self._connection.recv()
        except (EOFError, ConnectionError) as error:
            raise DeviceError(f"the process of {self._name} died; was there too little memory?") from error
        raise DeviceError(f"the process of {self._name} did not answer within {limit_s} s")


@contextmanager
def _worker(candidate: Candidate, folder: Path, config: ImageBindConfig, threads: int) -> Iterator[_Worker]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    arguments = (candidate.engine, candidate.file, candidate.computes, folder, config, threads, theirs)
    process = context.Process(target=_serve, args=arguments, daemon=True)
    process.start()
    theirs.close()
    try:
        worker = _Worker(candidate.name, ours)
        worker.wait()
        yield worker
    finally:
        ours.close()
        process.join(10)
        process.kill()


def _serve(
    engine: str, file: str, computes: str, folder: Path, config: ImageBindConfig, threads: int, connection: Connection
) -> None:
    """Load both encoders, say so, and run what comes until the other side is gone."""
    try:
        encoders = {encoder: _OPEN[engine](folder, encoder, file, computes, config, threads) for encoder in SENSES}
    except Exception as error:  # noqa: BLE001  the other side tells it
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
        embeddings = {encoder: run(inputs[encoder]) for encoder, run in encoders.items()}
        connection.send((embeddings, (time.perf_counter() - begin_s) * 1e3))


def _open_onnxruntime(
    folder: Path, encoder: Sense, file: str, _computes: str, _config: ImageBindConfig, threads: int
) -> Run:
    session = open_session(folder / f"{encoder}.{file}.onnx", None, threads)
    (name,) = (value.name for value in session.get_inputs())
    return lambda array: session.run(None, {name: array})[0]


def _open_openvino(
    folder: Path, encoder: Sense, file: str, computes: str, _config: ImageBindConfig, threads: int
) -> Run:
    from ovavel.runtime.backends.openvino import compile_graph

    request = compile_graph(folder / f"{encoder}.{file}.onnx", computes, threads, batch=1)
    return lambda array: np.array(request.infer([array])[0])


def _open_torch(folder: Path, encoder: Sense, _file: str, computes: str, config: ImageBindConfig, threads: int) -> Run:
    import torch
    from safetensors.torch import load_model

    from ovavel.training.imagebind import ImageBind

    torch.set_num_threads(threads)
    tower = ImageBind(config, modalities=(encoder,)).towers[encoder]
    load_model(tower, str(folder / f"{encoder}.safetensors"))
    dtype = torch.float32 if computes == "fp32" else torch.bfloat16
    tower = tower.to(dtype).eval()

    def run(array: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            answer: NDArray[np.float32] = tower(torch.from_numpy(array).to(dtype)).float().numpy()
        return answer

    return run


_OPEN: Mapping[str, Callable[..., Run]] = {
    "torch": _open_torch,
    "onnxruntime": _open_onnxruntime,
    "openvino": _open_openvino,
}
