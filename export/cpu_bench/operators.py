"""Where the time of a graph goes, by operator, from ONNX Runtime's own profile."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.random import default_rng

from ovavel.runtime.errors import DeviceError

__all__ = ["operator_times"]

_RUNS = 8


def operator_times(graph: Path, threads: int, shape: tuple[int, ...], *, runs: int = _RUNS) -> Mapping[str, float]:
    """Run `graph` on random inputs of `shape` and return the milliseconds of a run by operator, the largest first.

    They are medians over the runs, after a first one.

    Raises:
        DeviceError: the graph cannot be run.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.enable_profiling = True
    given = default_rng(0).standard_normal(shape, np.float32)
    with TemporaryDirectory(prefix="ovavel-profile-") as folder:
        options.profile_file_prefix = f"{folder}/profile"
        try:
            session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            for _ in range(1 + runs):
                session.run(None, {session.get_inputs()[0].name: given})
        except Exception as error:  # onnxruntime's errors share no base class
            raise DeviceError(f"ONNX Runtime cannot profile {graph.name}: {error}") from error
        events = json.loads(Path(session.end_profiling()).read_bytes())
    return _by_operator(events)


def _by_operator(events: list[dict[str, object]]) -> Mapping[str, float]:
    """Sum the kernels of each operator between the starts of two runs, and take the medians."""
    starts = sorted(float(str(event["ts"])) for event in events if event["name"] == "model_run")
    totals: list[defaultdict[str, float]] = [defaultdict(float) for _ in starts]
    for event in events:
        if event.get("cat") == "Node" and str(event["name"]).endswith("_kernel_time"):
            run = int(np.searchsorted(starts, float(str(event["ts"])), "right")) - 1
            arguments = event["args"]
            assert isinstance(arguments, dict)
            totals[run][arguments["op_name"]] += float(str(event["dur"])) / 1e3
    counted = totals[1:]
    names = {name for run in counted for name in run}
    medians = {name: float(np.median([run[name] for run in counted])) for name in names}
    return dict(sorted(medians.items(), key=lambda item: -item[1]))
