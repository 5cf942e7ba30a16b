"""Engines on disk, as far as that needs no TensorRT."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ovavel.runtime.backends.tensorrt.cache import found_options
from ovavel.runtime.backends.tensorrt.plan import METADATA, BuildOptions, EngineFor
from ovavel.runtime.bundle.manifest import FileEntry
from ovavel.runtime.errors import InputError


@pytest.fixture
def wanted() -> EngineFor:
    return EngineFor(
        library="tensorrt",
        version="1",
        platform="linux",
        gpu=None,
        compute_capability="8.9",
        graph="head",
        precision="fp32",
        sources=(FileEntry(sha256="0" * 64, bytes=1),),
        options=BuildOptions(),
    )


def test_options_of_a_folder_that_others_may_write_to_are_not_read(tmp_path: Path, wanted: EngineFor) -> None:
    folder = tmp_path / "engines" / f"{wanted.family}-other"
    folder.mkdir(parents=True, mode=0o700)
    (folder / METADATA).write_text("{}")
    assert found_options(folder.parent, wanted) == wanted.options
    for path in (folder / METADATA, folder, folder.parent):
        path.chmod(0o777)
        with pytest.raises(InputError, match=r"can be written to by other users.*chmod go-w"):
            found_options(folder.parent, wanted)
        path.chmod(0o700)


def test_a_pipe_in_place_of_an_engine_does_not_block(tmp_path: Path, wanted: EngineFor) -> None:
    folder = tmp_path / "engines" / f"{wanted.family}-other"
    folder.mkdir(parents=True, mode=0o700)
    os.mkfifo(folder / METADATA, 0o600)
    assert found_options(folder.parent, wanted) == wanted.options
