"""Draws the layers and their packages, as the import rules of pyproject.toml enforce them: `python docs/layers.py`.

`make lint` prints the drawing; with `--write`, docs/architecture.md gets it, and a test compares both.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- drawn by python docs/layers.py --write -->\n", "<!-- end of the drawing -->\n"
WIDTH = 15


def drawing() -> str:
    """Return each layer with its packages, the highest first: what stands lower never imports what stands higher."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    orders = [contract for contract in contracts if contract["type"] == "layers"]
    packages = {contract["containers"][0]: contract["layers"] for contract in orders if "containers" in contract}
    (layers,) = (contract["layers"] for contract in orders if "containers" not in contract)
    return "\n".join(
        line.rstrip() for layer in ("ovavel.service", *layers) for line in _layer(layer, packages.get(layer, []))
    )


def _layer(layer: str, packages: list[str]) -> Iterator[str]:
    folder = layer.removeprefix("ovavel.")
    yield f"{folder + '/':<{WIDTH + 4}}{_docstring(ROOT / folder)}"
    for order in packages:
        for place, name in enumerate(name.strip() for name in order.split("|")):
            path = ROOT / folder / name
            shown = name + "/" if path.is_dir() else name
            yield f"  {'▲' if place == 0 else ' '} {shown:<{WIDTH}}{_docstring(path)}"
    yield ""


def _docstring(path: Path) -> str:
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


if __name__ == "__main__":
    if "--write" in sys.argv:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        PAGE.write_text(
            f"{before}{BEGIN}```text\n{drawing().rstrip()}\n```\n{END}{rest.partition(END)[2]}", encoding="utf-8"
        )
    else:
        print(drawing())
