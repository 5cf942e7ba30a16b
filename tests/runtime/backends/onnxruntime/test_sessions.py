"""Sessions of one process share their weights."""

from __future__ import annotations

import gc
import shutil
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovavel.runtime.backends import open_backend
from ovavel.runtime.backends.onnxruntime import sessions
from ovavel.runtime.backends.onnxruntime.sessions import shared_sessions
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.graphs import Graph
from ovavel.runtime.bundle.hashed import GraphFiles
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.errors import BundleError

FP32: dict[Graph, str] = {"vision": "fp32", "audio": "fp32", "head": "fp32"}


@pytest.fixture(autouse=True)
def no_session_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests of this process may still use sessions of the same graphs; those of this file do not see them."""
    for table in ("_open", "_opening"):
        monkeypatch.setattr(sessions, table, weakref.WeakValueDictionary())


def test_bundles_with_the_same_graphs_share_sessions(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    first = shared_sessions(bundle, FP32, 1)
    kept = [*range(len(bundle.vocabulary) - 2), len(bundle.vocabulary) - 1]
    names, embeddings = bundle.vocabulary.names, bundle.vocabulary.embeddings
    fewer = Vocabulary(names=tuple(names[row] for row in kept), embeddings=embeddings[kept])
    changed = bundle.save_vocabulary(fewer)
    second = shared_sessions(changed, FP32, 1)
    assert all(second[graph] is first[graph] for graph in FP32)


def test_sessions_with_other_threads_are_others(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    one, two = (shared_sessions(bundle, FP32, threads) for threads in (1, 2))
    assert one["vision"] is not two["vision"]
    assert one["head"] is two["head"]  # on one thread in both


def test_the_last_backend_frees_them_and_others_go_on(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    first, second = (open_backend(bundle, device="cpu", threads=1) for _ in range(2))
    held = weakref.ref(shared_sessions(bundle, {"vision": first.info.precision["vision"]}, 1)["vision"])
    frames = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    expected = first.vision(frames)
    first.close()
    gc.collect()
    np.testing.assert_array_equal(second.vision(frames), expected)
    assert held() is not None
    second.close()
    gc.collect()
    assert held() is None


def test_a_graph_is_opened_once_while_others_are_at_hand(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began, go_on, loaded = threading.Event(), threading.Event(), list[str]()
    whole = sessions.open_session

    def slowly(files: GraphFiles, *rest: Any) -> Any:
        loaded.append(files.path.name)
        if "vision" in files.path.name:
            began.set()
            assert go_on.wait(60)
        return whole(files, *rest)

    monkeypatch.setattr(sessions, "open_session", slowly)
    head: dict[Graph, str] = {"head": "fp32"}
    bundle = Bundle.open(tiny_bundle)
    held = shared_sessions(bundle, head, 1)
    with ThreadPoolExecutor(3) as pool:
        try:
            both = [pool.submit(shared_sessions, bundle, FP32, 1)]
            assert began.wait(60)
            both.append(pool.submit(shared_sessions, bundle, FP32, 1))
            others = pool.submit(shared_sessions, bundle, head, 1)
            assert others.result(60)["head"] is held["head"]  # though vision is still being opened
        finally:
            go_on.set()
    first, second = (each.result() for each in both)
    assert all(first[graph] is second[graph] for graph in FP32)
    assert sorted(loaded) == ["audio.onnx", "head.onnx", "vision.onnx"]


def test_a_failed_graph_leaves_nothing_behind(tiny_bundle: Path) -> None:
    (tiny_bundle / "audio.onnx.data").write_bytes(bytes((tiny_bundle / "audio.onnx.data").stat().st_size))
    with pytest.raises(BundleError, match="altered"):
        shared_sessions(Bundle.open(tiny_bundle), FP32, 1)
    assert set(shared_sessions(Bundle.open(tiny_bundle), {"vision": "fp32"}, 1)) == {"vision"}


def test_a_damaged_copy_of_a_bundle_in_use_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "copy")
    used = shared_sessions(Bundle.open(tiny_bundle), FP32, 1)
    assert shared_sessions(Bundle.open(tmp_path / "copy"), FP32, 1)["audio"] is used["audio"]
    weights = tmp_path / "copy" / "audio.onnx.data"
    weights.write_bytes(bytes(weights.stat().st_size))
    with pytest.raises(BundleError, match="altered"):
        shared_sessions(Bundle.open(tmp_path / "copy"), FP32, 1)
