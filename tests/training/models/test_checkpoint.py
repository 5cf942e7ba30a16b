"""Every kind of file that is not a checkpoint gives a clear error, and never runs code."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ovavel.runtime.errors import CheckpointError
from ovavel.training.models.checkpoint import read_checkpoint, read_metadata, write_checkpoint

STATE = {"a.weight": torch.arange(600.0).reshape(20, 30), "a.scale": torch.tensor(3.0)}


class Evil:
    """Object that creates the file `path` when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin"])
def test_reads_what_was_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(STATE, path, {"name": "x"})
    else:
        torch.save(OrderedDict(STATE), path)
    tensors = read_checkpoint(str(path))
    assert tensors.keys() == STATE.keys()
    assert all(torch.equal(tensors[name], STATE[name]) for name in STATE)
    assert read_metadata(path) == ({"name": "x"} if suffix == ".safetensors" else {})


def test_written_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write_checkpoint(tmp_path / "weights.safetensors", STATE, {})
    assert (tmp_path / "weights.safetensors").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_missing_file_folder_and_empty_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no checkpoint .*none\.pth"):
        read_checkpoint(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="is a folder"):
        read_checkpoint(tmp_path)
    (tmp_path / "empty.pth").touch()
    with pytest.raises(CheckpointError, match="empty"):
        read_checkpoint(tmp_path / "empty.pth")
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / "empty.pth" / "deeper.pth")
    with pytest.raises(CheckpointError):
        read_checkpoint("null\0byte")


def test_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(CheckpointError, match="not a file"):
        read_checkpoint(tmp_path / "pipe.pth")


@pytest.mark.parametrize(
    "content",
    [
        b"hello, these are my weights\n",
        b"<!DOCTYPE html><html>404</html>",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"\xff" * 100,
        b"\n",
        b"PK",
    ],
)
def test_text_and_noise(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        read_checkpoint(tmp_path / "weights.pth")


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_bare_pickle_with_code_does_not_run(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil(tmp_path / "ran"), protocol=protocol))
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_archive_with_code_does_not_run(tmp_path: Path) -> None:
    torch.save({**STATE, "evil": Evil(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="can run code"):
        read_checkpoint(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_archive_from_before_torch_1_6(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match="save its state dict as safetensors"):
        read_checkpoint(tmp_path / "old.pth")


@pytest.mark.parametrize("value", [[torch.zeros(2)], {"state_dict": STATE}, {"epoch": 3, **STATE}, {7: torch.zeros(2)}])
def test_what_is_not_a_state_dict(tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="state dict"):
        read_checkpoint(tmp_path / "other.pth")


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_every_truncation_is_detected(tmp_path: Path, kind: str) -> None:
    whole, cut = tmp_path / f"whole.{kind}", tmp_path / f"cut.{kind}"
    if kind == "pth":
        torch.save(STATE, whole)
    else:
        save_file(STATE, whole)
    content = whole.read_bytes()
    for size in (1, 4, 9, 60, len(content) // 2, len(content) - 1):
        cut.write_bytes(content[:size])
        with pytest.raises(CheckpointError, match=r"cut\."):
            read_checkpoint(cut)


def test_zip_of_something_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as file:
        file.writestr("photo.txt", "x")
    with pytest.raises(CheckpointError, match=r"photos\.zip"):
        read_checkpoint(tmp_path / "photos.zip")


def test_unreadable_file() -> None:
    with pytest.raises(CheckpointError, match="could not be read"):
        read_checkpoint("/proc/self/mem")  # a regular file whose first byte cannot be read


class Net(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.parametrize("kind", ["code", "protocol", "program"])
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_refusals_do_not_repeat_the_advice_of_torch(
    kind: str, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    path = tmp_path / "evil.pth"
    if kind == "program":
        torch.jit.script(Net()).save(str(path))
    else:
        torch.save({**STATE, "evil": Evil(tmp_path / "ran")}, path, pickle_protocol=5 if kind == "protocol" else 2)
    recwarn.clear()
    with pytest.raises(CheckpointError, match="can run code") as refused:
        read_checkpoint(path)
    assert not recwarn.list
    assert not [
        word for word in ("weights_only", "torch.load", "allowlist", "safe_globals") if word in str(refused.value)
    ]
    assert (tmp_path / "ran").exists() is False
