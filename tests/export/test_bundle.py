"""Writing a bundle: equal to the original, and complete or absent."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
import onnxruntime
import pytest
import torch
from msgspec.structs import replace
from safetensors.torch import save_file
from support.golden_weights import GOLDEN, golden_inputs, golden_state
from support.proofs import proof_unless

from ovavel.export import bundle as bundle_module
from ovavel.export.bundle import BundleContents, write_bundle
from ovavel.runtime.backends import open_backend
from ovavel.runtime.bundle.bundle import Bundle, file_entry
from ovavel.runtime.bundle.graphs import Graph
from ovavel.runtime.cli import main
from ovavel.runtime.errors import CheckpointError, ExportError, InputError, OvavelError, UsageError, VocabularyError
from ovavel.runtime.pipeline.texts import read_names
from ovavel.runtime.verification.golden import Golden
from ovavel.training.models.checkpoint import read_checkpoint, write_checkpoint
from ovavel.training.models.imagebind.model import ImageBind, ImageBindConfig, Modality, read_config

TINY = ImageBindConfig.tiny()
TOLERANCE = 2e-5


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"dev_{name}.npz") as file:
        values = dict(file)
    unit = {m: values[m] / np.linalg.norm(values[m], axis=1, keepdims=True) for m in get_args(Modality)}
    return {**values, **unit}


def test_the_tiny_bundle_matches_the_original(exported_bundle: Path) -> None:
    expected, inputs = golden("tiny"), golden_inputs()
    backend = open_backend(Bundle.open(exported_bundle), device="cpu", graphs=("vision", "audio", "text"))
    answers = {
        "vision": backend.vision(inputs["vision"].numpy()),
        "audio": backend.audio(inputs["audio"].numpy()),
        "text": backend.text(expected["tokens"], "vision"),
    }
    backend.close()
    for modality, answer in answers.items():
        np.testing.assert_allclose(answer, expected[modality], atol=TOLERANCE, rtol=0)


def test_the_manifest_describes_the_export(exported_bundle: Path, tiny_weights: Path, tiny_head: Path) -> None:
    manifest = Bundle.open(exported_bundle).manifest
    assert manifest.model.name == "imagebind_tiny"
    assert manifest.model.weights_sha256 == file_entry(tiny_weights).sha256
    assert manifest.model.head_sha256 == file_entry(tiny_head).sha256
    assert manifest.model.head_layers == 1
    assert "CC BY-NC-SA 4.0" in manifest.model.licence
    assert ImageBindConfig.from_dict(manifest.model.config) == TINY
    assert set(manifest.files) == {file.name for file in exported_bundle.iterdir()} - {"manifest.json"}
    assert [check.graph for check in manifest.parity.checks] == ["vision", "audio", "text", "head"]
    assert all(0 <= check.max_abs_difference <= (check.tolerance or 0) for check in manifest.parity.checks)
    assert all(check.min_cosine is None or check.min_cosine > 0.99999 for check in manifest.parity.checks)
    assert manifest.parity.versions["onnxruntime"] == onnxruntime.__version__


def test_the_vocabulary_is_embedded_by_torch(exported_bundle: Path, tiny_weights: Path) -> None:
    bundle = Bundle.open(exported_bundle)
    tokens = torch.from_numpy(bundle.tokenizer("vision").encode(bundle.vocabulary.names))
    with torch.no_grad():
        expected = ImageBind.load(tiny_weights, TINY, ("text",)).text(tokens).numpy()
    np.testing.assert_allclose(bundle.vocabulary.embeddings.vision, expected, atol=2e-6)


def nothing_left(folder: Path) -> bool:
    return not list(folder.iterdir())


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


def test_an_existing_folder_is_not_overwritten(tiny_bundle: Path, tiny_weights: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--overwrite"):
        write_bundle(BundleContents(tiny_weights, ["dog"], config=TINY), tiny_bundle)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="not a bundle"):
        write_bundle(BundleContents(tiny_weights, ["dog"], config=TINY), mine, overwrite=True)
    assert (mine / "thesis.txt").read_text() == "years of work"


class QuickGraphs:
    """Exporter that copies existing graphs, for tests of everything around it."""

    def __init__(self, exported: Path) -> None:
        self.exported = exported

    def __call__(self, _model: object, name: Graph, folder: Path, *_: object) -> list[Path]:
        return [Path(shutil.copy(file, folder)) for file in sorted(self.exported.glob(f"{name}.onnx*"))]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, exported_bundle: Path) -> None:
    monkeypatch.setattr(bundle_module, "traced", lambda *_, **__: None)
    monkeypatch.setattr(bundle_module, "save_variant", QuickGraphs(exported_bundle))


@pytest.mark.usefixtures("quick")
def test_overwriting_replaces_the_bundle(
    tiny_bundle: Path, tiny_weights: Path, tiny_head: Path, exported_bundle: Path
) -> None:
    stages: list[tuple[str, float]] = []
    bundle = write_bundle(
        BundleContents(tiny_weights, ["glass breaking"], head=tiny_head, config=TINY),
        tiny_bundle,
        overwrite=True,
        progress=lambda stage, share=None, *_: stages.append((stage, share)),
    )
    assert bundle.path == tiny_bundle
    assert Bundle.open(tiny_bundle).sha256 == bundle.sha256 != Bundle.open(exported_bundle).sha256
    assert bundle.vocabulary.names == ("glass breaking", "other")
    assert [entry.name for entry in tiny_bundle.parent.iterdir()] == [tiny_bundle.name]
    assert tiny_bundle.stat().st_mode & 0o777 == exported_bundle.stat().st_mode & 0o777 != 0o700
    shares = [share for _, share in stages]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert {stage.partition(":")[0] for stage, _ in stages} >= {"vision", "audio", "text", "head"}


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("threads", proof_unless((2).__eq__, [1, 2, 3]))
def test_the_same_input_gives_the_same_bundle(
    tiny_weights: Path, tiny_head: Path, place: Path, exported_bundle: Path, threads: int
) -> None:
    """Measured values include rounding that depends on the number of threads; everything else is the same."""
    first = Bundle.open(exported_bundle)
    torch.set_num_threads(threads)
    second = write_bundle(
        BundleContents(tiny_weights, first.vocabulary.names[:-1], head=tiny_head, config=TINY), place / "bundle"
    )
    if threads == 1:  # the same as for the first
        assert first.sha256 == second.sha256
    measured = {"golden.npz", "vocabulary.npz"}
    files = [{k: v for k, v in each.manifest.files.items() if k not in measured} for each in (first, second)]
    assert files[0] == files[1]
    assert first.manifest.files.keys() == second.manifest.files.keys() > measured
    rows = []
    for each in first, second:
        golden = Golden.load(each)
        rows.append(
            np.concatenate([golden.vision, golden.audio, golden.text.vision, each.vocabulary.embeddings.vision])
        )
    np.testing.assert_allclose(*rows, rtol=0, atol=1e-6)
    rest = [replace(each.manifest, files={}, parity=first.manifest.parity) for each in (first, second)]
    assert rest[0] == rest[1]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device"), ExportError("missed")])
def test_an_interrupted_export_leaves_nothing(
    tiny_weights: Path, place: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(bundle_module, "check_graph", fail)
    with pytest.raises((KeyboardInterrupt, OvavelError)):
        write_bundle(BundleContents(tiny_weights, ["dog"], config=TINY), place / "bundle")
    assert nothing_left(place)


def test_a_terminated_export_leaves_nothing(tiny_weights: Path, place: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("dog barking\n")
    arguments = ["--weights", tiny_weights, "--vocabulary", tmp_path / "names.txt", "--out", place / "bundle"]
    command = [sys.executable, "-c", "import sys; from ovavel.runtime.cli import main; sys.exit(main())"]
    with subprocess.Popen(
        [*command, "bundle", "export", "--config", "tiny", *arguments], stderr=subprocess.PIPE
    ) as run:
        deadline_s = time.monotonic() + 60
        while nothing_left(place) and time.monotonic() < deadline_s:
            time.sleep(0.01)
        assert not nothing_left(place)  # half a bundle
        run.terminate()
        assert run.wait(60) == 130
        assert run.stderr is not None
        assert b"interrupted" in run.stderr.read()
    assert nothing_left(place)


def test_non_finite_weights_are_not_exported(place: Path, tmp_path: Path) -> None:
    state = golden_state(TINY)
    state["modality_heads.vision.2.weight"][0, 0] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(ExportError, match="vision graph"):
        write_bundle(BundleContents(tmp_path / "nan.safetensors", ["dog"], config=TINY), place / "bundle")
    assert nothing_left(place)


def test_errors_are_reported_before_anything_is_written(tiny_weights: Path, tiny_head: Path, place: Path) -> None:
    out = place / "bundle"
    with pytest.raises(CheckpointError, match=r"nowhere\.pth"):
        write_bundle(BundleContents(place / "nowhere.pth", ["dog"], config=TINY), out)
    with pytest.raises(CheckpointError, match="another size"):
        write_bundle(BundleContents(tiny_weights, ["dog"]), out)
    with pytest.raises(VocabularyError, match="twice"):
        write_bundle(BundleContents(tiny_weights, ["dog", "dog"], config=TINY), out)
    with pytest.raises(UsageError, match="do not belong together"):
        write_bundle(BundleContents(tiny_weights, ["dog"], head=tiny_head, config=ImageBindConfig.huge()), out)
    with pytest.raises(CheckpointError):
        write_bundle(BundleContents(tiny_weights, ["dog"], head=tiny_weights, config=TINY), out)
    assert nothing_left(place)


def test_a_full_disk_is_detected_at_once(tiny_weights: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(place)._replace(free=10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(ExportError, match="free some space"):
        write_bundle(BundleContents(tiny_weights, ["dog"], config=TINY), place / "bundle")
    assert nothing_left(place)


@pytest.mark.usefixtures("quick")
def test_the_command_writes_a_bundle_and_prints_its_licence(
    tiny_weights: Path, tiny_head: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "names.txt").write_text("# pets\n\n  dog barking\ncat purring\nother\n", encoding="utf-8-sig")
    weights = tmp_path / "made-up.safetensors"
    write_checkpoint(weights, read_checkpoint(tiny_weights), {"licence": "Apache-2.0"})
    arguments = ["--weights", str(weights), "--head", str(tiny_head), "--config", "tiny", "--precision", "fp32"]
    arguments += ["--vocabulary", str(tmp_path / "names.txt")]
    assert main(["bundle", "export", *arguments, "--out", str(tmp_path / "new" / "bundle")]) == 0
    reported = capsys.readouterr()
    assert not reported.err.startswith("\n")
    bundle = Bundle.open(tmp_path / "new" / "bundle")
    assert reported.out.splitlines()[-1] == bundle.manifest.model.licence == "Apache-2.0, as made-up.safetensors says"
    assert bundle.vocabulary.names == ("dog barking", "cat purring", "other")
    assert main(["bundle", "export", *arguments, "--out", str(tmp_path / "new" / "bundle")]) == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, b"\xff\xfe\xfa", b"", b"# nothing\n\n", b"dog\xe2\x80\xae\n"])
def test_unusable_vocabulary_files_are_refused(
    tiny_weights: Path, tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    names = tmp_path / "names.txt"
    if content is not None:
        names.write_bytes(content)
    arguments = ["--weights", str(tiny_weights), "--vocabulary", str(names), "--out", str(tmp_path / "bundle")]
    code = 1 if content is None or b"\xff" in content else 2
    assert main(["bundle", "export", "--config", "tiny", *arguments]) == code
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_names_and_configurations_are_read(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("other\ndog\n", encoding="utf-8")
    assert read_names(tmp_path / "names.txt") == ["other", "dog"]  # refused later: "other" is not last
    (tmp_path / "names.txt").write_bytes("\ufeffdo\u2028g\r\n # no name\r\n  cat\x1c\r\n\r\nother".encode())
    assert read_names(tmp_path / "names.txt") == ["do\u2028g", "cat\x1c"]  # refused later, as they are
    (tmp_path / "config.json").write_text('{"name": "mine"}')
    (tmp_path / "deep.json").write_text("[" * 100_000)
    for wrong in ("nowhere.json", "names.txt", "config.json", "deep.json"):
        with pytest.raises((InputError, UsageError)):
            read_config(str(tmp_path / wrong))
    with pytest.raises(UsageError):
        read_config("large")
    assert read_config("tiny") == TINY
    for values in (TINY.to_dict(), {"format": 1, "model": {"name": "imagebind_tiny", "config": TINY.to_dict()}}):
        (tmp_path / "config.json").write_bytes(msgspec.json.encode(values))
        assert read_config(str(tmp_path / "config.json")) == TINY
    (tmp_path / "config.json").write_text('{"model": {"config": 3}}')
    with pytest.raises(UsageError, match="invalid ImageBind configuration"):
        read_config(str(tmp_path / "config.json"))
