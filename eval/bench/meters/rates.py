"""Best rates of this device, measured in the same run: reading memory and multiplying matrices.

Several libraries measure and the best rate counts, because a slow library must not set the limit. ONNX Runtime and
numpy measure a CPU; other libraries measure through the entry points `ovavel.rates`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.random import default_rng

from ovavel.eval.bench.meters.cost import ENCODERS, flops, is_known, weight_bytes
from ovavel.eval.bench.meters.gemm import gemm_model
from ovavel.eval.bench.report import Floor, Rates
from ovavel.runtime.backends import BackendInfo
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.precision import POOLED
from ovavel.runtime.plugins import plugins

__all__ = ["FLOOR_RULE", "IntegerPeak", "best_rate", "floor", "measure_integer_peak", "measure_rates"]

FLOOR_RULE = (
    "the larger of weight bytes / bandwidth and operations / rate, for both encoders and one window; bandwidth is that "
    "of reading more than caches hold, rate that of multiplying large matrices, both the best of several calls here"
)

_GEMM = (1024, 1280, 5120)  # rows, depth, columns: as the widest product of the vision encoder, for four windows
_SQUARES = (1024, 2048, 4096)
"""Sizes of square matrices: kernels reach their peak at one of them."""
_READ_BYTES = 2**28
_FOR_S = 1.0


def best_rate(work: Callable[[], object], amount: float, *, for_s: float = _FOR_S) -> float:
    """Repeat `work`, which processes `amount`, for a while and return the best rate per second."""
    work()
    best, end_s = 0.0, time.perf_counter() + for_s
    while True:
        begin_s = time.perf_counter()
        work()
        now_s = time.perf_counter()
        best = max(best, amount / (now_s - begin_s))
        if now_s > end_s:
            return best


def measure_rates(device: str, threads: int, libraries: frozenset[str]) -> Rates:
    """Measure `device` ("cpu" or "cuda:N"), on a CPU with `threads` threads.

    Args:
        device: what to measure.
        threads: of a CPU.
        libraries: names of the entry points `ovavel.rates` to ask, where they are installed.
    """
    read, found, by = 0.0, {}, {}
    if device == "cpu":
        read, by["memory"] = _read_rate(threads), "numpy"
        found = {precision: _gemm_rate(precision, threads, *_GEMM) for precision in ("fp32", "int8")}
        by.update(dict.fromkeys(found, "ONNX Runtime"))
    for entry in plugins("ovavel.rates"):
        if entry.name not in libraries:
            continue
        bytes_per_s, flops_per_s = entry.load()(device, threads)
        if bytes_per_s > read:
            read, by["memory"] = bytes_per_s, entry.name
        for precision, rate in flops_per_s.items():
            if rate > found.get(precision, 0.0):
                found[precision], by[precision] = rate, entry.name
    return Rates(device=device, bytes_per_s=read, flops_per_s=found, by=by)


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegerPeak:
    """The highest rate of ONNX Runtime's own 8-bit product, MatMulInteger of large square matrices, in 1e9/s."""

    one_thread_gops: float
    gops: float
    """With all threads."""

    def or_higher(self, other: IntegerPeak) -> IntegerPeak:
        """Return the higher rates of two measurements."""
        return IntegerPeak(
            one_thread_gops=max(self.one_thread_gops, other.one_thread_gops), gops=max(self.gops, other.gops)
        )


def measure_integer_peak(threads: int, *, sizes: Sequence[int] = _SQUARES, for_s: float = _FOR_S) -> IntegerPeak:
    """Return the best rate over square matrices of `sizes`, each multiplied for `for_s` seconds.

    A multiplication and an addition are two operations.
    """
    one, every = (
        max(_gemm_rate("int8", among, size, size, size, for_s=for_s) for size in sizes) / 1e9 for among in (1, threads)
    )
    return IntegerPeak(one_thread_gops=one, gops=max(one, every))


def floor(bundle: Bundle, info: BackendInfo, rates: Rates, stages_p50_ms: Mapping[str, float]) -> Floor | None:
    """Compare the time of both encoders with the theoretical minimum.

    Returns:
        The comparison; None if a rate or a sense is missing, or the operations of these encoders are unknown.
    """
    # The form for every CPU takes the same products, and pooled sound fewer of the same kind.
    formats = {graph: POOLED.get(each, each) for graph, each in info.precision.items()}
    precisions = {graph: formats[graph].removesuffix("-any") for graph in ENCODERS}
    known = rates.bytes_per_s and set(precisions.values()) <= set(rates.flops_per_s)
    config = bundle.manifest.model.config
    if not known or not set(ENCODERS) <= set(stages_p50_ms) or not is_known(config):
        return None
    size = sum(weight_bytes(bundle, graph, info) for graph in ENCODERS)
    work = {graph: flops(config, graph, info.precision[graph]) for graph in ENCODERS}
    memory_ms = size / rates.bytes_per_s * 1e3
    compute_ms = sum(work[graph] / rates.flops_per_s[precision] for graph, precision in precisions.items()) * 1e3
    floor_ms = max(memory_ms, compute_ms)
    return Floor(
        weight_bytes=size,
        flops=sum(work.values()),
        memory_ms=memory_ms,
        compute_ms=compute_ms,
        floor_ms=floor_ms,
        reached=floor_ms / stages_p50_ms["encoders"],
    )


def _read_rate(threads: int) -> float:
    """Bytes read in a second by `threads` threads, each from memory of its own."""
    parts = [np.ones(_READ_BYTES // threads // 4, np.float32) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        return best_rate(lambda: list(pool.map(lambda part: np.dot(part, part), parts)), sum(p.nbytes for p in parts))


def _gemm_rate(precision: str, threads: int, rows: int, depth: int, columns: int, *, for_s: float = _FOR_S) -> float:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        gemm_model(precision, depth, columns), options, providers=["CPUExecutionProvider"]
    )
    random = default_rng(0)
    left = random.integers(0, 128, (rows, depth), np.uint8) if precision == "int8" else random.random((rows, depth))
    feed = {"left": left.astype(np.uint8 if precision == "int8" else np.float32)}
    return best_rate(lambda: session.run(None, feed), 2.0 * rows * depth * columns, for_s=for_s)
