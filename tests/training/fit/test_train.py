"""Training: it learns, is reproducible bit for bit, resumes after a kill, and gives the same in several processes."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import multiprocessing
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from support.rows import rows_of
from support.synthetic import CLASSES, DIM, SEEN, make_data, train

from ovavel.eval.accuracy.protocols import Rows
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.errors import CheckpointError, DeviceError, InputError, MissingExtraError, OutputError, UsageError
from ovavel.training.fit.data import Data, Part
from ovavel.training.fit.decide import decide_labels, evaluate
from ovavel.training.fit.folder import EPOCHS
from ovavel.training.fit.recipes import RECIPES, Recipe, find_recipe
from ovavel.training.fit.result import RESULT, Epoch, FitResult, pick
from ovavel.training.fit.times import TIMES
from ovavel.training.fit.train import HEAD, REPORT, fit_data
from ovavel.training.heads.base import load_head
from ovavel.training.heads.complex import ComplexHead
from ovavel.training.heads.temporal import TemporalHead
from ovavel.training.models.checkpoint import read_metadata

FAST = Recipe(epochs=3, learning_rate=1e-3, hidden=16, ffn=24)
ALL_AT_ONCE = replace(FAST, gate=0.5, learn_gate=True, mixup=0.3, ema=0.9, label_smoothing=0.1, halve_at=(1,))
OTHERS = {
    "ave": replace(FAST, head="ave", hidden=None, ffn=None),
    "psp": replace(FAST, head="psp", hidden=None, ffn=None),
    "cmra": replace(FAST, head="cmra", hidden=None),
    "mm-pyramid": replace(FAST, head="mm-pyramid", hidden=None, levels=2),
}
FILES = (HEAD, RESULT, REPORT, EPOCHS)
ALL_FILES = sorted((*FILES, TIMES))


@pytest.fixture(scope="module")
def data() -> Data:
    return make_data()


def contents(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in FILES}


def test_training_beats_the_training_free_head(data: Data, tmp_path: Path) -> None:
    free = evaluate(TemporalHead(0, DIM), data.val, data.text)
    result = fit_data(replace(FAST, epochs=6), data, tmp_path)
    rows = rows_of(result.best.val)
    assert rows.total.avg > free.total.avg + 0.2
    assert rows.unseen
    assert free.unseen
    assert rows.unseen.avg > free.unseen.avg
    assert result.epochs[-1].loss < result.epochs[0].loss


def test_shuffled_labels_do_not_teach_names(data: Data, tmp_path: Path) -> None:
    def renamed(part: Part) -> Part:
        """Swap the names of the seen classes, so that they can be learnt only by training."""
        return replace(part, truth=np.where(part.truth < SEEN, (part.truth + 1) % SEEN, part.truth))

    swapped = replace(data, train=renamed(data.train), val=renamed(data.val), test=None)
    recipe = replace(FAST, epochs=10, temperature=0.1, select="val-seen")
    real = fit_data(recipe, swapped, tmp_path / "real")
    control = fit_data(replace(recipe, shuffle_labels=True), swapped, tmp_path / "control")
    scores = [rows_of(result.best.val).seen for result in (control, real)]
    assert scores[0]
    assert scores[1]
    assert scores[1].eve > 0.7
    assert scores[0].eve < scores[1].eve - 0.3


def test_files_in_the_folder(data: Data, tmp_path: Path) -> None:
    result = fit_data(FAST, data, tmp_path / "new" / "out")
    out = tmp_path / "new" / "out"
    assert sorted(file.name for file in out.iterdir()) == ALL_FILES
    assert FitResult.read(out) == result
    head = TemporalHead.load(out / HEAD)
    assert evaluate(head, data.val, data.text) == rows_of(result.best.val)
    assert data.test
    assert result.best.test
    assert evaluate(head, data.test, data.text) == rows_of(result.best.test)
    notes = read_metadata(out / HEAD)
    assert msgspec.json.decode(notes["recipe"], type=Recipe) == FAST
    assert json.loads(notes["data"])["fingerprint"] == data.fingerprint
    assert json.loads(notes["metrics"])["val"] == result.best.val
    averages = [epoch.val["total"]["avg"] for epoch in result.epochs if epoch.val["total"]]
    assert averages[result.chosen - 1] == max(averages)
    rows = list(csv.DictReader((out / EPOCHS).read_text().splitlines()))
    assert len(rows) == len(result.epochs) * (2 + 2 * 3 * 4)
    kept = {(row["split"], row["clips"], row["measure"]): float(row["value"]) for row in rows if row["kept"] == "yes"}
    assert kept["train", "", "loss"] == result.best.loss
    assert kept["test", "unseen", "eve"] == (result.best.test["unseen"] or {})["eve"]
    page = (out / REPORT).read_text()
    assert "<svg" in page
    assert not re.search(r"https?://|<script|src=", page)


@pytest.mark.parametrize("name", [name for name in RECIPES if not name.startswith("ratio")])
def test_every_named_recipe_trains(name: str, tmp_path: Path) -> None:
    tiny = make_data(train=20, val=12, test=8)
    recipe = replace(RECIPES[name], epochs=2)
    if recipe.head in ("temporal", "linear", "cross-modal"):
        recipe = replace(recipe, hidden=8, ffn=8)
    result = fit_data(recipe, tiny, tmp_path)
    head = load_head(tmp_path / HEAD)
    assert (getattr(head, "kind", head.name), head.audio_scale) == (recipe.head, recipe.audio_scale)
    assert head.score == ("learned" if recipe.head == "complex" else recipe.score)
    assert hasattr(head, "gate") == isinstance(head, TemporalHead)
    assert (getattr(head, "gate", None) is not None) == (recipe.gate is not None or bool(recipe.blend))
    assert np.isfinite([epoch.loss for epoch in result.epochs]).all()
    if recipe.learn_gate:
        assert result.epochs[-1].gate != (recipe.gate, recipe.gate)


def test_without_background_it_is_neither_learnt_nor_decided(data: Data, tmp_path: Path) -> None:
    assert data.test
    recipe = replace(FAST, background=False)
    result = fit_data(recipe, data, tmp_path / "out")
    head = TemporalHead.load(tmp_path / "out" / HEAD)
    labels = decide_labels(head, data.test, data.text, background=False)
    assert (labels < CLASSES - 1).mean() > 0.98  # except segments where no class has a positive product
    assert rows_of(result.best.test or {}) == evaluate(head, data.test, data.text, background=False)
    assert evaluate(head, data.test, data.text) != evaluate(head, data.test, data.text, background=False)
    # Background segments and the background's name do not affect what is learnt.
    off = data.train.truth == SEEN
    assert off.any()
    names = data.train_text.vision
    other_name = np.roll(names[-1:], 1, axis=1)
    changed = replace(data, train_text=TextEmbeddings.shared(np.concatenate([names[:-1], other_name])))
    again = fit_data(recipe, changed, tmp_path / "again")
    assert [epoch.loss for epoch in again.epochs] == [epoch.loss for epoch in result.epochs]
    with_it = fit_data(FAST, data, tmp_path / "with")
    assert rows_of(with_it.best.val).total.acc > rows_of(result.best.val).total.acc


@pytest.mark.parametrize("recipe", [FAST, ALL_AT_ONCE, replace(ALL_AT_ONCE, background=False)])
def test_the_same_seed_gives_the_same_head(recipe: Recipe, data: Data, tmp_path: Path) -> None:
    torch.manual_seed(7)
    fit_data(recipe, data, tmp_path / "a")
    before = torch.random.get_rng_state()
    fit_data(recipe, data, tmp_path / "b")
    assert torch.equal(before, torch.random.get_rng_state())  # the global random state is untouched
    assert not torch.are_deterministic_algorithms_enabled()
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    fit_data(replace(recipe, seed=5), data, tmp_path / "c")
    assert contents(tmp_path / "a")[HEAD] != contents(tmp_path / "c")[HEAD]


class Cut(Exception):  # noqa: N818 - not an error
    pass


@pytest.mark.parametrize("recipe", [FAST, ALL_AT_ONCE, replace(FAST, blend=(0.3, 1.0)), *OTHERS.values()])
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


COMPLEX = replace(FAST, head="complex", hidden=None, ffn=None, trunk="demo", ema=0.9, select="val-seen")


def test_a_trunk_is_trained_first_and_resumed(data: Data, tmp_path: Path) -> None:
    (tmp_path / "short.toml").write_text('base = "demo"\nepochs = 2')
    recipe = replace(COMPLEX, trunk=str(tmp_path / "short.toml"))
    seen: list[tuple[float | None, float | None]] = []

    def note(_what: str, done: float | None = None, total: float | None = 1.0, _note: str = "") -> None:
        seen.append((done, total))

    whole = fit_data(recipe, data, tmp_path / "whole", progress=note)
    assert seen == [(done, 2 * 6 + 3 * 6) for done in range(1, 2 * 6 + 3 * 6 + 1)]
    trunk = fit_data(find_recipe(recipe.trunk or ""), data, tmp_path / "short")
    assert FitResult.read(tmp_path / "whole" / "trunk") == trunk
    for stop in (7, 2 * 6 + 8):

        def tell(
            _what: str, done: float | None = None, _total: float | None = 1.0, _note: str = "", stop: int = stop
        ) -> None:
            if done == stop:
                raise Cut

        out = tmp_path / f"cut{stop}"
        with pytest.raises(Cut):
            fit_data(recipe, data, out, progress=tell)
        assert fit_data(recipe, data, out) == whole
        assert contents(out) == contents(tmp_path / "whole")
    head, below = load_head(tmp_path / "whole" / HEAD), load_head(tmp_path / "short" / HEAD)
    assert isinstance(head, ComplexHead)
    assert all(torch.equal(weight, below.state_dict()[name]) for name, weight in head.trunk.state_dict().items())
    assert (head.norms[0].running_mean != 0).all()
    assert data.test
    assert evaluate(head, data.test, data.text) == rows_of(whole.best.test or {})
    trained = fit_data(replace(recipe, train_trunk=True), data, tmp_path / "trained")
    both = load_head(tmp_path / "trained" / HEAD)
    assert isinstance(both, ComplexHead)
    assert not torch.equal(
        both.trunk.state_dict()["a_sa_blocks.0.norm1.bias"], below.state_dict()["a_sa_blocks.0.norm1.bias"]
    )
    assert trained.epochs[0].loss != whole.epochs[0].loss


def test_a_trunk_from_a_file_belongs_to_the_run(data: Data, tmp_path: Path) -> None:
    recipe = replace(COMPLEX, trunk=str(tmp_path / "below.safetensors"))
    with pytest.raises(CheckpointError, match=r"no checkpoint .*below\.safetensors"):
        fit_data(recipe, data, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    TemporalHead(1, DIM, 4, 4).save(tmp_path / "below.safetensors")
    result = fit_data(recipe, data, tmp_path / "out")
    assert fit_data(recipe, data, tmp_path / "out") == result
    TemporalHead(1, DIM, 4, 4).save(tmp_path / "below.safetensors")
    with pytest.raises(UsageError, match="--overwrite"):
        fit_data(recipe, data, tmp_path / "out")
    TemporalHead(1, DIM + 1, 4, 4).save(tmp_path / "below.safetensors")
    with pytest.raises(UsageError, match=f"of size {DIM + 1}, not {DIM}"):
        fit_data(recipe, data, tmp_path / "other")


def test_a_head_refuses_settings_that_it_does_not_have(data: Data, tmp_path: Path) -> None:
    for recipe, message in (
        (replace(FAST, head="psp"), "'psp' has no setting 'hidden'"),
        (replace(FAST, levels=2), "'temporal' has no setting 'levels'"),
        (replace(FAST, trunk="paper"), "'temporal' has no setting 'trunk'"),
        (replace(OTHERS["ave"], gate=0.5), "'ave' has no setting 'gate'"),
        (replace(OTHERS["ave"], blend=(0.5, 1.0)), "'ave' has no setting 'gate'"),
        (replace(OTHERS["psp"], score="prob-avg"), "'psp' has no setting 'score'"),
        (replace(COMPLEX, trunk=None), "needs the setting 'trunk'"),
        (replace(COMPLEX, trunk="papper"), "no recipe 'papper'"),
        (replace(COMPLEX, trunk="complex"), "without a trunk of its own, not 'complex'"),
    ):
        with pytest.raises(UsageError, match=message):
            fit_data(recipe, data, tmp_path / "out")
        assert not (tmp_path / "out").exists()


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


PATHS = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

TWO = """
import sys, torch
sys.path[:0] = {tests!r}
torch.set_num_threads(1)
from support.synthetic import make_data
from test_train import ALL_AT_ONCE, FAST
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
    script.write_text(TWO.format(tests=PATHS))
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


