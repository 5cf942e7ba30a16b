"""8-bit graphs that are exact on every CPU: checked by a property of their weights, in numpy and on emulated CPUs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from support.other_cpus import arm_command, environment, x86_command
from support.saturating import exact, integer_matrices, run, saturating

from ovavel.eval import demo
from ovavel.export.bundle import BundleContents, write_bundle
from ovavel.export.graphs import save_variant, traced
from ovavel.export.inputs import SENSES, Sense, calibration_inputs, sense_inputs
from ovavel.export.precision.activations import observe_activations
from ovavel.export.precision.quantize import _rounded_weights
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.bundle.precision import ANY, EXACT_ON, Precision, exact_here
from ovavel.runtime.system.hardware import cpu_features
from ovavel.training.models.imagebind.model import ImageBind, ImageBindConfig

pytestmark = pytest.mark.slow

TINY = ImageBindConfig.tiny()
FORMS: tuple[Precision, ...] = ("int8", "int8-any", "int16", "int16-any")
FOR_ANY = [form for form in FORMS if EXACT_ON.get(form, (ANY,)) == (ANY,)]
FOR_SOME = [form for form in FORMS if form not in FOR_ANY]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Callable[[Sense, str], Path]:
    """Return the encoders in every form, whether or not this CPU computes it exactly."""
    folder = tmp_path_factory.mktemp("graphs")
    files = {}
    for sense in SENSES:
        tower = ImageBind.load(tiny_weights, TINY, (sense,)).towers[sense]
        seen = observe_activations(tower, calibration_inputs(sense, ImageBindConfig.tiny().encoders))
        model = traced(sense, tower, encoders=TINY.encoders)
        for form in FORMS:
            files[sense, form], *_ = save_variant(model, sense, folder, form, seen)
    return lambda sense, form: files[sense, form]


def largest_sum(matrix: NDArray[np.int8]) -> int:
    """Return the largest magnitude of the sum of two neighbouring products with values from 0 to 255."""
    pairs = np.pad(matrix.astype(np.int64), ((0, len(matrix) % 2), (0, 0))).reshape(-1, 2, matrix.shape[1])
    return 255 * int(max(np.maximum(sign * pairs, 0).sum(axis=1).max() for sign in (1, -1)))


WEIGHTS = arrays(
    np.float32,
    st.tuples(st.integers(1, 9), st.integers(1, 4)),
    elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=True),
)


@given(weights=WEIGHTS)
def test_no_pair_of_products_exceeds_16_bits(weights: NDArray[np.float32]) -> None:
    rounded = _rounded_weights(weights, any_cpu=True)
    for part in (rounded.high, rounded.low):
        assert largest_sum(part) < 2**15
        assert np.abs(part.astype(int)).max() <= 127
    error = np.abs(rounded.high * rounded.scale + rounded.low * rounded.low_scale - weights)
    half_a_step = 0.51 / 126 + 1e-4  # of the rounding error, plus float32's own
    assert (error <= half_a_step * rounded.scale + np.finfo(np.float32).tiny).all()


@given(weights=WEIGHTS)
def test_forms_for_any_cpu_lose_at_most_one_bit(weights: NDArray[np.float32]) -> None:
    for_any, for_some = (_rounded_weights(weights, any_cpu=each).scale for each in (True, False))
    assert (for_any >= for_some).all()
    assert (for_any <= 2.0001 * for_some).all()


@pytest.mark.parametrize("sense", SENSES)
@pytest.mark.parametrize("form", FORMS)
def test_exported_weights_stay_within_16_bits(sense: Sense, form: str, graphs: Callable[[Sense, str], Path]) -> None:
    matrices = integer_matrices(graphs(sense, form))
    assert len(matrices) == getattr(TINY, sense).blocks * (8 if "16" in form else 6)
    largest = max(map(largest_sum, matrices.values()))
    assert (largest < 2**15) == (form in FOR_ANY)


@pytest.mark.parametrize("sense", SENSES)
@pytest.mark.parametrize("form", FORMS)
def test_a_saturating_cpu_is_exact_with_forms_for_any_cpu(
    sense: Sense, form: str, graphs: Callable[[Sense, str], Path]
) -> None:
    differ = []
    for array in sense_inputs(sense, ImageBindConfig.tiny().encoders, range(1)).values():
        wanted, got = (run(graphs(sense, form), array[None], saturate=saturate) for saturate in (False, True))
        differ.append(not np.array_equal(wanted, got))
    assert any(differ) == (form in FOR_SOME)  # forms for some CPUs show that this test can fail


def test_the_emulation_saturates_like_the_instruction() -> None:
    rows = np.array([[255, 255, 255]], np.uint8)
    matrix = np.array([[127, 64, -127], [127, 64, -127], [1, 1, 1]], np.int8)
    np.testing.assert_array_equal(saturating(rows, matrix), [[32767 + 255, 32640 + 255, -32768 + 255]])
    np.testing.assert_array_equal(exact(rows, matrix), [[64770 + 255, 32640 + 255, -64770 + 255]])


def write_products(folder: Path, matrices: dict[str, NDArray[np.int8]]) -> None:
    """Write for each of `matrices` a graph with one product, its inputs and the exact outputs."""
    random = np.random.default_rng(0)
    arrays: dict[str, NDArray[np.generic]] = {}
    nodes, inputs, outputs = [], [], []
    for number, matrix in enumerate(matrices.values()):
        rows = random.choice(np.array([0, 255, 254, 100], np.uint8), (9, len(matrix)))
        rows[0] = 255
        rows[1:3] = np.where(matrix[:, :2].T > 0, 255, 0)  # the largest sum of two columns
        arrays |= {f"x{number}": rows, f"y{number}": exact(rows, matrix).astype(np.int32)}
        nodes.append(helper.make_node("MatMulInteger", [f"x{number}", f"w{number}"], [f"y{number}"]))
        inputs.append(helper.make_tensor_value_info(f"x{number}", TensorProto.UINT8, rows.shape))
        outputs.append(helper.make_tensor_value_info(f"y{number}", TensorProto.INT32, None))
    weights = [numpy_helper.from_array(matrix, f"w{number}") for number, matrix in enumerate(matrices.values())]
    graph = helper.make_graph(nodes, "products", inputs, outputs, weights)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), folder / "products.onnx"
    )
    np.savez(folder / "products.npz", allow_pickle=False, **arrays)


PRODUCTS = """
import sys, numpy, onnxruntime
from pathlib import Path
from ovavel.runtime.bundle.bundle import Bundle
from ovavel.runtime.system.hardware import cpu_features
from ovavel.runtime.bundle.precision import exact_here
print("exact", exact_here("onnxruntime-cpu", "int8", (), cpu_features()))
for folder in map(Path, sys.argv[1:]):
    session = onnxruntime.InferenceSession(folder / "products.onnx", providers=["CPUExecutionProvider"])
    arrays = dict(numpy.load(folder / "products.npz"))
    found = session.run(None, {name: array for name, array in arrays.items() if name[0] == "x"})
    names = [value.name for value in session.get_outputs()]
    print(folder.name, all(numpy.array_equal(arrays[name], each) for name, each in zip(names, found)))
