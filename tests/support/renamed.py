"""A copy of the demo's bundle that lacks names, and a site that watches the demo's clip with it."""

from __future__ import annotations

import shutil
from pathlib import Path

from ovavel.runtime.bundle.bundle import Bundle
from support.service import CLIP, DEMO

DOG, DRUM = "large dog barking slowly", "large drum beating quickly"
CAMERA = f'[[camera]]\nid = "gate"\nsource = "{CLIP}"\nloop = true'


def bundle_without(folder: Path, *names: str) -> Path:
    """A copy in `folder`/bundle."""
    path = folder / "bundle"
    shutil.copytree(DEMO / "bundle", path)
    bundle = Bundle.open(path)
    bundle.save_vocabulary(bundle.vocabulary.removed(names))
    return path


def renamed_site(folder: Path, *names: str, more: str = "", camera: str = CAMERA) -> Path:
    """The site file, whose bundle lacks `names`."""
    bundle_without(folder, *names)
    lines = ('bundle = "bundle"', 'data = "data"', "threads = 1", 'listen = "127.0.0.1:0"', camera, more)
    path = folder / "site.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path