def test_unwritable_folders_and_unknown_devices_are_refused(data: Data, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        fit_data(FAST, data, tmp_path / "file" / "out")
    with pytest.raises(UsageError, match="cpu, cuda"):
        fit_data(FAST, data, tmp_path / "out", device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError):
            fit_data(FAST, data, tmp_path / "out", device="cuda")
    assert not (tmp_path / "out").exists()


def test_learning_rate_is_halved(data: Data, tmp_path: Path) -> None:
    result = fit_data(replace(FAST, epochs=5, halve_at=(2, 4)), make_data(train=8, val=8, test=None), tmp_path)
    assert [epoch.learning_rate for epoch in result.epochs] == [1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4]
    assert result.test_choice is None


def test_patience_stops_training_early(tmp_path: Path) -> None:
    data = make_data(train=64, val=32)
    result = fit_data(replace(FAST, epochs=60, learning_rate=3e-3, patience=2), data, tmp_path)
    assert len(result.epochs) == result.chosen + 2 < 60


def test_divergence_is_reported(data: Data, tmp_path: Path) -> None:
    nan = data.train.audio.copy()
    nan[3] = np.nan
    with pytest.raises(UsageError, match="diverged in epoch 1"):
        fit_data(FAST, replace(data, train=replace(data.train, audio=nan)), tmp_path)
    assert not (tmp_path / RESULT).exists()


def test_bf16_is_close_to_fp32(data: Data, tmp_path: Path) -> None:
    full = fit_data(FAST, data, tmp_path / "fp32")
    half = fit_data(replace(FAST, precision="bf16"), data, tmp_path / "bf16")
    assert half.epochs[-1].loss == pytest.approx(full.epochs[-1].loss, rel=0.05)
    assert half.epochs[-1].loss != full.epochs[-1].loss
    state = TemporalHead.load(tmp_path / "bf16" / HEAD).state_dict()
    assert all(value.dtype == torch.float32 for value in state.values())


def epoch(number: int, seen: float | None, total: float, test: float | None) -> Epoch:
    def scores(avg: float | None) -> dict[str, float] | None:
        return None if avg is None else {"acc": avg, "seg": avg, "eve": avg, "avg": avg}

    return Epoch(
        number=number,
        learning_rate=1,
        loss=1,
        gate=None,
        val={"seen": scores(seen), "unseen": None, "total": scores(total)},
        test=None if test is None else {"seen": None, "unseen": None, "total": scores(test)},
    )


def test_the_epoch_is_selected_by_the_recipe() -> None:
    epochs = (epoch(1, 0.5, 0.2, 0.7), epoch(2, 0.4, 0.6, 0.1), epoch(3, 0.5, 0.6, 0.7))
    assert pick(Recipe(), epochs) == (2, 1)
    assert pick(Recipe(select="val-seen"), epochs) == (1, 1)
    assert pick(Recipe(select="test"), epochs[1:]) == (2, 2)
    untested = (epoch(1, None, 0.5, None),)
    assert pick(Recipe(), untested) == (1, None)
    for select in ("test", "val-seen"):
        with pytest.raises(UsageError):
            pick(Recipe(select=select), untested)  # type: ignore[arg-type]


def test_an_impossible_selection_is_refused_before_training(tmp_path: Path) -> None:
    data = make_data(train=8, val=8, test=None)
    unseen = replace(data, val=replace(data.val, seen=np.zeros(8, np.bool_)))
    for recipe, each in ((replace(FAST, select="test"), data), (replace(FAST, select="val-seen"), unseen)):
        with pytest.raises(UsageError, match="cannot select"):
            fit_data(recipe, each, tmp_path, progress=lambda *_: pytest.fail("it trained"))


def test_logs_for_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    data = make_data(train=16, val=8, test=8)
    fit_data(replace(FAST, epochs=1), data, tmp_path / "out", tensorboard=True)
    result = fit_data(replace(FAST, gate=0.5), data, tmp_path / "out", tensorboard=True, overwrite=True)
    events = EventAccumulator(str(tmp_path / "out" / "tensorboard")).Reload()
    losses = events.Scalars("train/loss")
    assert [each.step for each in losses] == [1, 2, 3]
    assert [each.value for each in losses] == pytest.approx([each.loss for each in result.epochs])
    assert {"val total/avg", "test unseen/eve", "gate/audio"} <= set(events.Tags()["scalars"])
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match="tensorboard"):
        fit_data(FAST, data, tmp_path / "other", tensorboard=True)


def test_random_scores_are_near_chance(data: Data) -> None:
    """Check the measure itself: an untrained head scores at chance, so anything above was learnt."""
    g = np.random.default_rng(0)
    noise = replace(data.val, audio=g.standard_normal(data.val.audio.shape, dtype=np.float32))
    rows = evaluate(TemporalHead(0, DIM), noise, data.text)
    assert isinstance(rows, Rows)
    assert rows.total.acc < 3 / CLASSES


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_cost_of_training_at_full_size() -> None:
    """Five epochs of OV-AVEBench are 2060 steps; four minutes on two cores are 480 seconds of one."""
    flags = "--epochs 1 --train-clips 1600 --val-clips 32 --test-clips 0 --threads 1"
    command = [sys.executable, "-m", "ovavel.training.commands.bench_head", *flags.split()]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    user = re.search(r"user ([\d.]+) s", run.stdout)
    assert user
    assert float(user[1]) / 50 < 0.2  # of 480 / 2060; the rest is for validation
