"""Checkpoints on disk: read memory-mapped without running code, checked entry by entry, written whole or not at all."""

from __future__ import annotations

import json
import os
import pickle
import re
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ovavel.runtime.errors import CheckpointError, OutputError

__all__ = ["check_entries", "read_checkpoint", "read_metadata", "write_checkpoint"]

_NAMED = 5  # how many entries an error names before it only counts


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Map the tensors of a PyTorch `.pth` or a safetensors file into memory, under the names they have there.

    The file's own first bytes show its format, not its name. Nothing is copied: a tensor takes memory only once it is
    read, so the file must stay as it is while its tensors live. Pickled code is never run.

    Raises:
        CheckpointError: there is no such file, or it is not a whole checkpoint that holds tensors and nothing else.
    """
    path = Path(path)
    kind = _format(path)
    tensors: Mapping[object, object]
    if kind == "safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        except (SafetensorError, OSError, RuntimeError, ValueError) as error:
            raise CheckpointError(_damaged(path, error)) from error
    else:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's advice on files of an odd kind; what matters is raised
                loaded = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except pickle.UnpicklingError as error:
            asks = re.search(r"GLOBAL ([\w.]+)", str(error))
            raise CheckpointError(
                f"{path} holds Python objects that are not tensors{f' ({asks[1]})' if asks else ''}; such a pickle can "
                "run code, so it was not read. Use the published file, or a safetensors file of the weights alone, "
                "made by whoever made this one"
            ) from None
        except Exception as error:  # a damaged archive fails in many ways
            if "weights_only" in str(error):  # torch's advice on how to run the code that is in there
                raise CheckpointError(
                    f"{path} is no archive of tensors alone, but of a program (TorchScript) or of an old kind, which "
                    "can run code, so it was not read. Use the published file, or a safetensors file of weights alone"
                ) from None
            raise CheckpointError(_damaged(path, error)) from error
        if not isinstance(loaded, Mapping):
            raise CheckpointError(f"{path} holds a {type(loaded).__name__}, not a state dict (names and tensors)")
        tensors = loaded
    strange = [str(name) for name, value in tensors.items() if not isinstance(name, str) or not _is_tensor(value)]
    if strange:
        raise CheckpointError(
            f"{path} is not a state dict: {_some(strange)} is no named tensor. Save the state dict alone."
        )
    return {str(name): value for name, value in tensors.items() if isinstance(value, Tensor)}


def read_metadata(path: str | Path) -> dict[str, str]:
    """Metadata of a safetensors file; empty for a PyTorch file, which has none.

    Raises:
        CheckpointError: as `read_checkpoint`.
    """
    path = Path(path)
    if _format(path) != "safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(_damaged(path, error)) from error


def check_entries(
    path: str | Path,
    found: Mapping[str, Tensor],
    expected: Mapping[str, Sequence[int]],
    *,
    model: str,
    optional: frozenset[str] = frozenset(),
) -> None:
    """Make sure that `found` holds exactly the entries of `expected` (name: shape), all of them floating point.

    Args:
        path: where `found` was read, for the message.
        found: entries of the checkpoint, less those that are ignored.
        expected: entries of the model.
        model: what the model is called in the message.
        optional: names in `expected` that may be absent.

    Raises:
        CheckpointError: names the entries that are missing, extra or of another shape or type.
    """
    missing = [name for name in expected if name not in found and name not in optional]
    extra = [name for name in found if name not in expected]
    misshaped = [
        f"{name} is {tuple(found[name].shape)} where {tuple(shape)} is expected"
        for name, shape in expected.items()
        if name in found and tuple(found[name].shape) != tuple(shape)
    ]
    if misshaped:
        raise CheckpointError(
            f"{path} does not fit {model}: {_some(misshaped)}. These are weights of another size; "
            "choose the configuration they were made for."
        )
    if missing and len(missing) == len(expected) - len(optional & expected.keys()):
        raise CheckpointError(
            f"{path} holds nothing of {model}: it lacks {_some(missing)}"
            + (f", and holds {_some(extra)}" if extra else "")
            + ". It is the checkpoint of something else."
        )
    if missing:
        shard = re.search(r"\d+-of-\d+", Path(path).name) is not None or len(missing) > len(expected) // 10
        raise CheckpointError(
            f"{path} lacks {len(missing)} of the {len(expected)} entries of {model}: {_some(missing)}"
            + (f", and holds {_some(extra)}, which it does not have. " if extra else ". ")
            + ("It looks like one shard of several: join them into one file." if shard else "Fetch it again.")
        )
    if extra:
        raise CheckpointError(f"{path} holds entries that {model} does not have: {_some(extra)}")
    whole = [
        f"{name} ({found[name].dtype})" for name in expected if name in found and not found[name].is_floating_point()
    ]
    if whole:
        raise CheckpointError(
            f"{path} holds {_some(whole)}, which is not floating point; quantised weights are not read"
        )


def write_checkpoint(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file: aside first, then renamed, so `path` is never half a file.

    Raises:
        OutputError: it could not be written; what was at `path` before is still there.
    """
    path = Path(path)
    aside: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        aside = Path(name)
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, aside, dict(metadata))
        _sort_metadata(aside)
        aside.chmod(0o666 & ~_umask())  # mkstemp lets only the owner read
        aside.replace(path)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{path} could not be written: {error}") from error
    finally:
        if aside is not None:
            aside.unlink(missing_ok=True)


def _sort_metadata(path: Path) -> None:
    """Put the metadata of a safetensors file in order, so that the same content gives the same bytes.

    The library writes them in an order that differs from run to run.
    """
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        metadata = {"__metadata__": dict(sorted(header.pop("__metadata__", {}).items()))}
        text = json.dumps(metadata | header, ensure_ascii=False, separators=(",", ":")).encode()
        assert len(text) <= size
        file.seek(8)
        file.write(text.ljust(size))  # the format pads with blanks


def _format(path: Path) -> str:
    """Tell "pth" from "safetensors" by the first bytes, and refuse everything else."""
    try:
        if path.is_dir():
            raise CheckpointError(f"{path} is a folder; give the checkpoint file inside it (.pth or .safetensors)")
        if path.exists() and not path.is_file():  # reading a pipe could wait for ever
            raise CheckpointError(f"{path} is not a file; give a checkpoint file (.pth or .safetensors)")
        with path.open("rb") as file:
            head = file.read(64)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no checkpoint {path}; check the path") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} could not be read: {error}") from error
    if not head:
        raise CheckpointError(f"{path} is empty (0 bytes); fetch it again")
    if head.startswith(b"PK\x03\x04"):
        return "pth"
    if head[8:9] == b"{":
        return "safetensors"
    if head.startswith(b"\x80"):
        raise CheckpointError(
            f"{path} is a bare pickle, which can run code, so it was not read. "
            "If you trust it, load it with torch and save its state dict as safetensors."
        )
    start = head.splitlines()[0].decode("ascii", "replace")[:32]
    raise CheckpointError(
        f"{path} is no checkpoint: it is neither a PyTorch archive nor safetensors, and begins with {start!r}. "
        "If it was downloaded, the download may have been an error page; fetch it again."
    )


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided


def _damaged(path: Path, error: Exception) -> str:
    size = path.stat().st_size if path.exists() else 0
    return f"{path} ({size:,} bytes) is cut short or damaged; fetch it again. ({_first_line(error)})"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
