"""Folders of weights as `transformers` writes them: `config.json`, `model.safetensors` and the tokenizer's files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import torch
from torch import Tensor, nn

from ovavel.runtime.errors import CheckpointError, InputError
from ovavel.training.models.checkpoint import check_entries, read_checkpoint

__all__ = [
    "CONFIG",
    "Entry",
    "convert_config",
    "joined",
    "load_entries",
    "read_kind",
    "same",
    "stated_licence",
    "weights_file",
]

CONFIG = "config.json"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_NOT_NEEDED = re.compile(
    r"(^|\.)(logit_scale(_[at])?|position_ids|token_type_ids|relative_position_index|num_batches_tracked)$"
)
"""Entries of published files that no embedding depends on: constants, and the scale of similarities."""

_Config = TypeVar("_Config")


@dataclass(frozen=True, slots=True)
class Entry:
    """What one of our parameters is made from."""

    shapes: Mapping[str, tuple[int, ...]]
    """Shape of each published entry, by its name."""
    make: Callable[..., Tensor]
    """Takes these entries, in float32, in the same order."""


def same(name: str, ours: Tensor) -> Entry:
    """Return the entry of a parameter that is published as it is, but for leading axes of size 1."""
    shape = tuple(ours.shape)
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return Entry({name: shape}, lambda found: found.reshape(ours.shape))


def joined(names: Sequence[str], ours: Tensor) -> Entry:
    """Return the entry of a parameter that is published in equal parts, one below the other."""
    shape = (ours.shape[0] // len(names), *ours.shape[1:])
    return Entry(dict.fromkeys(names, shape), lambda *parts: torch.cat(parts))


def read_kind(folder: Path) -> tuple[str, dict[str, Any]]:
    """Return the kind of the model in `folder`, such as "clip", and what its `config.json` holds.

    Raises:
        InputError: there is no such file, or it does not say which kind of model it describes.
    """
    path = folder / CONFIG
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{folder} is no folder of weights as transformers writes them: {path} cannot be read ({error})"
        ) from error
    kind = values.get("model_type") if isinstance(values, dict) else None
    if not isinstance(kind, str):
        raise InputError(f"{path} does not say its model_type; fetch the folder again")
    return kind, values


def convert_config(values: Mapping[str, Any], kind: type[_Config], folder: Path) -> _Config:
    """Read the fields of `kind` from what `config.json` holds; others are ignored.

    Raises:
        InputError: a field has another type, or a value that is not supported.
    """
    try:
        return msgspec.convert(values, kind)
    except (msgspec.ValidationError, ValueError) as error:
        raise InputError(f"{folder / CONFIG} describes a model that is not supported: {error}") from error


def weights_file(folder: Path) -> Path:
    """Return the file of the weights in `folder`.

    Raises:
        CheckpointError: there is none.
    """
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder} holds no weights: neither {' nor '.join(_WEIGHTS)}. Fetch the folder again")


def load_entries(
    tower: nn.Module, entries: Mapping[str, Entry], path: Path, *, prefixes: tuple[str, ...], model: str
) -> nn.Module:
    """Fill `tower`, made on the meta device, from the file `path`; return it frozen and in evaluation mode.

    Args:
        tower: the module.
        entries: what each entry of its state dict is made from.
        path: file of the weights.
        prefixes: beginnings of the names that belong to this tower; other entries are ignored.
        model: name of the model in messages.

    Raises:
        CheckpointError: the file is damaged, or its entries are not those of this model.
    """
    expected = {name: shape for entry in entries.values() for name, shape in entry.shapes.items()}
    found = {
        name: tensor
        for name, tensor in read_checkpoint(path).items()
        if name.startswith(prefixes) and not _NOT_NEEDED.search(name)
    }
    check_entries(path, found, expected, model=model)
    state = {
        name: entry.make(*(found[published].float() for published in entry.shapes)).contiguous()
        for name, entry in entries.items()
    }
    try:
        tower.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit {model}: {error}") from error
    return tower.requires_grad_(requires_grad=False).eval()


def stated_licence(folder: Path) -> str | None:
    """Return the licence that the model card in `folder`, its README.md, states in its header; None if it does not."""
    try:
        lines = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    if lines[:1] != ["---"]:
        return None
    for line in lines[1:]:
        if line == "---":
            break
        if match := re.fullmatch(r"license:\s*[\"']?([\w.+ -]{1,80}?)[\"']?\s*", line):
            return match[1]
    return None
