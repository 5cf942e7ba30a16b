"""Fine-tuning of a head on cached embeddings (docs/method.md, Training).

Random draws depend only on seed, epoch and step, never on earlier draws. So a run that was killed resumes from its last
epoch and ends with the same files, byte for byte, and several processes together train as one would.

Shapes: B clips of a step, T segments, D embedding size, C' classes of training with the background last.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from torch import Tensor, nn

from ovavel.runtime.bundle.bundle import file_entry
from ovavel.runtime.errors import CheckpointError, UsageError
from ovavel.runtime.system.progress import Progress, no_progress, part_of
from ovavel.training.fit.data import Data
from ovavel.training.fit.decide import evaluate
from ovavel.training.fit.folder import (
    HEAD,
    LOGS,
    REPORT,
    STATE,
    TRUNK,
    finish,
    head_metadata,
    identity,
    log,
    open_logs,
    prepare,
)
from ovavel.training.fit.initial import check_data, head_settings, initial_head, trunk_recipe
from ovavel.training.fit.processes import deterministic, wait_for_all
from ovavel.training.fit.recipes import Recipe
from ovavel.training.fit.result import DataInfo, Epoch, FitResult, pick, row_table
from ovavel.training.fit.times import EpochTime, note_times
from ovavel.training.heads.base import Head, load_head
from ovavel.training.heads.layers import Draw, Dropout
from ovavel.training.heads.psp import pair_errors
from ovavel.training.heads.temporal import HeadGraph
from ovavel.training.models.checkpoint import read_checkpoint, read_metadata, write_checkpoint
from ovavel.training.torch_backend.backend import resolve_device

__all__ = ["HEAD", "REPORT", "fit_data"]

_IGNORED = -100  # label of segments that are left out of the loss
_STATE_FORMAT = "ovavel training state 1"


def fit_data(
    recipe: Recipe,
    data: Data,
    out: str | os.PathLike[str],
    *,
    trunk_by: Recipe | None = None,
    device: str = "auto",
    overwrite: bool = False,
    tensorboard: bool = False,
    progress: Progress = no_progress,
) -> FitResult:
    """Train a head by `recipe` and write it to the folder `out`, with a result in JSON and a report in HTML.

    An interrupted run resumes after its last complete epoch; a complete run is not repeated. Within a process group
    (`torch.distributed`) each process trains its share of every step; the processes must share one file system.

    Args:
        recipe: how to train.
        data: what to train and validate on.
        out: folder for `head.safetensors`, `result.json` and `report.html`; created if needed.
        trunk_by: how to train the trunk, in place of the recipe that `recipe` names for it.
        device: "cpu", "cuda", "cuda:N" or "auto".
        overwrite: start over where `out` holds another run.
        tensorboard: write event files for TensorBoard into `out`/tensorboard.
        progress: called after each step.

    Raises:
        UsageError: `out` holds a run of another recipe or of other data, or the recipe does not fit the data.
        CheckpointError: the run in `out` cannot be resumed.
        DeviceError: the device is unavailable.
        MissingExtraError: `tensorboard` is set, and TensorBoard is not installed.
        OutputError: a file could not be written.
    """
    out = Path(out)
    check_data(recipe, data)
    head_settings(recipe, gate=next(iter(recipe.blend), recipe.gate))
    chosen_device = resolve_device(device)
    named, trunk, plain = trunk_recipe(recipe), None, data
    first = named and (trunk_by or named)
    if recipe.trunk and not first:
        trunk = load_head(recipe.trunk)  # another file is another run
        data = replace(data, fingerprint=f"{data.fingerprint} {file_entry(Path(recipe.trunk)).sha256}")
    elif first != named:  # and so is another trunk
        digest = hashlib.sha256(msgspec.json.encode(first)).hexdigest()
        data = replace(data, fingerprint=f"{data.fingerprint} {digest}")
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    info = DataInfo.of(data)
    if rank == 0:
        prepare(out, recipe, info, overwrite=overwrite)
    wait_for_all(world)
    done = FitResult.read(out)
    wait_for_all(world)
    if done:
        return done
    if first:
        before, after = (each.epochs * -(-len(data.train) // each.batch_clips) for each in (first, recipe))
        report = part_of(progress, 0, before, of=before + after, prefix="trunk: ")
        fit_data(first, plain, out / TRUNK, device=device, overwrite=overwrite, progress=report)
        trunk = load_head(out / TRUNK / HEAD)
        progress = part_of(progress, before, after, of=before + after)
    with deterministic(), contextlib.ExitStack() as stack:
        logs = stack.enter_context(open_logs(out / LOGS)) if tensorboard and rank == 0 else None
        run = _Run(recipe, data, out, trunk, chosen_device, rank, world)
        epochs = run.resume()
        while len(epochs) < recipe.epochs and not _stopped(recipe, epochs):
            epochs = (*epochs, run.epoch(epochs, progress))
            if logs:
                log(logs, epochs[-1])
    result = _result(recipe, info, epochs)
    if rank == 0:
        finish(out, result)
    wait_for_all(world)
    return result


class _Run:
    """One training run in one process."""

    def __init__(
        self, recipe: Recipe, data: Data, out: Path, trunk: Head | None, device: torch.device, rank: int, world: int
    ) -> None:
        self._recipe, self._data, self._out, self._device = recipe, data, out, device
        self._rank, self._world = rank, world
        train = data.train
        truth = train.truth
        if recipe.shuffle_labels:
            truth = _random(recipe, "labels").permutation(truth.ravel()).reshape(truth.shape)
        train_text = data.train_text
        self._background = len(train_text) - 1
        if not recipe.background:
            truth = np.where(truth == len(train_text) - 1, _IGNORED, truth)
            train_text = train_text[:-1]
        # On a CPU, these tensors share the memory of the arrays.
        place = torch.device("cpu") if device.type == "cpu" else device
        self._audio, self._vision = (torch.from_numpy(x).to(place) for x in (train.audio, train.vision))
        self._truth = torch.from_numpy(truth).to(place)
        self._text = [torch.tensor(each, device=device) for each in (train_text.audio, train_text.vision)]
        self._trunk = trunk
        head = initial_head(recipe, data.text.sizes[0], trunk)
        self._graph = HeadGraph(head.to(device)).train()
        self._weights = {name: weight for name, weight in head.named_parameters() if weight.requires_grad}
        self._buffers = dict(head.named_buffers())  # running statistics of batch norms
        self._average = {name: weight.detach().clone() for name, weight in self._weights.items() if recipe.ema}
        self._optimizer = torch.optim.Adam(self._weights.values(), lr=recipe.learning_rate, fused=True)
        self._norms = torch.zeros((), device=device)  # sum of an epoch's gradient norms, to detect non-finite ones
        if world > 1 and any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in head.modules()):
            raise UsageError(f"the head {head.name!r} normalizes over a whole step: train it with a single process")
        self._dropouts = [module for module in head.modules() if isinstance(module, Dropout)]

    def resume(self) -> tuple[Epoch, ...]:
        """Load the state of an interrupted run; returns the completed epochs."""
        file = self._out / STATE
        if not file.exists():
            return ()
        metadata, tensors = read_metadata(file), read_checkpoint(file)
        if metadata.get("format") != _STATE_FORMAT:
            raise CheckpointError(f"{file} was written by another version of ovavel; start over with --overwrite")
        try:
            epochs = msgspec.json.decode(metadata["epochs"], type=tuple[Epoch, ...])
            state = {}
            for index, (name, weight) in enumerate(self._weights.items()):
                weight.data.copy_(tensors[f"weight.{name}"])
                moments = {key: tensors[f"{key}.{name}"].clone() for key in ("exp_avg", "exp_avg_sq", "step")}
                state[index] = moments
            for name, average in self._average.items():
                average.copy_(tensors[f"average.{name}"])
            for name, buffer in self._buffers.items():
                buffer.copy_(tensors[f"buffer.{name}"])
        except (KeyError, RuntimeError, msgspec.MsgspecError) as error:
            raise CheckpointError(f"cannot resume from {file} ({error}); start over with --overwrite") from error
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": state})
        return epochs

    def epoch(self, before: tuple[Epoch, ...], progress: Progress) -> Epoch:
        """Train another epoch, validate it, save its head if it is the best so far, and save the state."""
        recipe, clips = self._recipe, len(self._data.train)
        number = len(before)
        rate = recipe.learning_rate * 0.5 ** sum(number >= milestone for milestone in recipe.halve_at)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        started_s = time.perf_counter()
        if recipe.stochastic_depth:
            audio = self._data.train.draw_audio(_random(recipe, "passes", number))
            self._audio = torch.from_numpy(audio).to(self._truth.device)
        order = _random(recipe, "order", number).permutation(clips)
        steps = -(-clips // recipe.batch_clips)
        total = torch.zeros((), device=self._device)
        self._norms.zero_()
        news = f"epoch {number + 1} of {recipe.epochs}"
        for step in range(steps):
            batch = order[step * recipe.batch_clips : (step + 1) * recipe.batch_clips]
            total += self._step(batch, number * steps + step) * len(batch)
            progress("training", number * steps + step + 1, recipe.epochs * steps, news)
        loss = float(total) / clips  # waits for the device
        trained_s = time.perf_counter() - started_s
        if not (np.isfinite(loss) and self._norms.isfinite()):
            raise UsageError(
                f"training with the recipe {recipe.name!r} diverged in epoch {number + 1}: loss {loss}, sum of the "
                f"gradient norms {float(self._norms)}; choose a smaller --learning-rate, or check the features for "
                "non-finite values"
            )
        record = None
        if self._rank == 0:
            head, record = self._validate(number + 1, rate, loss)
            epochs = (*before, record)
            if pick(recipe, epochs)[0] == len(epochs):
                head.save(self._out / HEAD, head_metadata(_result(recipe, DataInfo.of(self._data), epochs)))
            validated_s = time.perf_counter() - started_s - trained_s
            note_times(self._out, number, EpochTime(training_s=trained_s, validation_s=validated_s))
            self._save(epochs)
        if self._world == 1:
            assert record
            return record
        box = [msgspec.json.encode(record)]
        dist.broadcast_object_list(box, src=0)
        return msgspec.json.decode(box[0], type=Epoch)

    def _step(self, batch: NDArray[np.intp], number: int) -> Tensor:
        """Train one step on this process's share of the clips `batch`; returns the mean loss of the whole batch."""
        recipe, random = self._recipe, _random(self._recipe, "step", number)
        size, segments = len(batch), self._truth.shape[1]
        low, high = (size * part // self._world for part in (self._rank, self._rank + 1))
        mine = slice(low, high)
        drawn = torch.Generator(self._device).manual_seed(int(random.integers(2**62)))
        for dropout in self._dropouts:
            dropout.draw = Draw(drawn, size, mine)
        audio, vision, truth = self._take(batch[mine])
        targets = [(1.0, truth)]
        if recipe.mixup:
            share = float(random.beta(recipe.mixup, recipe.mixup))
            other_audio, other_vision, other_truth = self._take(batch[random.permutation(size)][mine])
            audio = F.normalize(share * audio + (1 - share) * other_audio, dim=-1)
            vision = F.normalize(share * vision + (1 - share) * other_vision, dim=-1)
            targets = [(share, truth), (1 - share, other_truth)]
        self._optimizer.zero_grad()
        with torch.autocast(self._device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            audio, vision = self._graph.head(audio, vision)
        logits = self._graph.compare(audio.float(), vision.float(), *self._text).score / recipe.temperature
        loss = torch.zeros((), device=self._device)
        for share, target in targets:
            entropy = F.cross_entropy(
                logits.flatten(0, 1),
                target.flatten(),
                reduction="sum",
                ignore_index=_IGNORED,
                label_smoothing=recipe.label_smoothing,
            )
            loss = loss + share * entropy / (size * segments)
            if recipe.pair_loss:
                event = (target >= 0) & (target != self._background)
                errors = pair_errors(audio.float(), vision.float(), event)
                loss = loss + share * recipe.pair_loss * errors.sum() / (size * segments)
        loss.backward()  # type: ignore[no-untyped-call]
        loss = self._all_reduce(loss.detach())
        self._norms += torch.nn.utils.clip_grad_norm_(self._weights.values(), recipe.clip_norm)
        self._optimizer.step()
        for name, average in self._average.items():
            average.lerp_(self._weights[name].detach(), 1 - recipe.ema)
        return loss

    def _take(self, clips: NDArray[np.intp]) -> tuple[Tensor, Tensor, Tensor]:
        index = torch.from_numpy(clips).to(self._audio.device)
        return self._audio[index], self._vision[index], self._truth[index]

    def _all_reduce(self, loss: Tensor) -> Tensor:
        """Sum loss and gradients over the processes; each is divided by the segments of the whole batch already."""
        if self._world == 1:
            return loss
        gradients = [weight.grad for weight in self._weights.values() if weight.grad is not None]
        flat = torch.cat([loss.reshape(1), *(gradient.flatten() for gradient in gradients)])
        dist.all_reduce(flat)
        loss, *parts = torch.split(flat, [1, *(gradient.numel() for gradient in gradients)])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
        return loss[0]

    def _validate(self, number: int, rate: float, loss: float) -> tuple[Head, Epoch]:
        """Score the current head with each share to try; returns the best head and its record."""
        recipe, data, found = self._recipe, self._data, []
        source = self._average or self._weights
        weights = {**self._graph.head.state_dict(), **source}
        for share in recipe.blend or (recipe.gate,):
            head = initial_head(recipe, data.text.sizes[0], self._trunk, gate=share, learn_gate=False)
            head.load_state_dict(weights, strict=False)  # the weights do not include the gate of a blend
            head = head.to(self._device).eval().requires_grad_(requires_grad=False)
            shares = getattr(head, "gate", None)
            gate = None if shares is None else (float(shares[0]), float(shares[1]))
            val, test = (
                row_table(evaluate(head, part, data.text, background=recipe.background)) if part else None
                for part in (data.val, data.test)
            )
            assert val
            found.append((head, Epoch(number=number, learning_rate=rate, loss=loss, gate=gate, val=val, test=test)))
        best, _ = pick(recipe, tuple(epoch for _, epoch in found))
        return found[best - 1]

    def _save(self, epochs: tuple[Epoch, ...]) -> None:
        state = self._optimizer.state_dict()["state"]
        tensors: dict[str, Tensor] = {}
        for index, (name, weight) in enumerate(self._weights.items()):
            tensors[f"weight.{name}"] = weight
            tensors |= {f"{key}.{name}": value for key, value in state[index].items()}
        tensors |= {f"average.{name}": average for name, average in self._average.items()}
        tensors |= {f"buffer.{name}": buffer for name, buffer in self._buffers.items()}
        metadata = {
            "format": _STATE_FORMAT,
            "epochs": msgspec.json.encode(epochs).decode(),
            "identity": identity(self._recipe, DataInfo.of(self._data)),
        }
        write_checkpoint(self._out / STATE, tensors, metadata)


def _random(recipe: Recipe, purpose: str, number: int = 0) -> Generator:
    """Create a generator that depends only on the seed, `purpose` and `number`."""
    digest = hashlib.sha256(f"{recipe.seed} {purpose} {number}".encode()).digest()
    return default_rng(int.from_bytes(digest[:16]))


def _stopped(recipe: Recipe, epochs: tuple[Epoch, ...]) -> bool:
    """Return whether the recipe's patience has run out."""
    return bool(recipe.patience and epochs and len(epochs) - pick(recipe, epochs)[0] >= recipe.patience)


def _result(recipe: Recipe, info: DataInfo, epochs: tuple[Epoch, ...]) -> FitResult:
    chosen, test_choice = pick(recipe, epochs)
    return FitResult(recipe=recipe, data=info, epochs=epochs, chosen=chosen, test_choice=test_choice)