"""
SELF_CHECKS = """
import sys
from ovavel.runtime.cli import main
for precision in sys.argv[2:]:
    print("exit", precision, main(["bundle", "check", "--bundle", sys.argv[1], "--precision", precision]))
"""
MACHINES: dict[str, tuple[Callable[[str], list[str]], str, bool]] = {
    "x86-64 with AVX2": (x86_command, "Haswell", False),
    "ARM with dot products": (arm_command, "neoverse-n1", True),
    "ARM without": (arm_command, "cortex-a72", False),
}
"""Machine → command that runs it, its name in QEMU, and whether its dot products make every form exact."""


def run_on(command: list[str], program: str, *arguments: Path | str, folder: Path) -> str:
    """Run a program on the machine of `command`; return its output."""
    words = [*command, "-c", program, *map(str, arguments)]
    done = subprocess.run(words, env=environment(command, folder), capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory, graphs: Callable[[Sense, str], Path]) -> Path:
    """Return a folder with all products of both encoders, in a subfolder per form."""
    folder = tmp_path_factory.mktemp("products")
    for form in FORMS:
        (folder / form).mkdir()
        matrices = {
            f"{sense} {name}": each for sense in SENSES for name, each in integer_matrices(graphs(sense, form)).items()
        }
        write_products(folder / form, matrices)
    return folder


def test_products_are_exact_here_as_the_cpu_features_predict(products: Path, tmp_path: Path) -> None:
    reported = run_on([sys.executable], PRODUCTS, *(products / form for form in FORMS), folder=tmp_path).split("\n")
    exact = [form for form in FORMS if exact_here("onnxruntime-cpu", form, (), cpu_features())]
    assert {f"{form} True" for form in (*FOR_ANY, *exact)} <= set(reported)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("machine", MACHINES)
def test_products_on_other_cpus(machine: str, products: Path, tmp_path: Path) -> None:
    command, cpu, dot_products = MACHINES[machine]
    reported = run_on(command(cpu), PRODUCTS, *(products / form for form in FORMS), folder=tmp_path).split("\n")
    assert f"exact {dot_products}" in reported
    assert {f"{form} True" for form in FOR_ANY} <= set(reported)
    if command is x86_command:  # ARM's products without dot products happen to fit
        assert {f"{form} False" for form in FOR_SOME} <= set(reported)


@pytest.fixture(scope="module")
def whole_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> tuple[Path, list[Precision]]:
    """Return the tiny bundle in all forms that this CPU can verify."""
    forms: list[Precision] = [each for each in FORMS if exact_here("onnxruntime-cpu", each, (), cpu_features())]
    out = tmp_path_factory.mktemp("whole") / "bundle"
    write_bundle(
        BundleContents(tiny_weights, ["dog barking", "race car"], config=TINY), out, precisions=["fp32", *forms]
    )
    return out, forms


@pytest.mark.proof
@pytest.mark.timeout(600)
@pytest.mark.parametrize("machine", MACHINES)
def test_a_bundle_of_this_machine_checks_itself_on_other_cpus(
    machine: str, whole_bundle: tuple[Path, list[Precision]], tmp_path: Path
) -> None:
    command, cpu, dot_products = MACHINES[machine]
    bundle, forms = whole_bundle
    requested = ["int8", "int16"] if dot_products else ["int8", "int16-any"]
    reported = run_on(command(cpu), SELF_CHECKS, bundle, *requested, folder=tmp_path)
    assert [line for line in reported.split("\n") if line.startswith("exit")] == [
        f"exit {each} 0" for each in requested
    ]
    ran = "int8" if dot_products and "int8" in forms else "int8-any"
    assert f"vision {ran}, audio {ran}," in reported


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_a_bundle_checks_itself_here(whole_bundle: tuple[Path, list[Precision]], tmp_path: Path) -> None:
    bundle, forms = whole_bundle
    reported = run_on([sys.executable], SELF_CHECKS, bundle, "fp32", *forms, folder=tmp_path)
    assert reported.count(" 0\n") == 1 + len(forms)


def test_the_demo_is_exact_on_every_cpu() -> None:
    for files in Bundle.open(Path(demo.__file__).parent / "assets" / "bundle").manifest.graphs.values():
        assert all(exact_here("onnxruntime-cpu", precision, (), ()) for precision in files)
