"""What a user installs: one import name, every sub-package, and nothing heavy until it is needed."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LAYERS = ("runtime", "eval", "training", "export", "service")
HEAVY = ("torch", "onnx", "onnxruntime", "cv2", "av", "sounddevice", "numpy", "PIL", "tokenizers", "matplotlib")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True, timeout=60)


def test_every_folder_with_code_is_a_package() -> None:
    setuptools = pytest.importorskip("setuptools")
    found = set(setuptools.find_namespace_packages(str(ROOT / "namespace")))
    for layer in LAYERS:
        assert (ROOT / "namespace" / "ovavel" / layer).resolve() == ROOT / layer
        folders = {path.parent for path in (ROOT / layer).rglob("*.py")}
        assert {f"ovavel.{'.'.join(folder.relative_to(ROOT).parts)}" for folder in folders} <= found
        assert all((folder / "__init__.py").is_file() for folder in folders)


@pytest.mark.slow
def test_a_wheel_holds_ovavel_and_nothing_beside_it(tmp_path: Path) -> None:
    run("-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT))
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"ovavel", f"ovavel-{PYPROJECT['project']['version']}.dist-info"}
    assert "ovavel/runtime/py.typed" in names
    assert "ovavel/training/models/bpe_simple_vocab_16e6.txt.gz" in names
    sheets = {
        path.relative_to(ROOT) for layer in LAYERS for end in ("css", "js") for path in (ROOT / layer).rglob(f"*.{end}")
    }
    assert Path("runtime/reporting/style.css") in sheets
    assert {f"ovavel/{path}" for path in sheets} <= set(names)
    demo = {name for name in names if name.startswith("ovavel/eval/demo/assets/")}
    assert {f"ovavel/eval/demo/assets/{name}" for name in ("bundle/manifest.json", "clip.mp4", "truth.json")} <= demo
    shipped = {
        path.relative_to(ROOT / "eval" / "demo" / "assets")
        for path in (ROOT / "eval" / "demo" / "assets" / "bundle").iterdir()
    }
    assert {f"ovavel/eval/demo/assets/{path}" for path in shipped} <= demo
    assert not [name for name in names if name.endswith((".onnx", ".npz", ".pth")) and name not in demo]


REQUIREMENTS = [
    Requirement(text)
    for group in (
        PYPROJECT["build-system"]["requires"],
        PYPROJECT["project"]["dependencies"],
        *PYPROJECT["project"]["optional-dependencies"].values(),
    )
    for text in group
]
DISTRIBUTIONS = {
    "argon2": "argon2-cffi",
    "paho": "paho-mqtt",
    "PIL": "pillow",
    "cuda": "cuda-python",
    "cv2": "opencv-python-headless",
    "google": "protobuf",
    "grpc": "grpcio",
}
"""Import name → what is installed for it, where the names differ."""


def test_every_requirement_has_a_lower_bound_and_nothing_else() -> None:
    """`make oldest` installs the bounds; an upper bound would keep a user from what is newest."""
    for requirement in REQUIREMENTS:
        if requirement.name != "ovavel":
            assert [bound.operator for bound in requirement.specifier] == [">="], requirement


def test_whatever_is_required_twice_has_one_bound() -> None:
    bounds: dict[str, set[str]] = {}
    for requirement in REQUIREMENTS:
        bounds.setdefault(canonicalize_name(requirement.name), set()).add(str(requirement.specifier))
    assert {name: found for name, found in bounds.items() if len(found) > 1} == {}


def test_whatever_is_imported_is_required() -> None:
    """What comes only with something else has no bound of its own, and is gone when that one stops needing it."""
    required = {canonicalize_name(requirement.name) for requirement in REQUIREMENTS}
    for layer in LAYERS:
        for path in (ROOT / layer).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                else:
                    names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
                for package in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"ovavel"}:
                    distribution = canonicalize_name(DISTRIBUTIONS.get(package, package))
                    assert distribution in required, f"{path.relative_to(ROOT)} imports {package}"


def test_the_command_line_loads_nothing_heavy() -> None:
    loaded = run("-c", "import ovavel.runtime.cli, sys; print(*sys.modules)").stdout.split()
    assert "ovavel.runtime.cli" in loaded
    assert not set(HEAVY) & set(loaded)


def test_help_loads_every_command_and_still_nothing_heavy() -> None:
    code = "import sys; from ovavel.runtime.cli import main; main(['--help']); print(*sys.modules)"
    *help_text, loaded = run("-c", code).stdout.splitlines()
    assert not set(HEAVY) & set(loaded.split())
    for name in PYPROJECT["project"]["entry-points"]["ovavel.commands"]:
        assert any(line.startswith(f"  {name.replace('.', ' ')} ") for line in help_text), name


def test_the_public_names_are_all_there() -> None:
    runtime = importlib.import_module("ovavel.runtime")
    for name in runtime.__all__:
        assert getattr(runtime, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = runtime.Nothing


@pytest.mark.parametrize("group", ["ovavel.commands", "ovavel.backends"])
def test_every_entry_point_loads(group: str) -> None:
    if group == "ovavel.backends":
        pytest.importorskip("torch")
    entries = [entry for entry in entry_points(group=group) if entry.value.startswith("ovavel.")]
    assert {entry.name for entry in entries} == set(PYPROJECT["project"]["entry-points"][group])
    for entry in entries:
        assert callable(entry.load())


def test_the_runtime_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'onnx', 'onnxscript')))\n"
        "import ovavel.runtime as r, ovavel.eval.accuracy.metrics\n"
        "[getattr(r, name) for name in r.__all__]"
    )
    run("-c", code)


WITHOUT_TORCH = """
import sys

class Missing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")

sys.meta_path.insert(0, Missing())
from ovavel.runtime.cli import main
raise SystemExit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ("bundle", "export", "--config", "tiny", "--weights", "w", "--vocabulary", "v", "--out", "OUT"),
        ("bench", "run", "--bundle", "BUNDLE", "--weights", "w", "--windows", "1"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_what_needs_torch_says_how_to_install_it(
    arguments: tuple[str, ...], exported_bundle: Path, tmp_path: Path
) -> None:
    places = {"OUT": str(tmp_path / "out"), "BUNDLE": str(exported_bundle)}
    command = [sys.executable, "-c", WITHOUT_TORCH, *(places.get(word, word) for word in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "needs torch, which is not installed. Install it with: pip install " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
