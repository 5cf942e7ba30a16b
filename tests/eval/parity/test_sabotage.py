"""A bundle sabotaged in ten ways, with new hashes: the self-check and parity catch each and name its stage."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.media_factory import make_clip
from support.sabotage import constants, graph_surgery, put, relist
from support.vocabularies import read_vocabulary

from ovavel.eval.parity.clips import RecordedClips
from ovavel.eval.parity.compare import compare_backends
from ovavel.eval.parity.runs import BackendSpec
from ovavel.export.bundle import BundleContents, write_bundle
from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.cli import main
from ovavel.runtime.pipeline import preprocess
from ovavel.runtime.verification.compare import Stage
from ovavel.runtime.verification.gates import find_gate
from ovavel.runtime.verification.self_check import check_stages, graphs_to_check
from ovavel.training.models.imagebind.model import ImageBindConfig

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # the bundle is exported in three precisions

NAMES = ("dog barking", "race car", "bird chirping")


@pytest.fixture(scope="module")
def sound_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path, tiny_head: Path) -> Path:
    """The tiny bundle in fp32, fp16 and int8-any, as it should be: do not change it."""
    out = tmp_path_factory.mktemp("sound") / "bundle"
    write_bundle(
        BundleContents(tiny_weights, NAMES, head=tiny_head, config=ImageBindConfig.tiny()),
        out,
        precisions=("fp32", "fp16", "int8-any"),
    )
    return out


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("media") / "clip.mp4", duration_s=3, fps=5)


@pytest.fixture
def bundle(tmp_path: Path, sound_bundle: Path) -> Path:
    return Path(shutil.copytree(sound_bundle, tmp_path / "bundle"))


@dataclass(frozen=True, kw_only=True)
class Sabotage:
    stage: Stage
    change: Callable[[Path], None]
    """What is done to the bundle's folder."""
    precision: str = "fp32"


def swapped_weight(graph: onnx.GraphProto) -> None:
    """Two layers' matrices change places."""
    known = constants(graph)
    matrices = [known[node.input[1]] for node in graph.node if node.op_type == "MatMul" and node.input[1] in known]
    first, second = next((a, b) for a in matrices for b in matrices if a.name != b.name and a.dims == b.dims)
    values = numpy_helper.to_array(first), numpy_helper.to_array(second)
    put(first, values[1])
    put(second, values[0])


def transposed_positions(graph: onnx.GraphProto) -> None:
    """Rows and columns of the picture's patches change places."""
    positions = constants(graph)["positions"]
    values = numpy_helper.to_array(positions).copy()
    grid = values[:, 1:].reshape(1, 16, 16, -1)
    values[:, 1:] = grid.transpose(0, 2, 1, 3).reshape(values[:, 1:].shape)
    put(positions, values)


def wrong_epsilon(graph: onnx.GraphProto) -> None:
    """PyTorch's usual 1e-5 in the place of 1e-6."""
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "LayerNormalization" and attribute.name == "epsilon":
                attribute.f = 1e-5


def missing_audio_scale(graph: onnx.GraphProto) -> None:
    """Audio enters the temporal head with norm 1, as vision does."""
    known = constants(graph)
    (scale,) = (known[node.input[1]] for node in graph.node if node.op_type == "Mul" and node.input[0] == "audio")
    assert numpy_helper.to_array(scale) == 20
    put(scale, np.array(1, np.float32))


def fp16_overflow(graph: onnx.GraphProto) -> None:
    """Activations pass through fp16 where they are larger than it can hold."""
    node = next(node for node in graph.node if node.op_type == "Gelu")
    inner = node.output[0] + "_inner"
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(value, np.float32), name)
            for name, value in (("large", 2e5), ("small", 5e-6))
        ]
    )
    steps = [
        helper.make_node("Mul", [inner, "large"], [f"{inner}_0"]),
        helper.make_node("Cast", [f"{inner}_0"], [f"{inner}_1"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", [f"{inner}_1"], [f"{inner}_2"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{inner}_2", "small"], [node.output[0]]),
    ]
    node.output[0] = inner
    place = list(graph.node).index(node) + 1
    for step in reversed(steps):
        graph.node.insert(place, step)


def fp16_weight_overflow(graph: onnx.GraphProto) -> None:
    """A weight is larger than fp16 can hold."""
    weight = next(tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT16)
    values = numpy_helper.to_array(weight).astype(np.float32)
    values.flat[0] = 1e5
    with np.errstate(over="ignore"):
        put(weight, values.astype(np.float16))


def wrong_zero_point(graph: onnx.GraphProto) -> None:
    """The weights of one quantized layer, which are signed, get the zero point that unsigned ones have."""
    node = next(node for node in graph.node if node.op_type == "DynamicQuantizeMatMul" and "fc2" in node.input[1])
    (columns,) = constants(graph)[node.input[2]].dims
    graph.initializer.append(numpy_helper.from_array(np.full(columns, -128, np.int8), "wrong_zero_point"))
    node.input[3] = "wrong_zero_point"


def shifted_classes(folder: Path) -> None:
    old = read_vocabulary(folder)
    order = [len(old) - 2, *range(len(old) - 2), len(old) - 1]
    Vocabulary(names=old.names, embeddings=old.embeddings[order]).save(folder)


