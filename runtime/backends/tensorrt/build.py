"""Build one engine: parse the ONNX file, optimize for fixed batch sizes, write the plan."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ovavel.runtime.backends.tensorrt import layers
from ovavel.runtime.backends.tensorrt.library import Library
from ovavel.runtime.backends.tensorrt.plan import METADATA, PLAN, TEXT_INPUTS, Engine, EngineFor, Evidence
from ovavel.runtime.bundle.bundle import file_entry
from ovavel.runtime.errors import DeviceError, EngineError, OutputError
from ovavel.runtime.system.files import atomic_write, output_error
from ovavel.runtime.system.progress import Progress, no_progress
from ovavel.runtime.types import BUFFER

if TYPE_CHECKING:
    from ovavel.runtime.backends.tensorrt.cuda import Cuda

__all__ = ["build_engine", "profiles_of"]

# B batch, T segments, D embedding size, C classes with the background last

MOST_CLASSES = 4096
"""Largest C of the head; leaves room so that a new vocabulary needs no new engine."""
_USUAL_CLASSES = 68  # those of OV-AVEBench, and the background
_PARSED, _BUILT = 0.1, 0.95  # shares of the work
_POLL_S = 0.1

_one_at_a_time = threading.Lock()  # the library has one log for all builders
_log = logging.getLogger(__name__)


def build_engine(
    onnx: Path,
    folder: Path,
    made_for: EngineFor,
    library: Library,
    *,
    cuda: Cuda | None = None,
    timing_cache: Path | None = None,
    progress: Progress = no_progress,
) -> Engine:
    """Build the engine of the file `onnx` into the existing, empty `folder`: the plan and its description.

    Args:
        onnx: the graph, in the precision of `made_for`.
        folder: where `engine.plan` and `engine.json` are written.
        made_for: graph, precision, options, and a compute capability that `library` builds for.
        library: the library to build with.
        cuda: the GPU to build on. TensorRT needs one to benchmark kernels; TensorRT-RTX does not.
        timing_cache: file of earlier measurements, which TensorRT uses and adds to.
        progress: called in the calling thread.

    Raises:
        EngineError: the library cannot build it, or the result computes in a different precision than `made_for`.
        OutputError: the plan cannot be written.
        KeyboardInterrupt: on Ctrl-C, once the library has finished its current step.
    """
    state = _State()
    worker = threading.Thread(
        target=state.keep,
        args=(lambda: _build(onnx, made_for, library, cuda, timing_cache, state),),
        name="ovavel-build",
    )
    started_s = time.monotonic()
    with _one_at_a_time:
        # The library runs in another thread so that this one can handle Ctrl-C. This one must not return first, or
        # memory would be freed while in use. (Thread.join may return early when it is interrupted.)
        worker.start()
        try:
            while not state.done.wait(_POLL_S):
                progress(state.stage, state.share)
        finally:
            state.cancelled = True
            state.done.wait()
            worker.join()
        plan, evidence = state.result()
    progress(f"writing {made_for.graph}", _BUILT)
    try:
        with os.fdopen(os.open(folder / PLAN, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(plan)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise output_error(folder / PLAN, error) from error
    engine = Engine(
        made_for=made_for,
        plan=file_entry(folder / PLAN),
        evidence=evidence,
        build_s=round(time.monotonic() - started_s, 2),
    )
    atomic_write(folder / METADATA, msgspec.json.format(msgspec.json.encode(engine), indent=2) + b"\n", private=True)
    progress(f"built {made_for.graph}", 1.0)
    return engine


class _State:
    """State shared by the building and the waiting thread."""

    def __init__(self) -> None:
        self.stage = "starting"
        self.share = 0.0
        self.cancelled = False
        self.done = threading.Event()
        self._result: tuple[Any, Evidence] | None = None
        self._error: BaseException | None = None

    def keep(self, work: Callable[[], tuple[Any, Evidence]]) -> None:
        try:
            self._result = work()
        except BaseException as error:  # noqa: BLE001 - raised again in the waiting thread
            self._error = error
        finally:
            self.done.set()

    def result(self) -> tuple[Any, Evidence]:
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result


def _build(
    onnx: Path, made_for: EngineFor, library: Library, cuda: Cuda | None, timing_cache: Path | None, state: _State
) -> tuple[Any, Evidence]:
    """Return the plan, in the library's own memory, and the evidence for its precision."""
    trt, where = library.module, f"{onnx.name} with {library.title} {library.version}"
    if cuda is not None:
        cuda.select()
    library.errors.clear()
    library.layers.clear()
    state.stage = f"reading {made_for.graph}"
    builder = trt.Builder(library.logger)
    # Version 11 knows no other kind of network, and one day not the flag either.
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(1 << int(typed) if typed is not None else 0)
    parser = trt.OnnxParser(network, library.logger)
    if not parser.parse_from_file(str(onnx)):
        said = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors)) or library.complaint()
        raise EngineError(f"cannot build {where}: {' '.join(said.split())[:600]}. Use another precision or backend")
    for tensor in [
        *map(network.get_input, range(network.num_inputs)),
        *map(network.get_output, range(network.num_outputs)),
    ]:
        if tensor.dtype not in (trt.DataType.FLOAT, trt.DataType.INT64):
            raise EngineError(
                f"{onnx.name} has {tensor.name} in {tensor.dtype.name.lower()}; inputs and outputs must be fp32"
            )
    products = layers.check_network(network, made_for.number_format, where=onnx.name)
    state.share = _PARSED
    config = _configure(builder, network, made_for, library)
    if not library.rtx:
        _use_timings(config, timing_cache)
    config.progress_monitor = _monitor(trt, made_for.graph, state)
    plan = None if state.cancelled else builder.build_serialized_network(network, config)
    if not library.rtx and timing_cache is not None:
        _keep_timings(config, timing_cache)  # also of a build that was cancelled: the next one need not measure again
    if state.cancelled:
        raise KeyboardInterrupt
    if plan is None:
        raise EngineError(f"cannot build {where}: {library.complaint()}. Use another precision, GPU or backend")
    source, made_of = "network", []
    if library.layers:
        source, made_of = "network and build log", layers.logged_layers(library.layers[-1])
    elif cuda is not None:
        source, made_of = "network and engine inspector", _inspect(plan, library)
    found = layers.check_engine(made_of, products, made_for.number_format, where=where)
    counts = Counter(each.precision for each in products)
    return plan, Evidence(products=dict(counts), found=found, read_from=source if found is not None else "network")


