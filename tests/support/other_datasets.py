"""Writes small data sets in the published layouts of AVE, LLP and UnAV-100, of the demo's clip."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from support.demo_copies import CLIP, EVENTS

LABELS = tuple(sorted({label for _, _, label in EVENTS}))


def make_ave(root: Path, videos: int = 1) -> Path:
    """Clips of the demo's first ten seconds, of one class each, in every split."""
    lines = []
    for split in ("train", "val", "test"):
        mine = []
        for number in range(videos):
            name = f"-{split}_{number}"
            mine.append(f"{LABELS[0]}&{name}&good&0&4")
            mine.append(f"{LABELS[1]}&{name}&good&7&10")  # a clip of its own
            copy_of_clip(root / "AVE" / f"{name}.mp4")
        (root / f"{split}Set.txt").write_text("\n".join(mine))
        lines += mine
    (root / "Annotations.txt").write_text("\n".join(["Category&VideoID&Quality&StartTime&EndTime", *lines]) + "\n")
    return root


def make_llp(root: Path) -> Path:
    """One video in val and one in test: what is heard and what is seen overlap in part."""
    root.mkdir(parents=True, exist_ok=True)
    names = {"val": "abcdefghijk_30_40", "test": "-bcdefghij__0_10"}
    heard = [(0, 4, "Small_bell"), (2, 8, "Dog")]
    seen = [(1, 10, "Small_bell"), (0, 5, "Dog"), (0, 10, "Car")]
    for file, events in (("AVVP_eval_audio.csv", heard), ("AVVP_eval_visual.csv", seen)):
        rows = [f"{name}\t{start}\t{end}\t{label}" for name in names.values() for start, end, label in events]
        (root / file).write_text("\n".join(["filename\tonset\toffset\tevent_labels", *rows]))
    for split, name in names.items():
        (root / f"AVVP_{split}_pd.csv").write_text(f"filename\tevent_labels\n{name}\tDog,Small_bell,Car\n")
    copy_of_clip(root / "videos" / f"{names['val']}.mp4")
    copy_of_clip(root / "videos" / f"{names['test'][:11]}.mp4")  # named by the id of the video alone
    return root


def make_unav(root: Path) -> Path:
    """The demo's whole clip in every split, with an event that overlaps its first one."""
    events = [{"segment": [start, end], "label": label} for start, end, label in EVENTS]
    events.append({"segment": [1.2, 5.1], "label": LABELS[1], "label_id": 3})
    subsets = ("train", "validation", "test")
    database = {f"v_{subset}": {"duration": 40.0, "subset": subset, "annotations": events} for subset in subsets}
    for name in database:
        copy_of_clip(root / "videos" / f"{name}.mp4")
    (root / "unav100_annotations.json").write_text(json.dumps({"version": "1", "database": database}))
    return root


def copy_of_clip(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(CLIP, path)
