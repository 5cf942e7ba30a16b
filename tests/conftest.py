"""What all tests share: how they run beside each other, and what is dear to make, made once.

torch is imported where it is needed: most tests of the runtime do without.
"""

from __future__ import annotations

import gc
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from support.made_once import made_once
from support.process_state import ProcessState
from support.survivors import end_with_this_process

from ovavel.runtime.reporting import redaction

if TYPE_CHECKING:
    from support.traced_once import TracedOnce

# One thread each for PyTorch and NumPy, in the processes that tests start too: the models are small, threads that wait
# for each other are slow where something else has the cores, and sums depend on their number.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# pytest loads readline, which sets these for the processes that pytest starts, those of pytest-xdist too.
for terminal_size in ("COLUMNS", "LINES"):
    os.environ.pop(terminal_size, None)
    os.unsetenv(terminal_size)  # where os.environ does not know it

# Whoever starts the tests in the background or under nohup ignores these, and so would every process that they start.
HANDLERS = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL, signal.SIGTERM: signal.SIG_DFL}
for number, handler in HANDLERS.items():
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

# No test depends on which bundles this user has used and compared, or adds to that. What others keep stays where it is.
caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
for variable, folder in (("MPLCONFIGDIR", "matplotlib"), ("PIP_CACHE_DIR", "pip")):
    os.environ.setdefault(variable, str(caches / folder))
own_cache = tempfile.TemporaryDirectory(prefix="ovavel-tests-")
os.environ["XDG_CACHE_HOME"] = own_cache.name
os.environ["OVAVEL_TEST_PROCESS"] = own_cache.name
end_with_this_process("OVAVEL_TEST_PROCESS")

# Tests import OpenVINO themselves, too, which without this sends an event to its vendor (runtime/backends/openvino.py).
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