def moved_background(folder: Path) -> None:
    """Names and embeddings still belong together, but the background is not the last of them."""
    old = read_vocabulary(folder)
    order = [len(old) - 1, *range(len(old) - 1)]
    Vocabulary(names=tuple(old.names[i] for i in order), embeddings=old.embeddings[order]).save(folder)


def nothing(_folder: Path) -> None:
    """The bundle stays as it is: the runtime is sabotaged."""


GRAPHS = {
    "swapped weight": Sabotage(stage="vision", change=graph_surgery("vision.onnx", swapped_weight)),
    "transposed positions": Sabotage(stage="vision", change=graph_surgery("vision.onnx", transposed_positions)),
    "wrong epsilon": Sabotage(stage="audio", change=graph_surgery("audio.onnx", wrong_epsilon)),
    "wrong epsilon of vision": Sabotage(stage="vision", change=graph_surgery("vision.onnx", wrong_epsilon)),
    "missing audio scale": Sabotage(stage="similarity", change=graph_surgery("head.onnx", missing_audio_scale)),
    "fp16 overflow": Sabotage(stage="vision", change=graph_surgery("vision.onnx", fp16_overflow)),
    "fp16 overflow of a weight": Sabotage(
        stage="vision", change=graph_surgery("vision.fp16.onnx", fp16_weight_overflow), precision="fp16"
    ),
    "wrong zero point": Sabotage(
        stage="audio", change=graph_surgery("audio.int8-any.onnx", wrong_zero_point), precision="int8-any"
    ),
}
VOCABULARIES = {
    "shifted classes": Sabotage(stage="vocabulary", change=shifted_classes),
    "moved background": Sabotage(stage="vocabulary", change=moved_background),
}
RUNTIMES = {
    "RGB is BGR": Sabotage(stage="preprocess frame", change=nothing),
    "mel floor": Sabotage(stage="preprocess sound", change=nothing),
}


@pytest.fixture
def broken_runtime(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Swap the colours, or lower the floor of the log-mel energies, where the test is of that."""
    name = request.node.callspec.params.get("name")
    if name == "RGB is BGR":
        crop = preprocess.crop_frame
        monkeypatch.setattr(preprocess, "crop_frame", lambda frame: crop(frame)[..., ::-1])
    if name == "mel floor":
        monkeypatch.setattr(preprocess, "_FLOOR", np.float32(1e-10))


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def checked(bundle: Bundle, precision: str) -> tuple[Stage | None, tuple[str, ...], bool]:
    """The self-check's first stage that is off, its failures, and whether the bundle's own gate still counts."""
    backend = open_backend(bundle, device="cpu", threads=1, graphs=graphs_to_check(bundle), precision=precision)
    check = check_stages(bundle, backend)
    backend.close()
    return check.failed_stage, check.gate.failures, find_gate(bundle, backend.info) is not None


def compared(
    bundle: Bundle, precision: str, clip: Path, options: dict[str, Path]
) -> tuple[Stage | None, tuple[str, ...]]:
    reference = BackendSpec(bundle=bundle, backend="torch", device="cpu", threads=1, options=options)
    candidate = BackendSpec(bundle=bundle, device="cpu", threads=1, precision=precision, options={})
    report = compare_backends(reference, candidate, RecordedClips([clip]))
    return report.failed_stage, report.gate.failures


@pytest.mark.usefixtures("broken_runtime")
@pytest.mark.parametrize("name", [*GRAPHS, *VOCABULARIES, *RUNTIMES])
def test_a_sabotaged_bundle_is_caught_and_the_stage_named(
    bundle: Path, name: str, clip: Path, tiny_weights: Path, tiny_head: Path
) -> None:
    sabotage = (GRAPHS | VOCABULARIES | RUNTIMES)[name]
    sabotage.change(bundle)
    relist(bundle)
    opened = Bundle.open(bundle)  # the hashes are right, so that nothing else could notice
    off, failures, counts = checked(opened, sabotage.precision)
    assert off == sabotage.stage
    assert failures[0].startswith(f"{sabotage.stage}: ")
    assert counts == (name in RUNTIMES), "a gate is of its graphs and of the order of names and embeddings"
    off, failures = compared(opened, sabotage.precision, clip, {"weights": tiny_weights, "head": tiny_head})
    assert off == sabotage.stage
    assert failures[0].startswith(f"{sabotage.stage}: ")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8-any"])
def test_an_untouched_bundle_passes(
    bundle: Path, precision: str, clip: Path, tiny_weights: Path, tiny_head: Path
) -> None:
    relist(bundle)
    opened = Bundle.open(bundle)
    assert checked(opened, precision) == (None, (), True)
    assert compared(opened, precision, clip, {"weights": tiny_weights, "head": tiny_head}) == (None, ())


def test_the_command_names_the_stage_and_fails(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bundle", "check", "--bundle", str(bundle), "--device", "cpu", "--threads", "1", "--precision", "fp32"]
    assert main(command) == 0
    GRAPHS["missing audio scale"].change(bundle)
    relist(bundle)
    capsys.readouterr()
    assert main(command) == 1
    assert "NOT passed: the first failed stage is similarity" in capsys.readouterr().out
