"""Twenty broken clips of ten kinds go the whole way: check, features, training, evaluation; each is accounted for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.ovavebench_factory import DAMAGE, SEEN, UNSEEN, break_clip, make_bench

from ovavel.eval.datasets.feature_cache import FeatureCache
from ovavel.eval.datasets.ovavebench import OVAVEBench
from ovavel.runtime.cli import main

pytestmark = pytest.mark.slow

BROKEN = {"train": 8, "val": 5, "test": 7}


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[tuple[str, str], str]]:
    """A dataset, and (split, clip) → the kind of its damage."""
    root = make_bench(tmp_path_factory.mktemp("damaged") / "data", clips=4)
    random = np.random.default_rng(0)
    kinds = iter(random.permutation([*DAMAGE, *DAMAGE]))
    broken = {}
    for split, count in BROKEN.items():
        clips = OVAVEBench.open(root).select(split)
        for index in random.choice(len(clips), count, replace=False):
            kind = str(next(kinds))
            break_clip(root, clips[index], kind)
            broken[split, clips[index].name] = kind
    assert len(broken) == 20
    assert set(broken.values()) == set(DAMAGE)
    return root, broken


@pytest.fixture(scope="module")
def features(damaged, tiny_weights: Path) -> Path:
    root, _ = damaged
    out = root.parent / "features"
    flags = f"--weights {tiny_weights} --config tiny --device cpu --workers 1"
    assert main(f"train features --data {root} --out {out} {flags}".split()) == 0
    return out


def test_check_names_each(damaged) -> None:
    root, broken = damaged
    report = root.parent / "check"
    assert main(["eval", "data", "--data", str(root), "--out", str(report), "--workers", "1"]) == 1
    reported = json.loads((report / "check-data.json").read_text())
    assert {(clip["split"], clip["name"]) for clip in reported["damaged"]} == set(broken)
    assert {split: check["damaged"] for split, check in reported["splits"].items()} == BROKEN
    for split, check in reported["splits"].items():
        assert check["clips"] == check["undamaged"] + check["damaged"] == len(OVAVEBench.open(root).select(split))


def test_features_keep_all_others(damaged, features: Path) -> None:
    root, broken = damaged
    bench, cache = OVAVEBench.open(root), FeatureCache.open(features)
    assert set(cache.damaged) == set(broken)
    kinds: dict[str, set[str]] = {}
    for key, made in broken.items():
        kinds.setdefault(made, set()).add(cache.damaged[key].kind)
    assert all(len(reported) == 1 for reported in kinds.values())  # what is broken in one way is called by one phrase
    assert len(set.union(*kinds.values())) >= 8  # a few look the same from outside
    for split, count in BROKEN.items():
        loaded = cache.load(bench.select(split))
        assert len(loaded.damaged) == count
        assert len(loaded.clips) + count == len(bench.select(split)) == len(loaded.audio) + count


def test_training_counts_them(damaged, features: Path) -> None:
    root, _ = damaged
    out = root.parent / "head"
    command = f"train head --data {root} --features {features} --out {out} --epochs 1 --hidden 8 --ffn 16 --device cpu"
    assert main(command.split()) == 0
    data = json.loads((out / "result.json").read_text())["data"]
    bench = OVAVEBench.open(root)
    for split, count in BROKEN.items():
        assert data[split]["damaged"] == count
        assert data[split]["clips"] + count == len(bench.select(split))
    page = (out / "report.html").read_text()
    assert f"{BROKEN['train']} damaged" in page


def test_evaluation_counts_and_names_them(damaged, tiny_weights: Path, tmp_path: Path) -> None:
    from ovavel.export.bundle import BundleContents, write_bundle
    from ovavel.training.models.imagebind.model import ImageBindConfig

    root, broken = damaged
    write_bundle(
        BundleContents(tiny_weights, sorted([*SEEN, *UNSEEN]), config=ImageBindConfig.tiny()), tmp_path / "bundle"
    )
    out = tmp_path / "scores"
    assert main(f"eval score --data {root} --bundle {tmp_path / 'bundle'} --device cpu --out {out}".split()) == 0
    reported = json.loads((out / "ovave-test.json").read_text())["dataset"]
    assert (
        reported["clips"]
        == reported["scored"] + reported["damaged"]["count"]
        == len(OVAVEBench.open(root).select("test"))
    )
    assert {(clip["split"], clip["name"]) for clip in reported["damaged"]["clips"]} == {
        k for k in broken if k[0] == "test"
    }
    page = (out / "ovave-test.html").read_text()
    assert all(name in page for split, name in broken if split == "test")
