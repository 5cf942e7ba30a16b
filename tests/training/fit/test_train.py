"""Training: it learns, gives the same in every run, and writes its files."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from support.rows import rows_of
from support.synthetic import CLASSES, DIM, SEEN, make_data
from support.training.fits import ALL_AT_ONCE, ALL_FILES, FAST, contents

from ovavel.eval.accuracy.protocols import Rows
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.errors import DeviceError, MissingExtraError, OutputError, UsageError
from ovavel.training.fit.data import Data, Part
from ovavel.training.fit.decide import decide_labels, evaluate
from ovavel.training.fit.folder import EPOCHS
from ovavel.training.fit.recipes import RECIPES, Recipe
from ovavel.training.fit.result import RESULT, FitResult
from ovavel.training.fit.train import HEAD, REPORT, fit_data
from ovavel.training.heads.base import load_head
from ovavel.training.heads.temporal import TemporalHead
from ovavel.training.models.checkpoint import read_metadata


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


def test_without_background_it_is_neither_learnt_nor_predicted(data: Data, tmp_path: Path) -> None:
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


def test_the_pair_loss_is_off_by_default(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_it = fit_data(replace(FAST, pair_loss=100.0), data, tmp_path / "with")
    monkeypatch.setattr("ovavel.training.fit.train.pair_errors", None)  # calling it fails
    without = fit_data(FAST, data, tmp_path / "without")
    explicit = fit_data(replace(FAST, pair_loss=0.0), data, tmp_path / "explicit")
    assert with_it.epochs[0].loss > without.epochs[0].loss
    assert contents(tmp_path / "without") == contents(tmp_path / "explicit")
    assert explicit == without
    assert (tmp_path / "with" / HEAD).read_bytes() != (tmp_path / "without" / HEAD).read_bytes()


def test_a_pair_loss_of_a_frozen_trunk_is_refused() -> None:
    with pytest.raises(UsageError, match="train_trunk"):
        replace(RECIPES["complex"], pair_loss=100.0)


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
@pytest.mark.proof
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
