"""Writes a bundle's graphs as a model repository, the folder that a Triton server loads."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from ovavel.runtime.backends.triton.library import load_library
from ovavel.runtime.backends.triton.models import VERSION, ModelSettings, model_config
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.graphs import Graph
from ovavel.runtime.errors import BundleError, UsageError
from ovavel.runtime.system.files import output_error, whole_folder
from ovavel.runtime.system.progress import Progress, no_progress

__all__ = ["CONFIG", "check_place", "write_repository"]

CONFIG = "config.pbtxt"


def check_place(out: Path, *, overwrite: bool) -> None:
    """Refuse an `out` that holds something else: at most an older repository, and that only to `overwrite` it.

    Raises:
        UsageError: it does.
        OutputError: it cannot be read.
    """
    try:
        if out.is_symlink() or (out.exists() and not out.is_dir()):
            raise UsageError(f"{out} is a link or a file, not a folder; choose another place")
        inside = list(out.iterdir()) if out.exists() else []
        others = sorted(each.name for each in inside if not _is_model(each))
    except OSError as error:
        raise output_error(out, error) from error
    if inside and not overwrite:
        raise UsageError(f"{out} is not empty; choose another folder, or replace the repository with --overwrite")
    if others:
        raise UsageError(f"{out} is not a repository of ovavel, as it has {others[0]!r}, and was not overwritten")


def write_repository(
    bundle: Bundle,
    out: Path,
    precision: Mapping[Graph, str],
    settings: ModelSettings,
    *,
    progress: Progress = no_progress,
) -> None:
    """Write a model for each graph of `precision` into the folder `out`, which appears when it is complete.

    Raises:
        MissingExtraError: tritonclient is not installed.
        BundleError: the bundle lacks a graph, or a file was altered.
        OutputError: the disk is full, or the folder cannot be written.
    """
    library = load_library("'ovavel bundle triton'")
    out = out.absolute()
    with whole_folder(out) as aside:
        for number, (graph, each) in enumerate(precision.items()):
            progress(f"copying {graph}", number, len(precision))
            # A graph goes by itself, so that the memory of its weights is given back.
            (files,) = bundle.load({graph: each}).values()
            folder = aside / graph / str(VERSION)
            folder.mkdir(parents=True)
            copies = {"model.onnx": files.graph} | dict(files.weights)
            if len(copies) != 1 + len(files.weights):
                raise BundleError(f"weights of {files.path} are called model.onnx; export the bundle again")
            with files.loading():
                for name, file in copies.items():
                    shutil.copyfile(file.descriptor_path, folder / name)
            config = model_config(library, bundle, graph, each, settings)
            (aside / graph / CONFIG).write_text(library.text_format.MessageToString(config), encoding="utf-8")


def _is_model(folder: Path) -> bool:
    """Whether the folder is a model that this module has written."""
    return folder.name in get_args(Graph) and (folder / CONFIG).is_file()