def _configure(builder: Any, network: Any, made_for: EngineFor, library: Library) -> Any:
    trt, options = library.module, made_for.options
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the engine can then be asked what it computes in
    config.clear_flag(trt.BuilderFlag.TF32)  # fp32 means fp32
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb * 2**20)
    if library.rtx:
        config.num_compute_capabilities = 1
        number = made_for.compute_capability.replace(".", "")
        config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{number}"), 0)
    inputs = {tensor.name: tuple(tensor.shape) for tensor in map(network.get_input, range(network.num_inputs))}
    for sizes in profiles_of(made_for, inputs):
        profile = builder.create_optimization_profile()
        for name, (least, usual, most) in sizes.items():
            profile.set_shape(name, least, usual, most)
        if config.add_optimization_profile(profile) < 0:
            raise EngineError(f"{library.title} takes no profile for {made_for.graph}: {library.complaint()}")
    return config


_Shape = tuple[int, ...]


def profiles_of(made_for: EngineFor, inputs: dict[str, _Shape]) -> list[dict[str, tuple[_Shape, _Shape, _Shape]]]:
    """Return the minimum, optimum and maximum shape of every input, one dictionary per profile.

    An encoder gets a profile of fixed shapes for each batch size, since fixed shapes run fastest. The head is small
    and its T and C vary, so one profile covers all of them.
    """
    batches = made_for.options.batches
    if made_for.graph == "head":
        segments = ((1, 1), (1, BUFFER), (max(batches), BUFFER))
        texts = ((1,), (_USUAL_CLASSES,), (MOST_CLASSES,))
        return [
            {
                name: tuple((*size, shape[-1]) for size in (texts if name in TEXT_INPUTS else segments))  # type: ignore[misc]
                for name, shape in inputs.items()
            }
        ]
    return [{name: ((batch, *shape[1:]),) * 3 for name, shape in inputs.items()} for batch in batches]


def _monitor(trt: Any, graph: str, state: _State) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Converts nested phases into one share of the work: a phase is a step of its parent."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._lock = threading.Lock()  # the library calls from several threads
            self._phases: dict[str, tuple[str | None, int, int]] = {}  # name → parent, steps, steps done

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._phases[phase_name] = parent_phase, max(num_steps, 1), 0

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._phases.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                if phase_name in self._phases:
                    parent, steps, _ = self._phases[phase_name]
                    self._phases[phase_name] = parent, steps, step + 1
                    share = _PARSED + (_BUILT - _PARSED) * self._share(phase_name)
                    state.share = max(state.share, min(share, _BUILT))
                state.stage = f"building {graph}: {phase_name.lower()}"
            return not state.cancelled

        def _share(self, phase: str) -> float:
            share = 0.0
            name: str | None = phase
            while name in self._phases:
                parent, steps, done = self._phases[name]
                share = min(1.0, (done + share) / steps)
                name = parent
            return share

    return Monitor()


def _use_timings(config: Any, path: Path | None) -> None:
    try:
        kept = path.read_bytes() if path else b""
    except OSError:  # the first build on this machine
        kept = b""
    cache = config.create_timing_cache(kept)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        _log.info("%s is damaged or was written for another driver; measuring everything again", path)
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def _keep_timings(config: Any, path: Path) -> None:
    cache = config.get_timing_cache()
    if cache is None:  # the library does not support one; the engine is still built
        return
    try:
        atomic_write(path, bytes(memoryview(cache.serialize())), private=True)
    except OutputError as error:  # the next build measures again
        _log.warning("%s", error)


def _inspect(plan: Any, library: Library) -> list[layers.EngineLayer]:
    """Return the layers of the built engine. Loading it needs the GPU it was built on."""
    trt = library.module
    runtime = trt.Runtime(library.logger)  # outlives its engine
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise DeviceError(f"the engine that was just built cannot be loaded: {library.complaint()}")
    inspector = engine.create_engine_inspector()
    return layers.engine_layers(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
