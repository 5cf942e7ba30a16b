"""The ONNX Runtime backend, on small graphs written here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from support.encoders import encoders

from ovavel.runtime import install
from ovavel.runtime.backends import open_backend
from ovavel.runtime.backends.onnxruntime.backend import auto_device
from ovavel.runtime.bundle.bundle import Bundle, file_entry
from ovavel.runtime.bundle.manifest import Fusion, Manifest, Model, Parity
from ovavel.runtime.bundle.text_embeddings import TextEmbeddings
from ovavel.runtime.bundle.vocabulary import Vocabulary
from ovavel.runtime.errors import BundleError, DeviceError, MissingExtraError, UsageError
from ovavel.runtime.install import RUNTIMES, install_command
from ovavel.runtime.system.hardware import physical_cores

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

SIZE = 8  # of the embeddings


def save(path: Path, nodes: list, inputs: dict, outputs: list[str], weights: dict, *, external: bool = False) -> None:
    def value(name: str, shape: list | None, kind: int = TensorProto.FLOAT) -> object:
        return helper.make_tensor_value_info(name, kind, shape)

    graph = helper.make_graph(
        nodes,
        "graph",
        [value(name, shape) for name, shape in inputs.items()],
        [value(name, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(
        model, path, save_as_external_data=external, location=path.name + ".data", size_threshold=64
    ) if external else onnx.save(model, path)


def write_vision(path: Path) -> None:
    projection = np.random.default_rng(0).standard_normal((3, SIZE)).astype(np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["frames", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "projection"], ["raw"]),
        helper.make_node("LpNormalization", ["raw"], ["embedding"], axis=-1, p=2),
    ]
    weights = {"axes": np.array([2, 3]), "projection": projection}
    save(path, nodes, {"frames": ["B", 3, 224, 224]}, ["embedding"], weights, external=True)


HEAD_INPUTS = {
    "audio": ["B", "T", SIZE],
    "vision": ["B", "T", SIZE],
    "audio_text": ["C", SIZE],
    "vision_text": ["C", SIZE],
}


def write_head(path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["audio_text"], ["heard"], perm=[1, 0]),
        helper.make_node("Transpose", ["vision_text"], ["seen"], perm=[1, 0]),
        helper.make_node("MatMul", ["audio", "heard"], ["audio_similarity"]),
        helper.make_node("MatMul", ["vision", "seen"], ["vision_similarity"]),
        helper.make_node("Mul", ["audio_similarity", "vision_similarity"], ["score"]),
    ]
    save(path, nodes, HEAD_INPUTS, ["audio_similarity", "vision_similarity", "score"], {})


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    write_vision(tmp_path / "vision.onnx")
    write_head(tmp_path / "head.onnx")
    return bundle_of(tmp_path)


def bundle_of(tmp_path: Path) -> Bundle:
    """The graphs in a folder as a bundle, whatever they are."""
    manifest = Manifest(
        format_version=1,
        ovavel_version="0",
        model=Model(name="test", weights_sha256="0" * 64, licence="none", config={}, head_layers=0),
        encoders=encoders(SIZE),
        graphs={"vision": {"fp32": "vision.onnx"}, "head": {"fp32": "head.onnx"}},
        precision={},
        files={file.name: file_entry(file) for file in tmp_path.iterdir() if file.is_file()},
        fusion=Fusion(),
        opset=20,
        parity=Parity(versions={}, checks=()),
        exact_on={},
        vocabulary="",
    )
    vocabulary = Vocabulary(names=("dog", "other"), embeddings=TextEmbeddings.shared(np.eye(2, SIZE, dtype=np.float32)))
    return Bundle(path=tmp_path, manifest=manifest, sha256="", vocabulary=vocabulary)


def test_it_runs_what_it_was_asked_for_and_says_so(bundle: Bundle) -> None:
    backend = open_backend(bundle, device="cpu", threads=1, graphs=("vision", "head"))
    assert (backend.info.device, backend.info.provider) == ("cpu", "CPUExecutionProvider")
    assert backend.info.precision == {"vision": "fp32", "head": "fp32"}
    assert backend.info.threads == 1
    assert backend.info.versions["onnxruntime"]
    backend.warm_up()
    frames = np.random.default_rng(1).uniform(0.1, 1, (5, 3, 224, 224)).astype(np.float32)
    together = backend.vision(frames)
    assert together.shape == (5, SIZE)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([backend.vision(f[None]) for f in frames]), together, atol=1e-6)


def test_the_head_keeps_its_senses_apart(bundle: Bundle) -> None:
    backend = open_backend(bundle, device="cpu", graphs=("head",))
    r = np.random.default_rng(2)
    audio, vision, text = (r.standard_normal(s).astype(np.float32) for s in ((2, 4, SIZE), (2, 4, SIZE), (3, SIZE)))
    output = backend.head(audio, vision, TextEmbeddings.shared(text))
    np.testing.assert_allclose(output.audio_similarity, audio @ text.T, atol=1e-5)
    np.testing.assert_allclose(output.vision_similarity, vision @ text.T, atol=1e-5)
    np.testing.assert_allclose(output.score, output.audio_similarity * output.vision_similarity, atol=1e-5)


def test_several_threads_may_call_it(bundle: Bundle) -> None:
    backend = open_backend(bundle, device="cpu", threads=2, graphs=("vision",))
    frames = np.random.default_rng(3).uniform(0.1, 1, (4, 1, 3, 224, 224)).astype(np.float32)
    expected = [backend.vision(f) for f in frames]
    wrong: list[int] = []

    def work(i: int) -> None:
        wrong.extend(i for _ in range(20) if not np.array_equal(backend.vision(frames[i]), expected[i]))

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_a_graph_that_was_not_opened_is_named(bundle: Bundle) -> None:
    backend = open_backend(bundle, device="cpu", graphs=("head",))
    with pytest.raises(UsageError, match=r"vision.*holds head"):
        backend.vision(np.zeros((1, 3, 224, 224), np.float32))
    backend.close()
    backend.close()
    with pytest.raises(UsageError, match="closed"):
        backend.head(*np.zeros((2, 1, 1, SIZE), np.float32), TextEmbeddings.shared(np.zeros((1, SIZE), np.float32)))


@pytest.mark.parametrize(
    "frames", [np.zeros((1, 3, 100, 224), np.float32), np.zeros((1, 3, 224, 224)), np.zeros((3, 224, 224), np.float32)]
)
def test_an_input_of_the_wrong_shape_or_type_is_refused(bundle: Bundle, frames: np.ndarray) -> None:
    backend = open_backend(bundle, device="cpu", graphs=("vision",))
    with pytest.raises(UsageError) as caught:
        backend.vision(frames)
    assert f"{frames.shape} {frames.dtype}" in str(caught.value)


def without_weights(folder: Path) -> None:
    (folder / "vision.onnx.data").unlink()


def cut_weights(folder: Path) -> None:
    os.truncate(folder / "vision.onnx.data", 16)


def not_a_graph(folder: Path) -> None:
    (folder / "vision.onnx").write_text("no graph at all")


def empty(folder: Path) -> None:
    (folder / "vision.onnx").write_bytes(b"")


def unknown_operator(folder: Path) -> None:
    save(folder / "vision.onnx", [helper.make_node("Unheard", ["x"], ["y"])], {"x": [1]}, ["y"], {})


@pytest.mark.parametrize("spoil", [without_weights, cut_weights, not_a_graph, empty, unknown_operator, None])
def test_a_broken_graph_is_a_bundle_error(bundle: Bundle, spoil: Callable[[Path], None] | None) -> None:
    if spoil:
        spoil(bundle.path)
    else:
        (bundle.path / "vision.onnx").unlink()
    for each in (bundle, bundle_of(bundle.path)):  # the latter lists what is there now
        with pytest.raises(BundleError, match=r"vision\.onnx.*again") as caught:
            open_backend(each, device="cpu", graphs=("vision",))
        assert "\n" not in str(caught.value)


def wide_head(folder: Path) -> None:
    """Its similarities have 64 columns, for however many names."""
    weights = {"names": np.eye(SIZE, 64, dtype=np.float32)}
    nodes = [
        helper.make_node("MatMul", ["audio", "names"], ["audio_similarity"]),
        helper.make_node("MatMul", ["vision", "names"], ["vision_similarity"]),
        helper.make_node("Mul", ["audio_similarity", "vision_similarity"], ["score"]),
    ]
    save(folder / "head.onnx", nodes, HEAD_INPUTS, ["audio_similarity", "vision_similarity", "score"], weights)


def flat_head(folder: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", [name], [f"of {name}"], keepdims=0) for name in ("audio", "vision", "audio_text")
    ]
    save(folder / "head.onnx", nodes, HEAD_INPUTS, ["of audio", "of vision", "of audio_text"], {})


def lone_head(folder: Path) -> None:
    nodes = [helper.make_node("MatMul", ["audio", "names"], ["score"])]
    save(folder / "head.onnx", nodes, HEAD_INPUTS, ["score"], {"names": np.eye(SIZE, 2, dtype=np.float32)})


def head_of_one_text(folder: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["text"], ["columns"], perm=[1, 0]),
        helper.make_node("MatMul", ["audio", "columns"], ["audio_similarity"]),
        helper.make_node("MatMul", ["vision", "columns"], ["vision_similarity"]),
        helper.make_node("Mul", ["audio_similarity", "vision_similarity"], ["score"]),
    ]
    inputs = {"audio": ["B", "T", SIZE], "vision": ["B", "T", SIZE], "text": ["C", SIZE]}
    save(folder / "head.onnx", nodes, inputs, ["audio_similarity", "vision_similarity", "score"], {})


@pytest.mark.parametrize("spoil", [wide_head, flat_head, lone_head, head_of_one_text])
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_head_of_other_shapes_is_refused_when_it_is_opened(
    bundle: Bundle, spoil: Callable[[Path], None], name: str
) -> None:
    pytest.importorskip(name)
    spoil(bundle.path)
    with pytest.raises(BundleError, match=r"(?s)the head graph .*do not trust this bundle"):
        open_backend(bundle_of(bundle.path), name=name, device="cpu", precision="fp32", graphs=("head",))


def test_an_encoder_of_another_size_is_refused(bundle: Bundle) -> None:
    nodes = [helper.make_node("ReduceMean", ["frames"], ["embedding"], axes=None, keepdims=1)]
    save(bundle.path / "vision.onnx", nodes, {"frames": ["B", 3, 224, 224]}, ["embedding"], {})
    backend = open_backend(bundle_of(bundle.path), device="cpu", graphs=("vision",))
    with pytest.raises(BundleError, match=r"the vision graph of the bundle returns \(1, 1, 1, 1\)"):
        backend.vision(np.zeros((1, 3, 224, 224), np.float32))


def test_a_graph_the_bundle_lacks_is_named(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="no text graph"):
        open_backend(bundle, device="cpu", graphs=("text",))


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:-1", "CPU", "", "tpu:0"])
def test_an_unknown_device_is_refused_with_what_there_is(bundle: Bundle, device: str) -> None:
    with pytest.raises(DeviceError, match="offers auto, cpu"):
        open_backend(bundle, device=device, graphs=("head",))


def test_cuda_runs_on_cuda_or_not_at_all(bundle: Bundle) -> None:
    import onnxruntime

    with pytest.raises(DeviceError, match=r"cuda:99|\[gpu\]"):  # there is no GPU number 99 anywhere
        open_backend(bundle, device="cuda:99", graphs=("head",))
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        assert open_backend(bundle, device="auto", graphs=("head",)).info.device == "cpu"


@pytest.fixture
def built_for_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """ONNX Runtime says that it was built for CUDA."""
    import onnxruntime

    auto_device.cache_clear()
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    yield
    auto_device.cache_clear()


@pytest.mark.usefixtures("built_for_cuda")
def test_without_a_gpu_auto_is_the_cpu_and_says_so(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for _ in range(2):
        assert open_backend(bundle, device="auto", graphs=("head",)).info.device == "cpu"
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "running on the CPU, because ONNX Runtime cannot use a GPU"
    ]


@pytest.mark.usefixtures("built_for_cuda")
def test_with_a_gpu_what_is_wrong_otherwise_is_an_error(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_numpy", lambda *_: None)
    with pytest.raises(UsageError, match="onnxruntime-cuda does not run int8"):
        open_backend(bundle, precision="int8")
    with pytest.raises(BundleError, match="bf16"):
        open_backend(bundle, precision="bf16")
    (bundle.path / "head.onnx").write_bytes(b"no graph")
    with pytest.raises((BundleError, DeviceError), match=r"head\.onnx"):
        open_backend(bundle, graphs=("head",))


@pytest.fixture
def preloaded(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Where ONNX Runtime was asked to load CUDA's libraries from; one of them is missing everywhere."""
    import onnxruntime

    folders: list[str | None] = []

    def preload(directory: str | None = None) -> None:
        folders.append(directory)
        print("Failed to load libcufft.so.12: libcufft.so.12: cannot open shared object file")

    monkeypatch.setattr(onnxruntime, "preload_dlls", preload, raising=False)
    return folders


