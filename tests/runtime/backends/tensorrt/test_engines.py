"""Engines are built, kept, found and refused: with the real TensorRT-RTX, which needs no GPU to build."""

from __future__ import annotations

import fcntl
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import msgspec
import onnx
import pytest
from msgspec.structs import replace
from onnx import helper

from ovavel.runtime.backends.tensorrt.build import build_engine
from ovavel.runtime.backends.tensorrt.cache import Provided, provide_engine
from ovavel.runtime.backends.tensorrt.engines import provide_engines
from ovavel.runtime.backends.tensorrt.library import Library, load_library
from ovavel.runtime.backends.tensorrt.plan import BuildOptions, EngineFor, engine_for, read_engine
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.hashed import read_graph
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.errors import EngineError, OutputError, UsageError

pytestmark = pytest.mark.slow

pytest.importorskip("tensorrt_rtx")


GRAPHS = ("vision", "audio", "head")
SMALL = BuildOptions(batches=(1, 2), workspace_mb=64)


@dataclass
class Reported:
    """What a progress function was called with."""

    stages: list[str]
    shares: list[float]

    def __call__(self, stage: str, share: float, *_: object) -> None:
        self.stages.append(stage)
        self.shares.append(share)


@pytest.fixture(scope="module")
def library() -> Library:
    return load_library("tensorrt-rtx")


def provide(bundle: Path | Bundle, root: Path, library: Library, graph: str = "head", **options: object) -> Provided:
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    arguments = {"cuda": None, "compute_capability": "8.9", "options": SMALL, **options}
    return provide_engines(opened, library, {graph: "fp32"}, root=root, **arguments)[graph]


def wanted(bundle: Path, library: Library, graph: str = "head") -> EngineFor:
    return engine_for(
        Bundle.open(bundle), graph, "fp32", library=library, gpu=None, compute_capability="8.9", options=SMALL
    )


def left_in(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.suffix != ".lock")


@pytest.mark.parametrize("graph", GRAPHS)
def test_every_product_of_an_fp32_engine_is_read_back_in_fp32(
    exported_bundle: Path, tmp_path: Path, library: Library, graph: str
) -> None:
    reported = Reported([], [])
    provided = provide(exported_bundle, tmp_path, library, graph, progress=reported)
    evidence = provided.engine.evidence
    assert set(evidence.products) == {"fp32"}
    assert evidence.found == evidence.products["fp32"] > 5
    assert evidence.read_from == "network and build log"
    assert provided.built
    assert provided.engine.plan.bytes == (provided.folder / "engine.plan").stat().st_size > 10_000
    assert reported.shares == sorted(reported.shares)
    assert reported.shares[-1] == 1
    assert all(graph in stage for stage in reported.stages if stage != "starting")


def test_an_engine_that_was_built_is_found(exported_bundle: Path, tmp_path: Path, library: Library) -> None:
    first = provide(exported_bundle, tmp_path, library)
    written = (first.folder / "engine.plan").stat().st_mtime_ns
    reported = Reported([], [])
    again = provide(exported_bundle, tmp_path, library, progress=reported)
    assert (again.folder, again.engine, again.built) == (first.folder, first.engine, False)
    assert (again.folder / "engine.plan").stat().st_mtime_ns == written
    assert not reported.stages
    rebuilt = provide(exported_bundle, tmp_path, library, overwrite=True)
    assert rebuilt.built
    assert (rebuilt.folder / "engine.plan").stat().st_mtime_ns > written
    assert left_in(tmp_path) == [first.folder.name]


def test_a_changed_vocabulary_needs_no_new_engine(tiny_bundle: Path, tmp_path: Path, library: Library) -> None:
    first = provide(tiny_bundle, tmp_path / "engines", library)
    bundle = Bundle.open(tiny_bundle)
    old = bundle.vocabulary
    changed = bundle.save_vocabulary(Vocabulary(names=("cat", *old.names[1:]), embeddings=old.embeddings))
    assert not provide(changed, tmp_path / "engines", library).built
    assert provide(changed, tmp_path / "engines", library).folder == first.folder


def test_other_options_make_another_engine_and_without_options_any_fits(
    exported_bundle: Path, tmp_path: Path, library: Library
) -> None:
    first = provide(exported_bundle, tmp_path, library)
    other = provide(exported_bundle, tmp_path, library, options=BuildOptions(batches=(1,), workspace_mb=64))
    assert other.built
    assert other.folder != first.folder
    found = provide(exported_bundle, tmp_path, library, options=None)
    assert not found.built
    assert found.folder == other.folder
    elsewhere = provide(exported_bundle, tmp_path, library, options=None, compute_capability="8.6")
    assert elsewhere.built
    assert elsewhere.engine.made_for.options == BuildOptions()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("version", "1.0.0", r"another version: 1\.0\.0, but here it is 1\."),
        ("gpu", "NVIDIA GeForce RTX 5090", "another GPU: NVIDIA GeForce RTX 5090, but here it is any"),
        ("compute_capability", "12.0", "another compute capability: 12.0, but here it is 8.9"),
        ("platform", "linux aarch64", "another platform: linux aarch64"),
        ("precision", "fp16", "another precision"),
        ("sources", (), "another bundle"),
    ],
)
def test_an_engine_built_for_something_else_is_refused(
    exported_bundle: Path, tmp_path: Path, library: Library, field: str, value: object, message: str
) -> None:
    provided = provide(exported_bundle, tmp_path, library)
    changed = replace(provided.engine, made_for=replace(provided.engine.made_for, **{field: value}))
    (provided.folder / "engine.json").write_bytes(msgspec.json.encode(changed))
    with pytest.raises(EngineError, match=rf"(?s){message}.*--overwrite"):
        provide(exported_bundle, tmp_path, library)
    assert provide(exported_bundle, tmp_path, library, overwrite=True).built


