"""A run that is interrupted, killed or complete: started again, it ends the same."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from support.proofs import proof_unless
from support.synthetic import DIM, make_data, train
from support.training.fits import ALL_AT_ONCE, ALL_FILES, FAST, OTHERS, Cut, contents

from ovavel.runtime.errors import CheckpointError, InputError, UsageError
from ovavel.training.fit.data import Data
from ovavel.training.fit.recipes import Recipe
from ovavel.training.fit.result import RESULT
from ovavel.training.fit.train import HEAD, fit_data
from ovavel.training.heads.temporal import TemporalHead

NOISY = replace(ALL_AT_ONCE, stochastic_depth=True)


IN_CI = (FAST, ALL_AT_ONCE, NOISY)
RECIPES = (*IN_CI, replace(FAST, blend=(0.3, 1.0)), *OTHERS.values())


@pytest.mark.parametrize("recipe", proof_unless(IN_CI.__contains__, RECIPES))
def test_a_run_interrupted_anywhere_ends_the_same(recipe: Recipe, data: Data, tmp_path: Path) -> None:
    fit_data(recipe, data, tmp_path / "whole")
    steps = 3 * 6
    for stop in (1, 6, 7, 12, 15):
        trained = []

        def progress(
            _what: str, done: int, total: int, _note: str, stop: int = stop, trained: list[int] = trained
        ) -> None:
            assert total == steps
            trained.append(done)
            if done == stop and len(trained) <= stop:
                raise Cut

        out = tmp_path / f"cut{stop}"
        with pytest.raises(Cut):
            fit_data(recipe, data, out, progress=progress)
        assert not (out / RESULT).exists()
        again: list[int] = []
        fit_data(recipe, data, out, progress=lambda _what, done, *_, again=again: again.append(done))
        assert again == list(range((stop - 1) // 6 * 6 + 1, steps + 1))
        assert contents(out) == contents(tmp_path / "whole")


@contextlib.contextmanager
def training(out: Path) -> Iterator[tuple[BaseProcess, Iterator[int]]]:
    """Start a process that trains; yields it and its steps as they complete."""
    context = multiprocessing.get_context("forkserver")
    # Preloaded: importing these takes longer than the training, and every optimizer imports the second.
    context.set_forkserver_preload(["ovavel.training.fit.train", "torch._dynamo"])
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=train, args=(replace(ALL_AT_ONCE, epochs=12), out, send))
    process.start()
    send.close()

    def steps() -> Iterator[int]:
        with contextlib.suppress(EOFError):
            while True:
                yield receive.recv()

    with receive:
        yield process, steps()
        process.join()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_killed_at_random_moments_ends_the_same(tmp_path: Path) -> None:
    chance = random.Random(0)
    with training(tmp_path / "whole") as (whole, steps):
        assert list(steps) == list(range(1, 12 * 6 + 1))
    assert whole.exitcode == 0
    kills = 0
    for number in range(5):
        out = tmp_path / f"killed{number}"
        while not (out / RESULT).exists():
            with training(out) as (process, steps):
                list(itertools.islice(steps, chance.randrange(1, 30)))
                time.sleep(chance.random() * 0.02)  # between two steps
                process.kill()
            kills += process.exitcode == -signal.SIGKILL
        # if killed after writing the result, it may leave its state
        with training(out) as (_, steps):
            assert not list(steps)
        assert contents(out) == contents(tmp_path / "whole")
        assert {file.name for file in out.iterdir()} - set(ALL_FILES) <= {"state.safetensors"}
    assert kills >= 10


def test_a_complete_run_is_not_repeated(data: Data, tmp_path: Path) -> None:
    first = fit_data(FAST, data, tmp_path)
    before = contents(tmp_path)
    again = fit_data(FAST, data, tmp_path, progress=lambda *_: pytest.fail("it trained again"))
    assert again == first
    assert contents(tmp_path) == before


def test_a_folder_of_another_run_is_refused(data: Data, tmp_path: Path) -> None:
    fit_data(FAST, data, tmp_path / "done")

    def cut(_what: str, done: int, *_: object) -> None:
        if done == 8:
            raise Cut

    with pytest.raises(Cut):
        fit_data(FAST, data, tmp_path / "half", progress=cut)
    TemporalHead(1, DIM, 4, 4).save(tmp_path / "own" / HEAD)
    for out in ("done", "half", "own"):
        before = {file.name: file.read_bytes() for file in (tmp_path / out).iterdir()}
        for recipe, other in ((replace(FAST, epochs=4), data), (FAST, make_data(seed=1))):
            with pytest.raises(UsageError, match="--overwrite"):
                fit_data(recipe, other, tmp_path / out)
        assert {file.name: file.read_bytes() for file in (tmp_path / out).iterdir()} == before
        fit_data(replace(FAST, epochs=1), data, tmp_path / out, overwrite=True)
        assert sorted(file.name for file in (tmp_path / out).iterdir()) == ALL_FILES


def test_a_damaged_run_is_refused(data: Data, tmp_path: Path) -> None:
    def cut(_what: str, done: int, *_: object) -> None:
        if done == 8:
            raise Cut

    for name in ("cut short", "no head", "result"):
        with pytest.raises(Cut):
            fit_data(FAST, data, tmp_path / name, progress=cut)
    state = tmp_path / "cut short" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-100])
    (tmp_path / "no head" / HEAD).unlink()
    (tmp_path / "result" / RESULT).write_text("{")
    for name, message in (("cut short", "damaged"), ("no head", "without its head"), ("result", "--overwrite")):
        with pytest.raises((CheckpointError, InputError, UsageError), match=message):
            fit_data(FAST, data, tmp_path / name)