@pytest.mark.usefixtures("built_for_cuda")
@pytest.mark.parametrize("fails", [True, False])
def test_a_cuda_library_that_does_not_load_is_named(
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    preloaded: list[str | None],
    fails: bool,
) -> None:
    import onnxruntime

    opened: list[bool] = []

    def open_it(*_: object, **__: object) -> SimpleNamespace:
        opened.append(bool(preloaded))
        if fails:
            raise RuntimeError("CUDA failure")
        return SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", open_it)
    monkeypatch.setattr(onnxruntime, "__version__", "1.30.0")
    with pytest.raises(DeviceError, match=r"Install libcufft\.so\.12, .*--device cpu"):
        open_backend(bundle, device="cuda", precision="fp32", graphs=("head",))
    assert opened == [True], "its libraries come first"
    assert capfd.readouterr().out == ""


@pytest.mark.usefixtures("built_for_cuda")
def test_auto_loads_the_libraries_before_it_looks(monkeypatch: pytest.MonkeyPatch, preloaded: list[str | None]) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_numpy", lambda *_: preloaded[0])
    assert auto_device() == "cuda"


@pytest.mark.usefixtures("built_for_cuda")
def test_an_older_version_does_not_record(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "__version__", "1.29.0")
    with pytest.raises(DeviceError, match=r"1\.30 or newer is needed"):
        open_backend(bundle, device="cuda", precision="fp32", graphs=("vision",))


