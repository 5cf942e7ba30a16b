"""Several processes train as one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.synthetic import make_data
from support.training.fits import ALL_AT_ONCE, FAST

from ovavel.training.fit.result import FitResult
from ovavel.training.fit.train import HEAD, fit_data
from ovavel.training.heads.temporal import TemporalHead

TESTS = str(Path(__file__).parents[2])
TWO = """
import sys, torch
sys.path.insert(0, {tests!r})
torch.set_num_threads(1)
from support.synthetic import make_data
from support.training.fits import ALL_AT_ONCE, FAST
from dataclasses import replace
from ovavel.training.fit.train import fit_data
from ovavel.training.fit.processes import processes
with processes("cpu") as (rank, device):
    for name, recipe in (("fast", FAST), ("all", ALL_AT_ONCE)):
        # 193 clips leave one for the last step, so one of the processes has none
        result = fit_data(replace(recipe, dropout=0.3), make_data(train=193), sys.argv[1] + "/" + name, device=device)
        assert len(result.epochs) == 3
"""


def run_two(script: Path, *arguments: str) -> None:
    """Start the processes that torchrun would, without its delay of more than a second."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), *arguments],
            env=os.environ | group | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=110)
        assert process.returncode == 0, errors


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO.format(tests=TESTS))
    run_two(script, str(tmp_path / "two"))
    for name, recipe in (("fast", FAST), ("all", ALL_AT_ONCE)):
        one = fit_data(replace(recipe, dropout=0.3), make_data(train=193), tmp_path / "one" / name)
        two = FitResult.read(tmp_path / "two" / name)
        assert two
        losses = [[epoch.loss for epoch in result.epochs] for result in (one, two)]
        np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
        other = fit_data(replace(recipe, dropout=0.3, seed=4), make_data(train=193), tmp_path / "other" / name)
        assert abs(other.epochs[-1].loss - losses[0][-1]) > 1e-3  # the difference that other masks would make
        mine, theirs = (TemporalHead.load(tmp_path / which / name / HEAD).state_dict() for which in ("one", "two"))
        for key, value in mine.items():
            torch.testing.assert_close(theirs[key], value, rtol=1e-2, atol=2e-3)  # Adam amplifies tiny gradients
