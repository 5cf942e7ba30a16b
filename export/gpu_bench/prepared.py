"""What the matrix runs where no weights are given: random ones of full size, and their bundle."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from ovavel.runtime.bundle.bundle import Bundle, file_entry
from ovavel.runtime.bundle.precision import Precision
from ovavel.runtime.errors import OvavelError, PrecisionError
from ovavel.runtime.system.files import atomic_write, make_folder
from ovavel.runtime.system.progress import Progress, prefixed
from ovavel.runtime.system.untrusted import read_json
from ovavel.training.models.imagebind.model import ImageBindConfig

__all__ = ["PRECISIONS", "Prepared", "prepare"]

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")
_NAMES = tuple(f"event {number}" for number in range(1, 30))
_MISSING = "missing.json"


class _Missing(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept beside a bundle, so that it is not exported in vain again."""

    bundle_sha256: str
    """Of its manifest."""
    why: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What the rows run."""

    bundle: Path
    weights: Path
    head: Path | None
    description: str
    """What weights these are, in words."""
    missing: tuple[str, ...] = ()
    """Why the bundle lacks a precision."""


def prepare(folder: Path, config: ImageBindConfig, progress: Progress) -> Prepared:
    """Make random weights of the size `config`, a random head and their bundle in `folder`.

    What an earlier call left there is used again if it is whole and of the same making, and replaced otherwise.

    Raises:
        UsageError: something else is in the bundle's place.
        PrecisionError: not even fp32 could be exported.
        OutputError: the disk is full.
    """
    import torch

    from ovavel.export.bundle import BundleContents, write_bundle
    from ovavel.training.heads.temporal import TemporalHead

    make_folder(folder)
    weights, head, place = (
        folder / name for name in ("random.safetensors", "random-head.safetensors", "random-bundle")
    )
    prepared = Prepared(bundle=place, weights=weights, head=head, description="random weights")
    progress("looking for what is there")
    known = _known_missing(prepared)
    if _is_reusable(prepared, config, known):
        return replace(prepared, missing=tuple(known.values()))
    progress("making random weights")
    _random_weights(weights, config)
    torch.manual_seed(0)
    TemporalHead(1, config.embedding_size).save(head)
    missing: dict[str, str] = {}
    precisions = PRECISIONS
    while True:
        try:
            write_bundle(
                BundleContents(weights, _NAMES, head=head, config=config, licences=("random weights",)),
                place,
                precisions=precisions,
                overwrite=place.exists(),
                progress=prefixed(progress, "exporting: "),
            )
            noted = _Missing(bundle_sha256=_hash(place), why=missing)
            atomic_write(folder / _MISSING, msgspec.json.encode(noted))
            return replace(prepared, missing=tuple(missing.values()))
        except PrecisionError as error:
            if error.precision == "fp32":
                raise
            precisions = tuple(each for each in precisions if each != error.precision)
            missing[error.precision] = f"{error.precision} could not be exported: {error.loss}"


def _hash(bundle: Path) -> str:
    return file_entry(bundle / "manifest.json").sha256


def _known_missing(wanted: Prepared) -> dict[str, str]:
    """Which precisions could not be exported when the bundle that is there was made, and why."""
    try:
        noted = read_json((wanted.bundle.parent / _MISSING).read_bytes(), _Missing)
        return noted.why if noted.bundle_sha256 == _hash(wanted.bundle) else {}
    except (OvavelError, OSError, ValueError):
        return {}


def _is_reusable(wanted: Prepared, config: ImageBindConfig, missing: Collection[str] = ()) -> bool:
    """Whether a whole bundle in all precisions but those `missing` is there, of weights and head of this version."""
    from importlib.metadata import version

    try:
        manifest = Bundle.open(wanted.bundle).manifest
        hashes = [file_entry(path).sha256 for path in (wanted.weights, wanted.head) if path]
        same = ImageBindConfig.from_dict(manifest.model.config) == config
    except (OvavelError, OSError):
        return False
    return (
        same
        and manifest.ovavel_version == version("ovavel")
        and hashes == [manifest.model.weights_sha256, manifest.model.head_sha256]
        and {*PRECISIONS} - {*missing} <= manifest.graphs["vision"].keys() & manifest.graphs["audio"].keys()
    )


def _random_weights(path: Path, config: ImageBindConfig) -> Path:
    """Write a checkpoint with the published names, of the scale that trained weights start from."""
    import torch

    from ovavel.training.models.checkpoint import write_checkpoint
    from ovavel.training.models.imagebind.model import published_entries

    random = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in published_entries(config).items():
        if name.endswith(".mask"):
            continue  # optional: causal attention makes it again
        if len(shape) < 2:
            state[name] = torch.full(shape, 1.0 if name.endswith("weight") else 0.0)
        else:
            state[name] = torch.randn(shape, generator=random) / math.sqrt(math.prod(shape[1:]))
    write_checkpoint(path, state, {})
    return path
