"""A fixed piece of work that measures the current speed of this machine, so that two runs can be compared.

On a shared machine the same window takes a third longer one minute than the next. What slows it slows the yardstick
likewise, if that is work of the same kind and is done right beside it: a picture is resized, a spectrum taken, and the
encoders of the demo's bundle, which ships with ovavel, are run. None of it goes through the code that is measured: a
yardstick that became slower with it would hide that.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy import fft
from numpy.random import default_rng
from PIL import Image

from ovavel.eval.demo.assets import Assets
from ovavel.runtime.backends.onnxruntime.sessions import read_no_files
from ovavel.runtime.errors import MissingExtraError

__all__ = ["YARDSTICK_RULE", "Moment", "Yardstick"]

YARDSTICK_RULE = (
    "just before each window on a CPU, a fixed piece of like work is timed: a picture resized with Pillow, spectra "
    "with numpy, the encoders of the demo's bundle in ONNX Runtime on as many threads; compare divides by that"
)

_WARM_UPS = 5
_FRAME = (640, 360)
_SPECTRA = (200, 512)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One measurement of the yardstick."""

    wall_ms: float
    cpu_ms: float
    """Processor time, of all threads of this process together."""


class Yardstick:
    """The same work, repeatedly."""

    def __init__(self, threads: int) -> None:
        """Run the encoders on `threads` threads.

        Raises:
            MissingExtraError: onnxruntime is not installed.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError("onnxruntime", "cpu", need="The yardstick of a benchmark") from error
        self._sessions = []
        self._used = []  # memory of the sessions
        for files in Assets.open().bundle.load({"vision": "fp32", "audio": "fp32"}).values():
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            options.log_severity_level = 3
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            self._used.append((files, read_no_files(options, files)))
            graph = bytes(files.graph.data)
            with files.loading():
                session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            self._sessions.append(session)
        random = default_rng(0)
        self._picture = Image.fromarray(random.integers(0, 256, (*_FRAME[::-1], 3), np.uint8))
        self._sound = random.standard_normal(_SPECTRA).astype(np.float32)
        self._inputs = [
            random.standard_normal(shape).astype(np.float32) for shape in ((1, 3, 224, 224), (1, 1, 128, 204))
        ]
        for _ in range(_WARM_UPS):
            self.measure()

    def measure(self) -> Moment:
        """Do the work once."""
        begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
        small = self._picture.resize((398, 224), Image.Resampling.BICUBIC)
        np.asarray(small).astype(np.float32).transpose(2, 0, 1).copy()
        np.log(np.abs(fft.rfft(self._sound)) ** 2 + 1)  # no matrix product: numpy's threads spin after one
        for session, given in zip(self._sessions, self._inputs, strict=True):
            session.run(None, {session.get_inputs()[0].name: given})
        return Moment(wall_ms=(time.perf_counter() - begin_s) * 1e3, cpu_ms=(time.process_time() - begin_cpu_s) * 1e3)

    def close(self) -> None:
        """Free its memory."""
        self._sessions = []
