"""ONNX Runtime on NVIDIA GPUs: session options, a check of where nodes run, and replay of CUDA graphs.

A GPU computes a window faster than a CPU can launch its hundreds of kernels one by one. So they are recorded once as a
CUDA graph for each of a few batch sizes and replayed with one launch. A recording contains addresses, so input and
output stay in fixed buffers on the device.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ovavel.runtime.errors import DeviceError, UsageError
from ovavel.runtime.install import replace_runtime

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "BATCHES",
    "OLDEST_FOR_HEAD",
    "OLDEST_TO_RECORD",
    "FixedBatches",
    "check_head",
    "check_placement",
    "check_recording",
    "cuda_options",
]

# B batch, D embedding size

OLDEST_TO_RECORD = (1, 30)
"""Version of ONNX Runtime; with recordings of several shapes, older ones may read stale buffers."""
OLDEST_FOR_HEAD = (1, 27)
"""Version of ONNX Runtime; older ones have no CUDA kernels for the head's ReduceMax and ReduceMin (of opset 20)."""

BATCHES = (1, 2, 4, 8)
"""Recorded batch sizes. Others are padded to the next of them, or split."""


def cuda_options(gpu: int, *, record: bool) -> dict[str, str]:
    """Return the options of ONNX Runtime's CUDA provider, with or without recording."""
    return {
        "device_id": str(gpu),
        "use_tf32": "0",  # fp32 must be fp32; TF32 has errors of 1e-3
        "arena_extend_strategy": "kSameAsRequested",  # the default takes up to twice the size of the weights
        "cudnn_conv_algo_search": "HEURISTIC",  # the default benchmarks all and is not deterministic
        "enable_cuda_graph": "1" if record else "0",
    }


def check_recording(version: str) -> None:
    """Check that ONNX Runtime of `version` replays recordings correctly.

    Raises:
        DeviceError: it is older than `OLDEST_TO_RECORD`.
    """
    _check_version(
        version,
        OLDEST_TO_RECORD,
        "may replay recorded launches with stale data",
        "open the backend with cuda_graphs=False, or use --device cpu",
    )


def check_head(version: str) -> None:
    """Check that ONNX Runtime of `version` can run the head on a GPU.

    Raises:
        DeviceError: it is older than `OLDEST_FOR_HEAD`.
    """
    _check_version(version, OLDEST_FOR_HEAD, "cannot run the head on a GPU", "use --device cpu")


def _check_version(version: str, oldest: tuple[int, int], what: str, otherwise: str) -> None:
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if not numbers or (int(numbers[1]), int(numbers[2])) < oldest:
        raise DeviceError(
            f"ONNX Runtime {version} {what}; {'.'.join(map(str, oldest))} or newer is needed: "
            f"{replace_runtime('gpu')}. Or {otherwise}"
        )


def check_placement(session: Any, provider: str, what: str) -> None:
    """Check that `provider` runs every node of `session`; `what` names the graph.

    The session must have been opened with "session.record_ep_graph_assignment_info".

    Raises:
        DeviceError: another provider runs some of them, which are listed.
    """
    elsewhere: dict[str, set[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        if part.ep_name != provider:
            elsewhere.setdefault(part.ep_name, set()).update(node.op_type for node in part.get_nodes())
    if elsewhere:
        others = "; ".join(f"{name} runs {', '.join(sorted(types))}" for name, types in elsewhere.items())
        raise DeviceError(f"{provider} does not run all of {what}: {others}. Use --device cpu, or another precision")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slot:
    """Buffers of one batch size, with the binding of its recording."""

    host: NDArray[np.float32]
    """(B, ...) staging buffer for a batch."""
    input: Any
    output: Any
    """OrtValues on the device."""
    binding: Any
    options: Any
    """Run options with the number of the recording."""


class FixedBatches:
    """An encoder session that only runs batches of the sizes in `BATCHES`. Calls may come from several threads.

    All work is done in one dedicated thread, because ONNX Runtime records per thread. The recordings are made in the
    constructor, one after the other: no other thread may use the device meanwhile.
    """

    def __init__(self, session: Any, device: str, gpu: int) -> None:
        """Record `session` on `device` number `gpu`: "cuda", or "cpu" to do the same without recording."""
        (source,), (target,) = session.get_inputs(), session.get_outputs()
        self._session = session
        self._row = tuple(source.shape[1:])
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"ovavel-{source.name}")
        self._slots: dict[int, _Slot] = {}
        try:
            for number, size in enumerate(BATCHES, 1):  # 0 is ONNX Runtime's own
                slot = _slot(session, device, gpu, number, (size, *self._row), (size, *target.shape[1:]))
                self._slots[size] = slot
                self._worker.submit(self._fill_and_run, slot, slot.host).result()
        except BaseException:
            self.close()
            raise

    def run(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, ...) → (B, D), for any B.

        Raises:
            UsageError: `array` does not have the shape and type of the encoder's input.
        """
        if array.shape[1:] != self._row or array.dtype != np.float32 or not len(array):
            raise UsageError(f"the input must be float32 (B, {', '.join(map(str, self._row))}) with at least one row")
        return self._worker.submit(self._run, array).result()

    def close(self) -> None:
        """Free the buffers and end the thread."""
        self._worker.shutdown()
        self._slots.clear()

    def _run(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        largest = BATCHES[-1]
        answers = []
        for rows in (array[start : start + largest] for start in range(0, len(array), largest)):
            slot = self._slots[next(size for size in BATCHES if size >= len(rows))]
            answers.append(self._fill_and_run(slot, rows))
        return np.concatenate(answers)

    def _fill_and_run(self, slot: _Slot, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        slot.host[: len(rows)] = rows  # rows are independent, so stale rows after these do no harm
        slot.input.update_inplace(slot.host)
        self._session.run_with_iobinding(slot.binding, slot.options)
        answer: NDArray[np.float32] = slot.output.numpy()[: len(rows)].copy()  # on a CPU, a view of the buffer
        return answer


def _slot(
    session: Any, device: str, gpu: int, number: int, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
) -> _Slot:
    import onnxruntime as ort

    host = np.zeros(input_shape, np.float32)
    source = ort.OrtValue.ortvalue_from_numpy(host, device, gpu)
    target = ort.OrtValue.ortvalue_from_shape_and_type(output_shape, np.float32, device, gpu)
    binding = session.io_binding()
    binding.bind_ortvalue_input(session.get_inputs()[0].name, source)
    binding.bind_ortvalue_output(session.get_outputs()[0].name, target)
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(number))
    return _Slot(host=host, input=source, output=target, binding=binding, options=options)