# A busy machine is no failure; each test has its timeout. `make proof` tries five times as many examples.
settings.register_profile("ovavel", max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("proof", settings.get_profile("ovavel"), max_examples=200)
settings.load_profile("ovavel")

NAMES = ("dog barking", "race car", "bird chirping")

WITH_TORCH = ("torch", "onnx", "onnx_ir", "onnxscript", "safetensors")
NEED_TORCH = re.compile(rf"^(from|import) ({'|'.join(WITH_TORCH)})\b|^from ovavel\.(training|export)\b", re.MULTILINE)
"""What a test file imports that cannot do without PyTorch or ONNX."""
FROM_SUPPORT = re.compile(r"^from support\.([\w.]+) import", re.MULTILINE)


def needs_torch(path: Path) -> bool:
    """Whether the file imports PyTorch or ONNX, by itself or through a module of tests/support."""
    text = path.read_text(encoding="utf-8")
    support = Path(__file__).parent / "support"
    return bool(NEED_TORCH.search(text)) or any(
        needs_torch(support / f"{name.replace('.', '/')}.py") for name in FROM_SUPPORT.findall(text)
    )


def hide_torch() -> None:
    """Make PyTorch and ONNX look as if they were not installed, in this process."""
    find_spec = PathFinder.find_spec

    def hidden(fullname: str, *arguments: Any) -> Any:
        return None if fullname in WITH_TORCH else find_spec(fullname, *arguments)

    PathFinder.find_spec = staticmethod(hidden)  # type: ignore[method-assign,assignment]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--reverse", action="store_true", help="run the files, and the tests in each, from last to first")
    parser.addoption(
        "--without-torch", action="store_true", help="run what needs neither PyTorch nor ONNX, without them"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--without-torch"):
        hide_torch()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Without PyTorch, leave out the files that import it."""
    file = config.getoption("--without-torch") and collection_path.suffix == ".py"
    return True if file and needs_torch(collection_path) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes gigabytes comes first; with pytest-xdist it is in one worker, for it is in one file."""
    if config.getoption("--without-torch"):
        dropped = [item for item in items if {"tiny_weights", "tiny_head"} & set(getattr(item, "fixturenames", ()))]
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in dropped]
    if config.getoption("--reverse"):
        items.reverse()
    items.sort(key=lambda item: item.get_closest_marker("full_size") is None)


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_testnodedown(node: Any, error: object) -> None:
    """Report how a process of pytest-xdist died: it cannot do so itself."""
    if error:
        print(f"\n{node.gateway.id} ended with exit code {node.gateway._io.popen.wait(30)}", file=sys.stderr)


@pytest.fixture(autouse=True)
def left_as_found() -> Iterator[None]:
    """A test that does not leave its process as it found it fails: the next one in that process may fail by it."""
    before = ProcessState()
    yield
    if changed := before.changes():
        pytest.fail("\n".join(("the test left its process changed:", *changed)), pytrace=False)


@pytest.fixture(autouse=True)
def nothing_remembered(left_as_found: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses and secrets that one test has read are not redacted in the messages of the next."""
    monkeypatch.setattr(redaction, "_known", {})
    monkeypatch.setattr(redaction, "_hidden", {})


@pytest.fixture(autouse=True)
def one_torch_thread(left_as_found: None) -> Iterator[None]:
    """Whoever opens PyTorch with a number of threads sets it for the process: the next test does not inherit it."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def recursion_limit_as_before(left_as_found: None) -> Iterator[None]:
    """PyTorch raises the limit for the whole process when it compiles."""
    before = sys.getrecursionlimit()
    yield
    if "torch._inductor" in sys.modules:
        sys.setrecursionlimit(before)


@pytest.fixture(scope="session")
def traced_once() -> Iterator[TracedOnce]:
    """From now on, PyTorch traces a small model once, however many bundles are made of it."""
    from support.traced_once import TracedOnce

    traced = TracedOnce()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ovavel.export.bundle.traced", traced)
        patch.setattr("ovavel.export.cpu_bench.frontier.traced", traced)
        # An export collects garbage several times, each time through all that PyTorch and ONNX have loaded.
        gc.collect()
        gc.freeze()
        yield traced


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory, traced_once: TracedOnce) -> Path:
    """Golden weights of the tiny model."""
    from support.golden_weights import write_golden_checkpoint

    from ovavel.training.models.imagebind.model import ImageBindConfig

    def make(folder: Path) -> None:
        write_golden_checkpoint(folder / "tiny.safetensors", ImageBindConfig.tiny())

    return made_once(tmp_path_factory, "weights", make) / "tiny.safetensors"


@pytest.fixture(scope="session")
def tiny_head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random temporal head of one block for the tiny model."""
    import torch

    from ovavel.training.heads.temporal import TemporalHead

    def make(folder: Path) -> None:
        torch.manual_seed(0)
        TemporalHead(1, dim=32, hidden=8, ffn=16).save(folder / "head.safetensors")

    return made_once(tmp_path_factory, "head", make) / "head.safetensors"


@pytest.fixture(scope="session")
def exported_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path, tiny_head: Path) -> Path:
    """Tiny bundle of the vocabulary NAMES, one for all tests: do not change it."""
    from ovavel.export.bundle import BundleContents, write_bundle
    from ovavel.training.models.imagebind.model import ImageBindConfig

    def make(folder: Path) -> None:
        write_bundle(
            BundleContents(tiny_weights, NAMES, head=tiny_head, config=ImageBindConfig.tiny()), folder / "bundle"
        )

    return made_once(tmp_path_factory, "exported", make) / "bundle"


@pytest.fixture
def tiny_bundle(tmp_path: Path, exported_bundle: Path) -> Path:
    """Copy of the tiny bundle, to be changed at will."""
    return Path(shutil.copytree(exported_bundle, tmp_path / "bundle"))


@pytest.fixture(autouse=True)
def signals_as_before(left_as_found: None) -> Iterator[None]:
    """What one test ignores, as a command does that is about to end, is not ignored by the processes of the next."""
    before = {number: signal.getsignal(number) for number in HANDLERS}
    yield
    for number, handler in before.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)