@pytest.mark.parametrize("damage", ["a byte", "its end", "the plan", "half of the description", "an old format"])
def test_a_damaged_engine_is_refused(exported_bundle: Path, tmp_path: Path, library: Library, damage: str) -> None:
    folder = provide(exported_bundle, tmp_path, library).folder
    plan, description = folder / "engine.plan", folder / "engine.json"
    data = bytearray(plan.read_bytes())
    if damage == "a byte":
        data[len(data) // 2] ^= 1
        plan.write_bytes(data)
    elif damage == "its end":
        plan.write_bytes(data[:-100])
    elif damage == "the plan":
        plan.unlink()
    elif damage == "half of the description":
        description.write_bytes(description.read_bytes()[:200])
    else:
        description.write_text(description.read_text().replace('"format_version": 1', '"format_version": 0'))
    with pytest.raises(EngineError, match=r"damaged|another version of ovavel") as error:
        provide(exported_bundle, tmp_path, library)
    assert str(folder) in str(error.value)
    assert "--overwrite" in str(error.value)


def test_an_interrupted_build_leaves_nothing(exported_bundle: Path, tmp_path: Path, library: Library) -> None:
    def interrupt(stage: str, share: float | None = None, *_: object) -> None:
        if share > 0.1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        provide(exported_bundle, tmp_path, library, "vision", progress=interrupt)
    assert left_in(tmp_path) == []
    assert provide(exported_bundle, tmp_path, library, "vision").built


def test_a_build_that_fails_leaves_nothing(exported_bundle: Path, tmp_path: Path, library: Library) -> None:
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Nonsense", ["x"], ["x"])], "bad", [value], [value])
    onnx.save(helper.make_model(graph), tmp_path / "bad.onnx")
    with pytest.raises(EngineError, match=r"cannot build bad\.onnx with TensorRT-RTX"):
        provide_engine(
            lambda: read_graph(tmp_path / "bad.onnx"),
            wanted(exported_bundle, library),
            library,
            root=tmp_path / "engines",
        )
    assert left_in(tmp_path / "engines") == []


def test_a_precision_that_is_not_used_is_an_error(exported_bundle: Path, tmp_path: Path, library: Library) -> None:
    asked = replace(wanted(exported_bundle, library), precision="fp16")
    with pytest.raises(EngineError, match=r"head\.onnx does not compute in fp16: .* 12 in fp32"):
        provide_engine(lambda: read_graph(exported_bundle / "head.onnx"), asked, library, root=tmp_path)
    assert left_in(tmp_path) == []


def test_an_unsupported_compute_capability_is_refused(exported_bundle: Path, tmp_path: Path, library: Library) -> None:
    with pytest.raises(UsageError, match=r"builds for the compute capabilities 7\.5, .*, not 9\.0"):
        provide(exported_bundle, tmp_path, library, compute_capability="9.0")
    with pytest.raises(UsageError, match="which GPU is the engine for"):
        provide(exported_bundle, tmp_path, library, compute_capability=None)


def test_leftovers_of_a_killed_build_are_removed(exported_bundle: Path, tmp_path: Path, library: Library) -> None:
    left = tmp_path / f".{wanted(exported_bundle, library).key}.0123.part"
    left.mkdir()
    (left / "engine.plan").write_bytes(b"half")
    other = tmp_path / ".another-engine.0123.part"
    other.mkdir()
    provided = provide(exported_bundle, tmp_path, library)
    assert left_in(tmp_path) == [other.name, provided.folder.name]


def test_a_folder_that_cannot_be_written_is_a_clear_error(
    exported_bundle: Path, tmp_path: Path, library: Library
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        provide(exported_bundle, tmp_path / "file" / "engines", library)


def test_a_full_disk_is_reported_before_building(
    exported_bundle: Path, tmp_path: Path, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    reported = Reported([], [])
    with pytest.raises(OutputError, match=r"has 0\.0 GB free and the engine needs 0\.1 GB"):
        provide(exported_bundle, tmp_path, library, progress=reported)
    assert not reported.stages


def test_two_processes_build_once(exported_bundle: Path, tmp_path: Path, library: Library) -> None:
    root = tmp_path / "engines"
    root.mkdir()
    asked = wanted(exported_bundle, library)
    with (root / f".{asked.key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        reported, done = Reported([], []), []
        waiting = threading.Thread(
            target=lambda: done.append(provide(exported_bundle, root, library, progress=reported))
        )
        waiting.start()
        while not reported.stages:
            time.sleep(0.01)
        assert reported.stages[0] == "waiting: another process is building head"
        folder = root / asked.key  # what the other process builds meanwhile
        folder.mkdir()
        build_engine(exported_bundle / "head.onnx", folder, asked, library)
    waiting.join(100)
    assert not done[0].built
    assert read_engine(folder, asked) == done[0].engine


def test_shares_cover_all_graphs_once(exported_bundle: Path, tmp_path: Path, library: Library) -> None:
    reported = Reported([], [])
    bundle = Bundle.open(exported_bundle)
    arguments = {"cuda": None, "compute_capability": "8.9", "options": SMALL, "root": tmp_path, "progress": reported}
    provided = provide_engines(bundle, library, dict.fromkeys(GRAPHS, "fp32"), **arguments)
    assert list(provided) == list(GRAPHS)
    assert reported.shares == sorted(reported.shares)
    assert reported.shares[-1] == pytest.approx(1)
