"""Weights in the place of those that were used first are reported, whatever the bundle says of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from ovavel.runtime.backends import BackendInfo, open_backend
from ovavel.runtime.bundle.bundle import Bundle, file_entry
from ovavel.runtime.cli import main
from ovavel.runtime.errors import InputError
from ovavel.runtime.verification.first_use import accept, changed_since_first_use
from ovavel.runtime.verification.gates import checked_here, find_gate, gate_text

CLIP = Path(__file__).parents[3] / "eval" / "demo" / "assets" / "clip.mp4"
DEMO = CLIP.parent / "bundle"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ovavel" / "first-used"


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEMO, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def info() -> BackendInfo:
    backend = open_backend(Bundle.open(DEMO), device="cpu", threads=1)
    backend.close()
    return backend.info


def exchange(folder: Path, name: str = "head.onnx.data") -> Bundle:
    """Change weights, their hash and the bundle's own gate, as whoever wants to fool somebody would."""
    data = bytearray((folder / name).read_bytes())
    data[1000] ^= 1  # the last bit of a number
    (folder / name).write_bytes(data)
    bundle = Bundle.open(DEMO)
    files = {**bundle.manifest.files, name: file_entry(folder / name)}
    listed = msgspec.structs.replace(bundle.manifest, files=files)
    changed = Bundle(path=folder, manifest=listed, sha256="", vocabulary=bundle.vocabulary)
    gates = [
        msgspec.structs.replace(gate, graphs_sha256=changed.graphs_sha256(gate.precision))
        for gate in bundle.manifest.parity.gates
    ]
    (folder / "manifest.json").write_bytes(listed.gated(gates).encode())
    return Bundle.open(folder)


def test_a_gate_from_the_bundle_is_not_called_verified(demo: Path, info: BackendInfo) -> None:
    bundle = exchange(demo)
    gate = find_gate(bundle, info)
    assert gate is not None
    assert gate.passed
    said = gate_text(gate, here=checked_here(bundle, gate))
    assert "verified" not in said
    assert "by the bundle's own record" in said
    assert "not checked on this machine" in said


@pytest.mark.parametrize(("name", "graph"), [("head.onnx.data", "head fp32"), ("vision.onnx.data", "vision fp32")])
def test_changed_weights_are_reported_until_accepted(demo: Path, info: BackendInfo, name: str, graph: str) -> None:
    assert changed_since_first_use(Bundle.open(demo), info) is None
    assert changed_since_first_use(Bundle.open(demo), info) is None
    other = exchange(demo, name)
    for _ in range(2):
        said = changed_since_first_use(other, info)
        assert said is not None
        assert said.isprintable()
        assert str(demo) in said
        assert f": {graph}. If you" in said
    accept(other)
    assert changed_since_first_use(other, info) is None


def test_names_may_change(demo: Path, info: BackendInfo) -> None:
    bundle = Bundle.open(demo)
    assert changed_since_first_use(bundle, info) is None
    changed = bundle.save_vocabulary(bundle.vocabulary.removed(bundle.vocabulary.names[:1]))
    assert changed_since_first_use(changed, info) is None


def test_a_store_that_other_users_can_write_is_refused(demo: Path, info: BackendInfo, store: Path) -> None:
    assert changed_since_first_use(Bundle.open(demo), info) is None
    (file,) = store.iterdir()
    assert store.stat().st_mode & 0o077 == 0
    assert file.stat().st_mode & 0o077 == 0
    file.chmod(0o666)
    with pytest.raises(InputError, match="can be written to by other users"):
        changed_since_first_use(Bundle.open(demo), info)


def test_an_unwritable_store_is_reported(
    demo: Path, info: BackendInfo, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert changed_since_first_use(Bundle.open(demo), info) is None
    assert "cannot record which weights" in caplog.text


def test_localize_reports_and_self_check_accepts(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    localize = ["localize", str(CLIP), "--bundle", str(demo), "--device", "cpu", "--threads", "1"]
    assert main(localize) == 0
    assert "the weights differ" not in capsys.readouterr().err
    exchange(demo)
    assert main(localize) == 0
    shown = capsys.readouterr()
    assert shown.err.count("ovavel: the weights differ from those first used from") == 1
    assert "by the bundle's own record" in shown.out
    assert main(["bundle", "check", "--bundle", str(demo), "--device", "cpu", "--threads", "1"]) == 0
    assert "\naccepted: the weights differ" in capsys.readouterr().out
    assert main(localize) == 0
    assert "the weights differ" not in capsys.readouterr().err


def test_live_and_vocab_try_report_too(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    live = ["live", str(CLIP), "--bundle", str(demo), "--device", "cpu", "--threads", "1", "--view", "lines"]
    phrase = ["--phrases", "small bell ringing quickly"]
    vocab_try = ["vocab", "try", str(CLIP), "--bundle", str(demo), *phrase, "--device", "cpu"]
    main(vocab_try)
    assert "the weights differ" not in capsys.readouterr().err
    exchange(demo, "vision.onnx.data")
    for command in (live, vocab_try):
        main(command)
        shown = capsys.readouterr()
        assert (shown.out + shown.err).count("the weights differ from those first used from") == 1
