"""Speed of a bundle on this machine, in MLPerf's scenarios, next to PyTorch.

Each window goes through the runtime's own parts. `run` opens what is to be measured and goes through the scenarios:
`single` (one window after the other), `offline` (as many as possible), `live` (cameras that do not wait) and `capture`
(from a camera to the decision). `compare` tells two reports apart from noise.
"""

from __future__ import annotations

from ovavel.eval.bench.report import STAGES, BackendReport, BenchReport, Ratio, Row
from ovavel.eval.bench.rows import RowSpec
from ovavel.eval.bench.run import run_bench
from ovavel.eval.bench.settings import SCENARIOS, Settings

__all__ = [
    "SCENARIOS",
    "STAGES",
    "BackendReport",
    "BenchReport",
    "Ratio",
    "Row",
    "RowSpec",
    "Settings",
    "run_bench",
]
