"""Every file that is read and was perhaps written by somebody else, damaged by chance and by intent.

What comes of it is what was there, or an error of the tree in one line: no other exception, no hang, and little memory.
A bundle's own files are damaged in `runtime/test_bundle_mutations.py`, recordings in `runtime/test_media_source.py`.
"""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from support.bundle_mutations import mutated
from support.feature_cache_factory import write_cache
from support.ovavebench_factory import make_bench

from ovavel.eval.bench.compare import compare
from ovavel.eval.bench.read import read_report
from ovavel.eval.datasets.feature_cache import FeatureCache
from ovavel.eval.datasets.ovavebench import OVAVEBench
from ovavel.runtime.errors import OvavelError
from ovavel.runtime.pipeline.texts import read_names
from ovavel.runtime.reporting.text import one_line
from ovavel.runtime.results.document import Document, read_json
from ovavel.runtime.sinks.appended import AppendedFile
from ovavel.runtime.sinks.as_json import to_json_bytes
from ovavel.runtime.sinks.records import EventFields, GapRecord
from ovavel.training.fit.recipes import RECIPES, read_recipe
from ovavel.training.fit.result import DataInfo, Epoch, FitResult, PartInfo, RowTable
from ovavel.training.heads.temporal import TemporalHead
from ovavel.training.models.checkpoint import read_checkpoint, read_metadata
from ovavel.training.models.imagebind.model import ImageBindConfig, read_config

QUICK, SLOW = 60, 1500
"""Damaged copies for each reader, of all its files together."""
MOST_BYTES = 200 * 2**20
"""What Python may allocate at once, far more than is in any of these files."""

Reader = Callable[[Path], object]


def read_dataset(folder: Path) -> object:
    bench = OVAVEBench.open(folder)
    chosen = [bench.select(split, train_ratio=ratio) for split in ("train", "val", "test") for ratio in (0.5, 1.0)]
    return chosen, bench.truth([clip for clip in bench.clips if clip.labels])


def read_cache(folder: Path) -> object:
    bench = OVAVEBench.open(folder / "data")
    return FeatureCache.open(folder / "cache").load(bench.select("test"))


def read_result(folder: Path) -> object:
    result = FitResult.read(folder)
    return result and result.best


def read_weights(file: Path) -> object:
    return [float(tensor.float().sum()) for tensor in read_checkpoint(file).values()], read_metadata(file)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory, tiny_head: Path) -> Path:
    """A folder for each reader, with whole files."""
    root = tmp_path_factory.mktemp("samples")
    make_bench(root / "dataset", clips=1, media=False)
    make_bench(root / "cache/data", clips=1, media=False)
    write_cache(root / "cache/cache", OVAVEBench.open(root / "cache/data"), {"test": 1})
    for name in ("head", "weights", "pickled", "recipe", "result", "names", "report", "document", "config", "appended"):
        (root / name).mkdir()
    shutil.copyfile(tiny_head, root / "head/head.safetensors")
    shutil.copyfile(tiny_head, root / "weights/weights.safetensors")
    torch.save(read_checkpoint(tiny_head), root / "pickled/weights.pth")
    (root / "names/names.txt").write_text("dog barking\nrace car\nsinging bowl\n", encoding="utf-8")
    (root / "recipe/mine.toml").write_text('base = "paper"\nepochs = 4\nlearning_rate = 1e-4\nseed = 3\n')
    (root / "config/tiny.json").write_text(json.dumps(ImageBindConfig.tiny().to_dict()), encoding="utf-8")
    (root / "result/result.json").write_bytes(made_up_result().encode())
    (root / "report/bench.json").write_text(json.dumps(made_up_report()), encoding="utf-8")
    gap = to_json_bytes(GapRecord(sense="audio", cause="late", start_s=1, duration_s=2))
    (root / "appended/events.jsonl").write_bytes(gap + b"\n" + gap + b"\n" + gap[:-7])
    (root / "document/clip.json").write_bytes(to_json_bytes(made_up_document()))
    return root


def made_up_result() -> FitResult:
    part = PartInfo(clips=3, damaged=1)
    data = DataInfo(fingerprint="a", embedding_size=8, train_classes=3, classes=4, train=part, val=part, test=None)
    scores: RowTable = {"total": {"acc": 0.5, "seg": 0.5, "eve": 0.5, "avg": 0.5}, "seen": None}
    epochs = tuple(
        Epoch(number=number, learning_rate=1e-4, loss=1.5, gate=None, val=scores, test=None) for number in (1, 2)
    )
    return FitResult(recipe=RECIPES["paper"], data=data, epochs=epochs, chosen=2, test_choice=None)


