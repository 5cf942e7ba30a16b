"""The limits of CONTRIBUTING.md: parameters of a function, lines of a file, modules of a folder.

What is beyond a limit says why in its docstring, after "Many parameters: ", "Many lines: " or "Many modules: ".
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARAMETERS, LINES, MODULES = 8, 350, 12
FOLDERS = ("runtime", "eval", "training", "export", "service", "tests")


def sources(folder: str) -> list[Path]:
    return sorted(path for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts)


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    given = function.args
    named = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return sum(name not in ("self", "cls") for name in named) + bool(given.vararg) + bool(given.kwarg)


def functions(tree: ast.AST) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, str]]:
    """Each function with its docstring; that of the class for `__init__`."""
    for node in ast.walk(tree):
        docstring = (ast.get_docstring(node) or "") if isinstance(node, ast.ClassDef) else ""
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                own = ast.get_docstring(child) or ""
                yield child, own + docstring if child.name == "__init__" else own


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_function_has_many_parameters(folder: str) -> None:
    many = [
        f"{path.relative_to(ROOT)}:{function.lineno}: {function.name} has {parameters(function)}"
        for path in sources(folder)
        for function, docstring in functions(ast.parse(path.read_bytes()))
        if parameters(function) > PARAMETERS and "Many parameters: " not in docstring
        # What pytest hands to a test are fixtures, and nobody calls it.
        if not function.name.startswith("test_")
    ]
    assert not many, "group them in a typed object, or say in the docstring why not, after 'Many parameters: '"


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_file_is_long(folder: str) -> None:
    long = [
        f"{path.relative_to(ROOT)} has {lines}"
        for path in sources(folder)
        if (lines := len(path.read_text("utf-8").splitlines())) > LINES
        if "Many lines: " not in (ast.get_docstring(ast.parse(path.read_bytes())) or "")
    ]
    assert not long, "split them by topic, or say in the module's docstring why not, after 'Many lines: '"


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_folder_has_many_modules(folder: str) -> None:
    found: dict[Path, int] = {}
    for path in sources(folder):
        if path.name != "__init__.py":
            found[path.parent] = found.get(path.parent, 0) + 1
    many = [f"{each.relative_to(ROOT)} has {count}" for each, count in found.items() if count > MODULES]
    reasons = {
        each: ast.get_docstring(ast.parse((each / "__init__.py").read_bytes())) or ""
        for each in found
        if (each / "__init__.py").is_file()
    }
    many = [name for name in many if "Many modules: " not in reasons.get(ROOT / name.partition(" has ")[0], "")]
    assert not many, "make a folder within, or say in the docstring of __init__.py why not, after 'Many modules: '"


@pytest.mark.parametrize("folder", FOLDERS[:-1])
def test_submodules_of_numpy_are_imported_and_not_found_by_access(folder: str) -> None:
    """NumPy imports some of them when they are first accessed; two threads that do it at once recurse without end."""
    lazy = {"char", "ctypeslib", "fft", "ma", "polynomial", "random", "rec", "strings", "testing"}
    accessed = [
        f"{path.relative_to(ROOT)}:{node.lineno}: np.{node.attr}"
        for path in sources(folder)
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Attribute) and node.attr in lazy
        if isinstance(node.value, ast.Name) and node.value.id == "np"
    ]
    assert not accessed, "import them: from numpy import fft"
