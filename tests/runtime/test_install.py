"""Install hints work where ovavel came from."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovavel.runtime import install
from ovavel.runtime.errors import MissingExtraError
from ovavel.runtime.install import install_command, replace_runtime

ELSEWHERE = "pip install '.[cpu]'   # in a checkout of ovavel"


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    install_command.cache_clear()
    yield
    install_command.cache_clear()


class Distribution:
    def __init__(self, noted: object) -> None:
        self.noted = noted

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return self.noted if isinstance(self.noted, str | None) else json.dumps(self.noted)


@pytest.mark.parametrize(
    ("noted", "command"),
    [
        (None, "pip install 'ovavel[cpu]'"),
        ({"url": "file:///nowhere/ovavel", "dir_info": {}}, ELSEWHERE),
        ({"url": "file:///tmp/ovavel.whl", "archive_info": {}}, "pip install 'ovavel[cpu] @ file:///tmp/ovavel.whl'"),
        (
            {"url": "https://host/ovavel.git", "vcs_info": {"vcs": "git"}},
            "pip install 'ovavel[cpu] @ git+https://host/ovavel.git'",
        ),
        ("damaged", ELSEWHERE),
        ([], ELSEWHERE),
    ],
)
def test_the_hint_follows_what_pip_noted(noted: object, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "distributions", lambda name: [Distribution(None), Distribution(noted)])
    assert install_command("cpu") == command
    assert command in str(MissingExtraError("onnxruntime", "cpu", need="This"))


@pytest.mark.parametrize("editable", [True, False])
def test_in_a_checkout_it_names_the_checkout(editable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my checkout"
    folder.mkdir()
    noted = {"url": folder.as_uri(), "dir_info": {"editable": editable}}
    monkeypatch.setattr(install, "distributions", lambda name: [Distribution(None), Distribution(noted)])
    words = shlex.split(install_command("cpu"))
    assert words == ["pip", "install", *(["--editable"] if editable else []), f"{folder}[cpu]"]
    assert install_command(again=True).startswith("pip install --force-reinstall ")


@pytest.mark.parametrize(
    ("installed", "extra"),
    [
        ([], "cpu"),
        (["onnxruntime"], "cpu"),
        (["onnxruntime-gpu"], "gpu"),
        (["onnxruntime", "onnxruntime-gpu"], "gpu"),
    ],
)
def test_a_runtime_is_replaced_by_its_like(installed: list[str], extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "distributions", lambda name: [Distribution(None)] * (name in [*installed, "ovavel"]))
    assert replace_runtime() == f"pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'ovavel[{extra}]'"


def test_no_advice_to_install_a_runtime_is_made_elsewhere() -> None:
    layers = Path(install.__file__).parents[1]
    made = [
        path
        for layer in ("runtime", "eval", "training", "export")
        for path in (layers / layer).rglob("*.py")
        if re.search(r"pip (un)?install\b", path.read_text(encoding="utf-8"))
    ]
    assert made == [Path(install.__file__)]
