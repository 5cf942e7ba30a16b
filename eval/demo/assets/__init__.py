"""The files of the demo, as they come with the package."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.errors import DatasetError

__all__ = ["Assets", "Truth", "copy_bundle"]

_FOLDER = Path(__file__).resolve().parent
_BUNDLE, _CLIP, _TRUTH = "bundle", "clip.mp4", "truth.json"
_AGAIN = "Install ovavel again; in a checkout, `ovavel train demo-world` makes these files"


class Truth(msgspec.Struct, frozen=True, kw_only=True):
    """Labels of the clip from its author."""

    names: tuple[str, ...]
    """Names of all the events in the world, without the background."""
    duration_s: float
    labels: tuple[str, ...]
    """Name of the event that is both seen and heard in each second; empty where there is none."""
    notes: tuple[str, ...] = ()
    """What is worth knowing of each second, for instance "heard, but out of sight"; empty, or none at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assets:
    """A bundle, a clip and its truth, found whole and made for each other."""

    bundle: Bundle
    clip: Path
    truth: Truth

    @classmethod
    def open(cls, folder: Path = _FOLDER) -> Assets:
        """Read and check the files in `folder`.

        Raises:
            DatasetError: a file is missing, or the truth is not of this bundle; says which.
            BundleError: the bundle is incomplete or altered.
        """
        for name in (_BUNDLE, _CLIP, _TRUTH):
            if not (folder / name).exists():
                raise DatasetError(f"the demo has no {folder / name}. {_AGAIN}")
        bundle = Bundle.open(folder / _BUNDLE)
        return cls(bundle=bundle, clip=folder / _CLIP, truth=_read_truth(folder / _TRUTH, bundle))


def copy_bundle(bundle: Bundle, to: Path) -> None:
    """Copy `bundle` for the user, unless `to` exists already: names may have been added to it. Raises OSError."""
    if to.exists():
        return
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=".") as folder:
        aside = Path(folder) / "bundle"
        aside.mkdir()
        for file in bundle.path.iterdir():
            shutil.copyfile(file, aside / file.name)
        aside.rename(to)


def _read_truth(path: Path, bundle: Bundle) -> Truth:
    try:
        truth = msgspec.json.decode(path.read_bytes(), type=Truth)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DatasetError(f"{path} cannot be read: {error}. {_AGAIN}") from error
    *names, background = bundle.vocabulary.names
    seconds = len(truth.labels)
    unknown = {label for label in truth.labels if label} - set(names)
    if unknown or {*truth.names} - {background} != {*names}:
        raise DatasetError(f"{path} is not of this bundle: their names differ. {_AGAIN}")
    if not seconds or int(truth.duration_s) != seconds or len(truth.notes) not in (0, seconds):
        raise DatasetError(
            f"{path} has {seconds} labels and {len(truth.notes)} notes for {truth.duration_s} seconds. {_AGAIN}"
        )
    return truth
