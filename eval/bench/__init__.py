"""Benchmark of a bundle on this machine in MLPerf's scenarios, optionally beside PyTorch.

Each window goes through the runtime's own parts. `run` opens the rows and runs the scenarios: `single` (one window
after the other), `offline` (as many as possible), `live` (cameras that do not wait) and `capture` (from a camera to the
decision). `compare` decides whether two reports differ beyond noise.
"""

from __future__ import annotations

from ovavel.eval.bench.report import STAGES
from ovavel.eval.bench.rows import RowSpec
from ovavel.eval.bench.run import run_bench
from ovavel.eval.bench.settings import Settings

__all__ = ["STAGES", "RowSpec", "Settings", "run_bench"]