@pytest.mark.usefixtures("built_for_cuda")
def test_a_version_without_the_heads_kernels_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "__version__", "1.26.1")
    with pytest.raises(DeviceError, match=r"1\.26\.1 cannot run the head on a GPU; 1\.27 or newer is needed"):
        open_backend(bundle, device="cuda", precision="fp32", graphs=("head",), cuda_graphs=False)


def installed_are(monkeypatch: pytest.MonkeyPatch, *runtimes: str) -> None:
    """Of the distributions of ONNX Runtime, `runtimes` alone seem to be installed."""
    real = install.distributions
    monkeypatch.setattr(
        install, "distributions", lambda name: real(name=name) if name not in RUNTIMES else [name] * (name in runtimes)
    )


@pytest.mark.parametrize("runtime", ["onnxruntime", "onnxruntime-gpu"])
def test_a_broken_library_is_not_reported_as_missing(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", ModuleType("onnxruntime"))  # as left where its twin was removed
    installed_are(monkeypatch, runtime)
    auto_device.cache_clear()
    with pytest.raises(DeviceError, match=r"cannot be loaded .*pip uninstall -y onnxruntime onnxruntime-gpu") as error:
        open_backend(bundle)
    assert f"[{RUNTIMES[runtime]}]" in str(error.value)


def test_threads_are_at_least_one(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="threads"):
        open_backend(bundle, device="cpu", threads=0, graphs=("head",))
    assert open_backend(bundle, device="cpu", graphs=("head",)).info.threads == physical_cores()
    assert 1 <= physical_cores() <= len(os.sched_getaffinity(0))


def test_without_onnxruntime_the_install_command_is_shown(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    installed_are(monkeypatch)
    with pytest.raises(MissingExtraError, match=re.escape(install_command("cpu"))):
        open_backend(bundle, graphs=("head",))


def test_onnx_runtime_sends_no_telemetry(exported_bundle: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from ovavel.runtime.backends import open_backend; "
        "from ovavel.runtime.bundle.bundle import Bundle; "
        "open_backend(Bundle.open(sys.argv[1]), device='cpu', precision='fp32').warm_up()"
    )
    # Nothing else: it is silent by itself where a variable, one of a dozen, speaks of continuous integration.
    environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", program, str(exported_bundle)], env=environment, check=True)
    assert not list(tmp_path.iterdir())
