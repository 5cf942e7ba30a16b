"""Checkpoint files: memory-mapped without running code, checked entry by entry, and written atomically."""

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

_MAX_NAMED = 5  # entries that an error lists by name


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Map the tensors of a PyTorch `.pth` or a safetensors file into memory, by name.

    The format is detected from the first bytes, not from the file name. Nothing is copied: a tensor takes memory only
    when it is read, so the file must not change while its tensors are in use. Pickled code is never run.

    Raises:
        CheckpointError: there is no such file, or it is not a complete checkpoint of tensors only.
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
                warnings.simplefilter("ignore")  # torch's hints on unusual files; real problems raise
                loaded = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except pickle.UnpicklingError as error:
            used = re.search(r"GLOBAL ([\w.]+)", str(error))
            raise CheckpointError(
                f"{path} holds Python objects that are not tensors{f' ({used[1]})' if used else ''}; such a pickle can "
                "run code, so it was not read. Use the published file, or ask its author for the weights alone as "
                "safetensors"
            ) from None
        except Exception as error:  # a damaged archive fails in many ways
            if "weights_only" in str(error):  # torch suggests how to run the code in the file
                raise CheckpointError(
                    f"{path} is not an archive of tensors only: it is a program (TorchScript) or in an old format, "
                    "which can run code, so it was not read. Use the published file, or safetensors of weights alone"
                ) from None
            raise CheckpointError(_damaged(path, error)) from error
        if not isinstance(loaded, Mapping):
            raise CheckpointError(f"{path} holds a {type(loaded).__name__}, not a state dict (names and tensors)")
        tensors = loaded
    invalid = [str(name) for name, value in tensors.items() if not isinstance(name, str) or not _is_tensor(value)]
    if invalid:
        raise CheckpointError(
            f"{path} is not a state dict: {_some(invalid)} is not a named tensor. Save only the state dict."
        )
    return {str(name): value for name, value in tensors.items() if isinstance(value, Tensor)}


def read_metadata(path: str | Path) -> dict[str, str]:
    """Return the metadata of a safetensors file; empty for a PyTorch file, which has none.

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
    """Check that `found` holds exactly the entries of `expected` (name: shape), all of them floating point.

    Args:
        path: file that `found` was read from, for the message.
        found: entries of the checkpoint, without ignored ones.
        expected: entries of the model.
        model: name of the model in the message.
        optional: names in `expected` that may be absent.

    Raises:
        CheckpointError: names the entries that are missing, extra or of a wrong shape or type.
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
            f"{path} does not fit {model}: {_some(misshaped)}. These are weights of another size; choose the matching "
            "configuration."
        )
    if missing and len(missing) == len(expected) - len(optional & expected.keys()):
        raise CheckpointError(
            f"{path} holds no entry of {model}: it lacks {_some(missing)}"
            + (f", and holds {_some(extra)}" if extra else "")
            + ". It is a checkpoint of another model."
        )
    if missing:
        shard = re.search(r"\d+-of-\d+", Path(path).name) is not None or len(missing) > len(expected) // 10
        raise CheckpointError(
            f"{path} lacks {len(missing)} of the {len(expected)} entries of {model}: {_some(missing)}"
            + (f", and holds {_some(extra)}, which are not part of it. " if extra else ". ")
            + ("It looks like one shard of several: join them into one file." if shard else "Fetch it again.")
        )
    if extra:
        raise CheckpointError(f"{path} holds entries that {model} does not have: {_some(extra)}")
    integers = [
        f"{name} ({found[name].dtype})" for name in expected if name in found and not found[name].is_floating_point()
    ]
    if integers:
        raise CheckpointError(
            f"{path} holds {_some(integers)}, which is not floating point; quantized weights are not supported"
        )


def write_checkpoint(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file atomically: to a temporary file first, which is then renamed.

    Raises:
        OutputError: the file could not be written; an existing file at `path` is kept.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary, dict(metadata)
        )
        _sort_metadata(temporary)
        temporary.chmod(0o666 & ~_umask())  # mkstemp lets only the owner read
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{path} could not be written: {error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _sort_metadata(path: Path) -> None:
    """Sort the metadata of a safetensors file, so that the same content gives the same bytes.

    The library's own order differs from run to run.
    """
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        metadata = {"__metadata__": dict(sorted(header.pop("__metadata__", {}).items()))}
        text = json.dumps(metadata | header, ensure_ascii=False, separators=(",", ":")).encode()
        assert len(text) <= size
        file.seek(8)
        file.write(text.ljust(size))  # the format pads with spaces


def _format(path: Path) -> str:
    """Detect "pth" or "safetensors" from the first bytes, and refuse everything else."""
    try:
        if path.is_dir():
            raise CheckpointError(f"{path} is a folder; give the checkpoint file inside it (.pth or .safetensors)")
        if path.exists() and not path.is_file():  # reading a pipe could wait forever
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
            "If you trust it, load it with PyTorch and save its state dict as safetensors."
        )
    start = head.splitlines()[0].decode("ascii", "replace")[:32]
    raise CheckpointError(
        f"{path} is not a checkpoint: it is neither a PyTorch archive nor safetensors, and begins with {start!r}. "
        "If it was downloaded, it may be an error page; fetch it again."
    )


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided


def _damaged(path: Path, error: Exception) -> str:
    size = path.stat().st_size if path.exists() else 0
    return f"{path} ({size:,} bytes) is truncated or damaged; fetch it again. ({_first_line(error)})"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MAX_NAMED
    return ", ".join(names[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
