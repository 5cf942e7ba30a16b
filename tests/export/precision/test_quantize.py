"""Encoders in int8: what is quantized, how accurate they are, and that large errors are refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.torch import save_file
from support.golden_weights import golden_inputs, golden_state
from support.onnx_graphs import computed_shapes, export_graph

from ovavel.export.bundle import BundleContents, write_bundle
from ovavel.export.speed import fastest, times_faster
from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.precision import Precision
from ovavel.runtime.cli import main
from ovavel.runtime.errors import BundleError, ExportError, PrecisionError, UsageError
from ovavel.runtime.pipeline.preprocess import prepare_frame, prepare_waveform
from ovavel.runtime.verification.samples import random_frame, random_waveform
from ovavel.training.models.imagebind.model import ImageBind, ImageBindConfig, Modality

pytestmark = pytest.mark.slow

TINY = ImageBindConfig.tiny()
BLOCKS: dict[Modality, int] = {"vision": TINY.vision.blocks, "audio": TINY.audio.blocks}


@pytest.fixture(scope="module")
def int8_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Path:
    """Return the tiny bundle in int8-any, which every CPU can verify, written by the command; do not change it."""
    folder = tmp_path_factory.mktemp("int8")
    (folder / "names.txt").write_text("dog barking\nrace car\n")
    arguments = ["--weights", str(tiny_weights), "--config", "tiny", "--vocabulary", str(folder / "names.txt")]
    assert main(["bundle", "export", *arguments, "--out", str(folder / "bundle"), "--precision", "int8-any"]) == 0
    return folder / "bundle"


def test_only_vision_and_audio_are_in_int8(int8_bundle: Path) -> None:
    bundle = Bundle.open(int8_bundle)
    assert bundle.manifest.graphs == {
        "vision": {"int8-any": "vision.int8-any.onnx"},
        "audio": {"int8-any": "audio.int8-any.onnx"},
        "text": {"fp32": "text.onnx"},
        "head": {"fp32": "head.onnx"},
    }
    assert {"vision.int8-any.onnx.data", "audio.int8-any.onnx.data"} < set(bundle.manifest.files)
    assert not {"vision.onnx", "audio.onnx"} & set(bundle.manifest.files)
    checks = {check.graph: check for check in bundle.manifest.parity.checks}
    for modality in ("vision", "audio"):
        check = checks[modality]
        assert check.tolerance is None
        assert check.required_cosine == 0.99 <= (check.min_cosine or 0) < 1
        assert check.cases >= 24
    assert checks["text"].required_cosine is checks["head"].required_cosine is None


@pytest.mark.parametrize("modality", ["vision", "audio"])
def test_only_the_matrices_of_the_blocks_are_quantized(int8_bundle: Path, modality: Modality) -> None:
    path = int8_bundle / f"{modality}.int8-any.onnx"
    onnx.checker.check_model(path, full_check=True)
    assert not computed_shapes(path)
    graph = onnx.load(path, load_external_data=False).graph
    operators = Counter(node.op_type for node in graph.node)
    assert operators["DynamicQuantizeMatMul"] == 3 * BLOCKS[modality]
    # Queries, keys and values: of one rounded activation, and never copied apart.
    assert operators["MatMulIntegerToFloat"] == 3 * operators["DynamicQuantizeLinear"] == 3 * BLOCKS[modality]
    assert "Split" not in operators
    assert operators["MultiHeadAttention"] == BLOCKS[modality]
    assert not {"MatMul", "Softmax", "LayerNorm"} & operators.keys()  # the old attentions would still run
    assert operators["Conv"] == operators["Gemm"] == 1  # stem and projection
    kinds = Counter(tensor.data_type for tensor in graph.initializer)
    assert kinds[onnx.TensorProto.INT8] == 6 * BLOCKS[modality]
    width = getattr(TINY, modality).width
    assert not [
        tensor.name
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and list(tensor.dims) == [width, 4 * width]
    ]


@pytest.mark.parametrize("modality", ["vision", "audio"])
def test_embeddings_stay_close(int8_bundle: Path, tiny_weights: Path, modality: Modality) -> None:
    seeds = range(100, 110)  # not used by the export
    inputs = [golden_inputs()[modality].numpy()[:1]]
    if modality == "vision":
        inputs += [prepare_frame(random_frame(seed))[None] for seed in seeds]
    else:
        inputs += [prepare_waveform(random_waveform(seed))[None] for seed in seeds]
    tower = ImageBind.load(tiny_weights, TINY, (modality,)).towers[modality]
    backend = open_backend(Bundle.open(int8_bundle), device="cpu", graphs=(modality,))
    for array in inputs:
        expected = tower(golden_inputs()[modality].new_tensor(array)).numpy()
        answer = getattr(backend, modality)(array)
        assert (answer * expected).sum() >= 0.99
        assert not np.array_equal(answer, expected)  # they would be equal if it were fp32
    backend.close()


def test_the_backend_reports_its_precision(int8_bundle: Path) -> None:
    bundle = Bundle.open(int8_bundle)
    backend = open_backend(bundle, device="cpu", graphs=("vision", "audio", "text", "head"))
    assert backend.info.precision == {"vision": "int8-any", "audio": "int8-any", "text": "fp32", "head": "fp32"}
    backend.warm_up()
    backend.close()


def test_int8_is_refused_on_a_gpu(int8_bundle: Path) -> None:
    from ovavel.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend

    bundle = Bundle.open(int8_bundle)
    with pytest.raises(UsageError, match="onnxruntime-cuda does not run int8; it runs fp16, bf16, fp32"):
        OnnxRuntimeBackend(bundle, 0, 1, ("vision",), "int8")
    with pytest.raises(BundleError, match="no fp32 vision graph; its precisions are: int8-any"):
        OnnxRuntimeBackend(bundle, 0, 1, ("vision",))


@pytest.mark.proof
def test_the_same_weights_give_the_same_bytes(int8_bundle: Path, tiny_weights: Path, tmp_path: Path) -> None:
    tower = ImageBind.load(tiny_weights, TINY, ("audio",)).towers["audio"]
    for file in export_graph("audio", tower, tmp_path, encoders=TINY.encoders, precision="int8-any"):
        assert file.read_bytes() == (int8_bundle / file.name).read_bytes()


def test_weights_that_lose_too_much_are_refused(tmp_path: Path) -> None:
    state = golden_state(TINY)
    # A hidden unit 10 million times as large as the others takes up all steps of its tensor, and GELU prevents its
    # migration. fp32 is unaffected: the matrix after it ignores it.
    for part in ("weight", "bias"):
        state[f"modality_trunks.vision.blocks.0.mlp.fc1.{part}"][5] *= 1e7
    state["modality_trunks.vision.blocks.0.mlp.fc2.weight"][:, 5] = 0
    save_file(state, tmp_path / "outlier.safetensors")
    (tmp_path / "place").mkdir()
    with pytest.raises(
        ExportError, match=r"vision graph in int8-any .* is -?0\.\d{4} \(for .+\).*0\.99.*without --precision int8-any"
    ):
        write_bundle(
            BundleContents(tmp_path / "outlier.safetensors", ["dog"], config=TINY),
            tmp_path / "place" / "bundle",
            precisions=["int8-any"],
        )
    assert not list((tmp_path / "place").iterdir())


@pytest.mark.parametrize(
    ("gpu", "lossy", "expected"),
    [
        (False, (), (("fp32",), "int8")),
        (False, ("int8",), (("fp32",), "int16")),
        (False, ("int8", "int16"), (("fp32",), None)),
        (True, (), (("fp32", "fp16"), "int8")),
        (True, ("int8", "fp16"), (("fp32", "bf16"), "int16")),
        (True, ("fp16", "bf16"), (("fp32",), "int8")),
    ],
)
def test_by_default_a_bundle_has_fp32_and_the_fastest_that_passes(
    gpu: bool,
    lossy: tuple[str, ...],
    expected: tuple[tuple[str, ...], str | None],
    exported_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempts = []

    def write(*_: Any, precisions: Sequence[Precision], fastest_of: Sequence[Precision], **options: Any) -> Bundle:
        attempts.append((tuple(precisions), tuple(fastest_of)))
        for precision in sorted(set(lossy) & {*precisions, *fastest_of}):
            raise PrecisionError(f"{precision} loses too much [/]", precision, advice=f"Do without {precision}")
        return Bundle.open(exported_bundle)

    monkeypatch.setattr("ovavel.export.bundle.write_bundle", write)
    monkeypatch.setattr("ovavel.eval.bench.machine._gpus", lambda: ("NVIDIA H100",) if gpu else ())
    monkeypatch.setattr("ovavel.runtime.system.hardware.cpu_features", lambda: ("avx2", "avx_vnni"))
    (tmp_path / "names.txt").write_text("dog barking\n")
    arguments = ["--weights", "any.pth", "--config", "tiny", "--vocabulary", str(tmp_path / "names.txt")]
    assert main(["bundle", "export", *arguments, "--out", str(tmp_path / "bundle")]) == 0
    precisions, family = expected
    assert attempts[-1] == (precisions, (family, f"{family}-any") if family else ())
    reported = capsys.readouterr().err
    assert reported.count(" loses too much [/]. Trying again with") == len(attempts) - 1 == len(lossy)


@pytest.mark.parametrize(
    ("features", "cpu", "requested", "written"),
    [
        (("avx2", "avx512_vnni"), "this", ["int8"], (("int8",), ())),
        (("avx2",), "this", ["fp32", "int8", "int16"], (("fp32", "int8-any", "int16-any"), ())),
        (("avx2", "avx512_vnni"), "any", ["fp32", "int8"], (("fp32", "int8-any"), ())),
        (("avx2",), "this", [], (("fp32",), ("int8-any",))),
        (("asimd", "asimddp"), "any", [], (("fp32",), ("int8-any",))),
        ((), "this", [], (("fp32",), ("int8-any",))),  # a container that hides the features
    ],
)
def test_an_export_targets_this_kind_of_cpu_or_any(
    features: tuple[str, ...],
    cpu: str,
    requested: list[str],
    written: tuple[tuple[str, ...], tuple[str, ...]],
    exported_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    got = []

    def write(*_: Any, precisions: Sequence[Precision], fastest_of: Sequence[Precision], **options: Any) -> Bundle:
        got.append((tuple(precisions), tuple(fastest_of)))
        return Bundle.open(exported_bundle)

    monkeypatch.setattr("ovavel.export.bundle.write_bundle", write)
    monkeypatch.setattr("ovavel.eval.bench.machine._gpus", tuple)
    monkeypatch.setattr("ovavel.runtime.system.hardware.cpu_features", lambda: features)
    (tmp_path / "names.txt").write_text("dog barking\n")
    arguments = ["--weights", "any.pth", "--config", "tiny", "--vocabulary", str(tmp_path / "names.txt"), "--cpu", cpu]
    arguments += ["--precision", *requested] if requested else []
    assert main(["bundle", "export", *arguments, "--out", str(tmp_path / "bundle")]) == 0
    assert got == [written]


def test_among_equally_fast_forms_the_first_is_kept() -> None:
    assert fastest(["int8", "int8-any"], {"fp32": 1.0, "int8": 2.0, "int8-any": 2.05}) == "int8"
    assert fastest(["int8", "int8-any"], {"fp32": 1.0, "int8": 2.0, "int8-any": 2.5}) == "int8-any"


@pytest.mark.parametrize(
    ("speeds", "kept", "left_out"),
    [
        ({"fp32": 1.0, "int16-any": 2.0, "int8-any": 4.0}, "int8-any", "not faster here than int8-any"),
        ({"fp32": 1.0, "int16-any": 0.5, "int8-any": 0.8}, None, "1.25 times as long as fp32"),
    ],
)
def test_the_fastest_of_several_forms_is_kept(
    speeds: dict[str, float],
    kept: str | None,
    left_out: str,
    tiny_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured = []
    notes: list[str] = []

    def times_faster(forms: dict[str, Any]) -> dict[str, float]:
        measured.append(list(forms))
        return speeds

    monkeypatch.setattr("ovavel.export.bundle.times_faster", times_faster)
    forms: tuple[Precision, ...] = ("int16-any", "int8-any")  # two that every CPU can verify
    bundle = write_bundle(
        BundleContents(tiny_weights, ["dog"], config=TINY), tmp_path / "bundle", fastest_of=forms, note=notes.append
    )
    held = ["fp32", kept] if kept else ["fp32"]
    assert measured == [["fp32", *forms]]
    assert list(bundle.manifest.graphs["vision"]) == list(bundle.manifest.graphs["audio"]) == held
    assert {check.precision for check in bundle.manifest.parity.checks} == set(held)
    assert {gate.precision["vision"] for gate in bundle.manifest.parity.gates} == set(held)
    assert set(bundle.manifest.exact_on.values()) == {("any",)}
    assert not [name for name in bundle.manifest.files if any(form in name for form in set(forms) - {kept})]
    assert any(left_out in note for note in notes)
    assert len(notes) == len(forms) - (kept is not None)


def test_speeds_are_measured_alternately(int8_bundle: Path) -> None:
    graphs = [int8_bundle / f"{sense}.int8-any.onnx" for sense in ("vision", "audio")]
    speeds = times_faster({"fp32": graphs, "int8": graphs[1:]})
    assert speeds["fp32"] == 1
    assert speeds["int8"] > 0


def test_a_form_that_loses_too_much_is_replaced_by_the_other(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ovavel.export import bundle as module

    check, notes = module.check_graph, []

    def strict(path: Path, expected: Any, precision: Precision = "fp32") -> Any:
        if expected.graph == "audio" and precision == "int16-any":
            raise PrecisionError("the audio graph in int16-any loses too much", precision, advice="Do without it")
        return check(path, expected, precision)

    monkeypatch.setattr(module, "check_graph", strict)
    monkeypatch.setattr(module, "times_faster", lambda forms: dict.fromkeys(forms, 1.0))
    forms: tuple[Precision, ...] = ("int16-any", "int8-any")
    bundle = write_bundle(
        BundleContents(tiny_weights, ["dog"], config=TINY), tmp_path / "bundle", fastest_of=forms, note=notes.append
    )
    assert list(bundle.manifest.graphs["vision"]) == list(bundle.manifest.graphs["audio"]) == ["fp32", "int8-any"]
    assert not [name for name in bundle.manifest.files if "int16" in name]
    assert notes == ["the audio graph in int16-any loses too much"]
    with pytest.raises(PrecisionError, match="int16-any"):
        write_bundle(BundleContents(tiny_weights, ["dog"], config=TINY), tmp_path / "other", fastest_of=forms[:1])


def test_precisions_that_saturate_on_this_cpu_are_not_exported_here(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ovavel.export.place.cpu_features", lambda: ("avx2",))
    with pytest.raises(UsageError, match=r"int16 can be verified only on a CPU with avx512_vnni or .*: use int16-any"):
        write_bundle(
            BundleContents(tiny_weights, ["dog"], config=TINY), tmp_path / "bundle", precisions=["fp32", "int16"]
        )
    assert not list(tmp_path.iterdir())
