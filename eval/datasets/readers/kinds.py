"""Every kind of labelled data set, by the name that the command line has for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from ovavel.eval.datasets.annotations import META
from ovavel.eval.datasets.dataset import Dataset
from ovavel.eval.datasets.ovavebench import OVAVEBench
from ovavel.eval.datasets.readers import ave, llp, unav
from ovavel.runtime.errors import DatasetError
from ovavel.runtime.system.paths import check_path

__all__ = ["open_dataset"]

_READERS: Mapping[str, Callable[[Path, Path | None], Dataset]] = MappingProxyType(
    {"ov-avebench": OVAVEBench.open, "ave": ave.open_ave, "llp": llp.open_llp, "unav": unav.open_unav}
)
_FILES = {"ov-avebench": META, "ave": ave.ANNOTATIONS, "llp": llp.AUDIO, "unav": unav.ANNOTATIONS}


def open_dataset(root: Path | str, annotations: Path | str | None = None, kind: str = "ov-avebench") -> Dataset:
    """Read the annotation files of a data set in `annotations`; without it in `root`/annotations, or else in `root`.

    Raises:
        DatasetError: a file is missing or malformed, or the folder holds the files of another kind of data set.
    """
    for given in (root, annotations):
        if given is not None:
            check_path(given, DatasetError)
    root, given = Path(root), Path(annotations) if annotations is not None else None
    folders = [given] if given else [root / "annotations", root]
    if not any((folder / _FILES[kind]).is_file() for folder in folders):
        for other, file in _FILES.items():
            if any((folder / file).is_file() for folder in folders):
                raise DatasetError(
                    f"{given or root} holds {file}, which is of the kind {other}, and not {_FILES[kind]}: "
                    f"give --dataset {other}"
                )
    return _READERS[kind](root, given)