def made_up_report() -> dict[str, Any]:
    times = [1.0 + number / 100 for number in range(20)]
    single = {
        "stages": {"window": {"p50": 1.0, "p99": 2.0}},
        "durations_ms": {"window": times, "vision": times},
        "cpu_ms": times,
        "yardstick_ms": times,
        "yardstick_cpu_ms": times,
    }
    backend = {"device": "cpu", "threads": 1, "versions": {}}
    row = {"name": "own", "reference": False, "backend": backend, "single": single}
    machine = {"cpu": "a", "cores": 2, "gpus": [], "versions": {"numpy": "2"}}
    return {"format": 2, "machine": machine, "media": "noise", "rows": [row]}


def made_up_document() -> Document:
    event = EventFields(
        id="018f-1",
        label="dog barking",
        start_s=1,
        end_s=2,
        peak_score=0.5,
        peak_margin=0.25,
        state="end",
        vocabulary_version="a",
    )
    return Document(
        format_version=1,
        session_id="018f",
        source="clip.mp4",
        live=False,
        vocabulary_version="a",
        versions={"onnxruntime": "1.23"},
        lag=2,
        fusion="positive",
        channel="auto",
        rules={"bridge_s": 1.0},
        duration_s=10.0,
        senses=("audio", "vision"),
        model="made up",
        licence="none",
        bundle_sha256="0" * 64,
        backend="onnxruntime",
        device="cpu",
        provider="CPU",
        precision={"vision": "fp32"},
        labels=("dog barking", "other"),
        events=(event,),
        segments=(),
        gaps=(GapRecord(sense="audio", cause="late", start_s=1, duration_s=2),),
        dropped={"slow": 1},
        trailing_s=0.5,
        channels={0: 3},
    )


def read_appended(folder: Path) -> object:
    """Open a JSONL file whose last line is damaged, as after a crash, and append: what was whole is as it was."""
    file, aside, mark = folder / "events.jsonl", folder / "events.jsonl.torn", b'{"mark":1}\n'
    aside.unlink(missing_ok=True)
    before = file.read_bytes()
    whole, end, tail = before.rpartition(b"\n")
    appended = AppendedFile(file, listener=lambda _: None, backlog=4)
    appended.write(mark)
    appended.close()
    after, torn = file.read_bytes(), aside.read_bytes() if aside.exists() else None
    aside.unlink(missing_ok=True)
    assert after.startswith(whole + end)
    if torn is not None:
        assert (torn, after) == (tail + b"\n", whole + end + mark), "moved aside"
    else:
        assert after == before + (b"\n" if tail else b"") + mark
    return after


READERS: dict[str, Reader] = {
    "appended": read_appended,
    "dataset": read_dataset,
    "cache": read_cache,
    "head": lambda folder: TemporalHead.load(folder / "head.safetensors").state_dict().keys(),
    "weights": lambda folder: read_weights(folder / "weights.safetensors"),
    "pickled": lambda folder: read_weights(folder / "weights.pth"),
    "config": lambda folder: read_config(str(folder / "tiny.json")),
    "recipe": lambda folder: read_recipe(folder / "mine.toml"),
    "result": read_result,
    "names": lambda folder: read_names(folder / "names.txt"),
    "report": lambda folder: compare(read_report(folder), read_report(folder)),
    "document": lambda folder: read_json(folder / "clip.json"),
}


def fault(read: Reader, whole: Path, copy: Path, file: Path, seed: int) -> str | None:
    """Damage `file` of the folder `whole` in its `copy`; return what is wrong with what came of it."""
    data = (whole / file).read_bytes()
    (copy / file).write_bytes(mutated(file.name, data, Random(f"{file} {seed}")))
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    try:
        read(copy)
        wrong = None
    except OvavelError as error:
        said = one_line(str(error))  # as commands print it
        wrong = None if said.isprintable() and 10 < len(said) < 2000 else f"odd words: {said[:300]!r}"
    except BaseException as error:
        wrong = f"not of the tree: {error!r:.300}"
    finally:
        shutil.copyfile(whole / file, copy / file)
    taken = tracemalloc.get_traced_memory()[1] - before
    return wrong or (f"it takes {taken >> 20} MiB" if taken > MOST_BYTES else None)


def faults(kind: str, samples: Path, tmp_path: Path, seeds: range) -> dict[str, str]:
    whole, copy = samples / kind, tmp_path / kind
    shutil.copytree(whole, copy)
    READERS[kind](copy)
    files = sorted(file.relative_to(whole) for file in whole.rglob("*") if file.is_file())
    found = {}
    tracemalloc.start()
    try:
        for file in files:
            for seed in seeds[:: len(files)]:
                if wrong := fault(READERS[kind], whole, copy, file, seed):
                    found[f"{file} {seed}"] = wrong
    finally:
        tracemalloc.stop()
    return found


@pytest.mark.parametrize("kind", READERS)
def test_a_damaged_file_is_read_or_refused_in_one_line(kind: str, samples: Path, tmp_path: Path) -> None:
    assert not faults(kind, samples, tmp_path, range(QUICK))


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", READERS)
def test_many_damaged_files_are_read_or_refused_in_one_line(kind: str, samples: Path, tmp_path: Path) -> None:
    assert not faults(kind, samples, tmp_path, range(QUICK, QUICK + SLOW))
